"""How the training went, and how well the model fits: the training curve and the calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from refnaf.plotting.marks import BLACK, GREEN, GREY, LINES, say_why_empty, style
from refnaf.plotting.scene import Array, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from refnaf.flows import Flow

FEW_EPOCHS = 25  # fewer have a dot each
KOLMOGOROV_99 = 1.6276  # P(sqrt(n) D_n > this) = 0.01 for large n
LEGEND_COLUMNS = 3
CURVES = (("train", GREY), ("validation", BLACK))


def draw_history(axes: Axes, flow: Flow) -> None:
    """The mean log-density, in nats, of the training and the validation rows by epoch, and the best epoch."""
    from matplotlib.ticker import MaxNLocator

    style(axes, "training", "epoch", "mean log-density (nats)")
    rows = [row for row in flow.history if row.get("epoch") is not None]
    epochs = np.array([row["epoch"] for row in rows], dtype=float)
    top, bottom = -math.inf, math.inf
    curves = {}
    for key, colour in CURVES:
        values = np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)
        good = np.isfinite(values)
        if good.any():
            curves[key] = np.where(good, values, np.nan)
            axes.plot(
                epochs,
                curves[key],
                color=colour,
                linewidth=1.5,
                label=key,
                marker="o" if len(rows) < FEW_EPOCHS else None,
                markersize=3,
            )
            # A bad start would flatten the rest: nine epochs of ten get at least half of the panel.
            high, tenth = float(values[good].max()), float(np.quantile(values[good], 0.1))
            top, bottom = max(top, high), min(bottom, max(float(values[good].min()), high - 2.0 * (high - tenth)))
    if not curves:
        say_why_empty(axes, "no training history")
        return
    scored = curves["validation" if "validation" in curves else "train"]
    index = _best(flow, epochs, scored)
    axes.axvline(epochs[index], color=GREEN, linewidth=1, linestyle="--")
    axes.plot(
        epochs[index],
        scored[index],
        color=GREEN,
        marker="*",
        markersize=11,
        linestyle="none",
        label=f"best epoch: {round(epochs[index], 1):g} ({scored[index]:.3f} nats)",
    )
    pad = 0.06 * (top - bottom) or max(0.5, 0.01 * abs(top))
    axes.set_ylim(bottom - pad, top + pad)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=min(2, len(rows))))
    _legend_above(axes)


def _best(flow: Flow, epochs: Array, scored: Array) -> int:
    """Index of the epoch (E,) whose parameters were kept, or of the highest score (E,) where that is not known."""
    training = flow.provenance.get("training")
    best = training.get("best_epoch") if isinstance(training, Mapping) else None
    if isinstance(best, (int, float)):
        at = np.flatnonzero((epochs == best) & np.isfinite(scored))
        if at.size:
            return int(at[0])
    return int(np.nanargmax(scored))


def draw_calibration(axes: Axes, scene: Scene) -> None:
    """The distribution of each column's Rosenblatt values less the uniform one; the worst columns have a colour."""
    style(axes, "calibration: 0 everywhere for a perfect model", "Rosenblatt value u", "empirical CDF minus u")
    if scene.uniform is None:
        say_why_empty(axes, "no data")
        return
    n, dim = scene.uniform.shape
    band = KOLMOGOROV_99 / (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))  # Stephens' correction for small n
    ordered = np.sort(scene.uniform, axis=0)
    above, below = np.arange(1, n + 1)[:, None] / n - ordered, np.arange(n)[:, None] / n - ordered
    worst = np.maximum(above.max(axis=0), -below.min(axis=0))
    named = sorted(np.argsort(-worst, kind="stable")[: len(LINES)])
    axes.axhspan(-band, band, color="#E4E4E4", linewidth=0, label="99% band of one column")
    axes.axhline(0, color=GREY, linewidth=0.8)
    for column in [*(c for c in range(dim) if c not in named), *named]:
        u = np.concatenate([[0.0], np.repeat(ordered[:, column], 2), [1.0]])
        gap = np.concatenate([[0.0], np.stack([below[:, column], above[:, column]], axis=1).ravel(), [0.0]])
        if column in named:
            axes.plot(u, gap, color=LINES[named.index(column)], linewidth=1.2, label=scene.names[column])
        else:
            axes.plot(u, gap, color="#B0B0B0", linewidth=0.6)
    reach = 1.1 * max(float(worst.max()), 1.3 * band)
    axes.set_xlim(0, 1)
    axes.set_ylim(-reach, reach)
    others = f", the {len(named)} worst of {dim} columns named" if len(named) < dim else ""
    _legend_above(axes, f"{n:,} row{'s' * (n > 1)}{others}")


def _legend_above(axes: Axes, title: str | None = None) -> None:
    """A legend between the panel's title and the curves, which make room for it."""
    entries = len(axes.get_legend_handles_labels()[1])
    lines = math.ceil(entries / LEGEND_COLUMNS) + (title is not None)
    room = 0.08 + 0.17 * lines  # inches
    box, inches = axes.get_position(), axes.bbox.height / axes.figure.dpi
    axes.set_position((box.x0, box.y0, box.width, box.height * (1 - room / inches)))
    axes.set_title(axes.get_title(loc="left"), size=10, loc="left", pad=72 * room + 6)
    axes.legend(
        fontsize=7.5,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        borderaxespad=0.2,
        ncols=LEGEND_COLUMNS,
        title=title,
        title_fontsize=7.5,
        alignment="left",
        labelspacing=0.3,
    )
