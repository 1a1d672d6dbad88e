"""Pictures of a fitted flow: the density or a pair grid of data against samples, the training curve, the calibration.

matplotlib is imported when a picture is drawn, not before; neither a display nor pyplot is needed, and no setting of
matplotlib's is changed or obeyed. Orange are data and blue is the model, wherever rows or densities are drawn.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from refnaf.persistence import atomic_write, check_writable
from refnaf.tables import check_pair, check_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from refnaf.flows import Flow

Array = np.ndarray

MAX_COLUMNS = 8  # of a pair grid
FEW_ROWS = 100  # fewer do not say where the limits of a panel should be
SHOWN_DEPTH = 9.0  # nats below the mode that a density map tells apart
KOLMOGOROV_99 = 1.6276  # P(sqrt(n) D_n > this) = 0.01 for large n

# Of Okabe and Ito's palette, which people with any colour vision can tell apart.
DATA, MODEL, MODEL_DARK, GREY = "#D55E00", "#0072B2", "#00406B", "#767676"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")


@dataclass
class Scene:
    """What is drawn: rows of data (or None) and of samples, names and limits of the columns."""

    x: Array | None
    context: Array | None
    samples: Array
    names: list[str]
    limits: list[tuple[float, float]]


def plot_flow(flow: Flow, x: Array | None, path: str | os.PathLike[str], context: Array | None = None, seed: int = 0,
              max_points: int = 4000, title: str | None = None) -> None:
    """Draw a flow, and data beside it, to a PNG file.

    One column: a histogram of the data under the model's density. Two: a map of the log-density under the data, and
    samples beside it. More: a pair grid of the first 8 columns, data below the diagonal and samples above it. In all
    cases the training curve, and the calibration: how far the distribution of ``flow.rosenblatt(x)`` is from uniform
    in each column, with the band that holds 99 of 100 columns of a perfect model.

    The same arguments give the same bytes (with the same matplotlib).

    Parameters
    ----------
    flow : the flow, fitted or not.
    x : (N, D) real numbers in the units that the flow was fitted in, or None for samples alone.
    path : the PNG file; written whole or not at all.
    context : (N, C), for a flow with a context: samples are drawn under the rows' contexts, and densities are the
        average over some of them. With ``x=None`` any contexts to sample under.
    seed : of the samples, and of the choice of rows where there are more than ``max_points``.
    max_points : the most rows and samples that are used.
    title : a line above the picture; the model's name if None.

    Raises
    ------
    ModuleNotFoundError : matplotlib is not installed.
    ValueError : x or context does not fit the flow or holds NaN or infinity.
    OSError : the file cannot be written; found out before any work is done.
    """
    try:
        import matplotlib.style
    except ModuleNotFoundError:
        raise ModuleNotFoundError('plots need matplotlib, which is not installed: pip install "refnaf[plot]"') from None
    check_writable(path)
    max_points = int(max_points)
    if max_points < 1:
        raise ValueError(f"max_points: expected at least 1, got {max_points}; 4000 is the default")
    x, context, total = _choose_rows(flow, x, context, seed, max_points)
    uniform = None if x is None else np.asarray(flow.rosenblatt(x, context))
    count = max_points if x is None else max(len(x), min(max_points, 1000))
    contexts = None if context is None else context[np.arange(count) % len(context)]
    samples = np.asarray(flow.sample(count, seed=seed, context=contexts), dtype=np.float64)
    basis = samples if x is None else x if len(x) >= FEW_ROWS else np.concatenate([x, samples])
    scene = Scene(x, context, samples, _names(flow), [robust_limits(column) for column in basis.T])

    # Glyphs that the font lacks are drawn as boxes; a warning a letter about them helps nobody.
    with warnings.catch_warnings(), matplotlib.style.context("default"):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = _draw(flow, scene, uniform, title or f"refnaf {flow.model}", _subtitle(flow, scene, total))
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def robust_limits(column: Array) -> tuple[float, float]:
    """Limits that show the column's range, less the far end of heavy tails; never empty, always finite."""
    column = np.clip(column, -1e300, 1e300)  # so that no difference overflows
    low, high = float(column.min()), float(column.max())
    q01, q05, q10, q90, q95, q99 = (float(q) for q in np.quantile(column, [0.01, 0.05, 0.1, 0.9, 0.95, 0.99]))
    if q10 < q90 and q99 - q01 > 6.0 * (q90 - q10):  # heavier tails than Student's t with 2 degrees of freedom
        low, high = max(low, q05 - (q95 - q05)), min(high, q95 + (q95 - q05))
    elif q01 < q99:
        low, high = max(low, q01 - 0.5 * (q99 - q01)), min(high, q99 + 0.5 * (q99 - q01))
    size = max(abs(low), abs(high))
    if high - low <= max(1e-12 * size, 1e-290):  # a constant column, or one that floats can hardly tell from it
        pad = max(0.5, 0.05 * size)
    else:
        pad = 0.04 * (high - low)
    return low - pad, high + pad


# ---- what there is to draw


def _choose_rows(flow: Flow, x: Any, context: Any, seed: int,
                 max_points: int) -> tuple[Array | None, Array | None, int]:
    """At most max_points rows of x and context as float64, in their order, and how many there were."""
    if context is None and flow.context_dim:
        raise ValueError(f"context: expected {flow.context_dim} columns as in the flow, got None; give one row of "
                         "it for each row of x")
    if context is not None and not flow.context_dim:
        raise ValueError("context: expected None as the flow has no context, got an array; leave it out")
    if x is not None:
        x, context, _ = check_pair(x, context, what="x")
    elif context is not None:
        context, _ = check_rows(context, what="context")
    for what, array, width in (("x", x, flow.dim), ("context", context, flow.context_dim)):
        if array is not None and array.shape[1] != width:
            raise ValueError(f"{what}: expected {width} columns as in the flow, got {array.shape[1]}; give the columns "
                             "that it was fitted to")
    total = 0 if x is None else len(x)
    rows: Array | slice = slice(None)
    if total > max_points:
        rows = np.sort(np.random.default_rng(seed).choice(total, max_points, replace=False))

    def chosen(array: Array | None) -> Array | None:
        return None if array is None else np.array(array[rows], dtype=np.float64)

    return chosen(x), chosen(context), total


def _names(flow: Flow) -> list[str]:
    """The columns' names, short and with no mark-up that matplotlib would act upon."""
    columns = flow.provenance.get("columns")
    if not isinstance(columns, Sequence) or len(columns) != flow.dim:
        return [f"x{i + 1}" for i in range(flow.dim)]
    return [_plain(str(name), 16) or f"x{i + 1}" for i, name in enumerate(columns)]


def _plain(text: str, length: int) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) > length:
        text = text[: length - 1] + "…"
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text  # a legend leaves out what starts with an underscore


def _subtitle(flow: Flow, scene: Scene, total: int) -> str:
    parts = [f"{flow.dim} column{'s' * (flow.dim > 1)}"]
    if flow.context_dim:
        parts.append(f"context of {flow.context_dim}")
    parts.append(f"{flow.n_params:,} free numbers")
    scores = flow.provenance.get("scores")
    test = scores.get("test") if isinstance(scores, Mapping) else None
    if isinstance(test, Sequence) and len(test) == 2 and all(isinstance(v, (int, float)) for v in test):
        parts.append(f"test {test[0]:.3f} ± {test[1]:.3f} nats")
    if scene.x is None:
        parts.append(f"{len(scene.samples):,} samples, no data")
        return ", ".join(parts)
    n = len(scene.x)
    parts.append(f"{n:,} of {total:,} rows shown" if n < total else f"{n:,} row{'s' * (n > 1)}")
    shown = scene.x[:, :MAX_COLUMNS].T
    inside = np.all([_within(v, lim) for v, lim in zip(shown, scene.limits, strict=False)], axis=0)
    if not inside.all():
        parts.append(f"{np.count_nonzero(~inside):,} of them outside a panel")
    return ", ".join(parts)


def _within(values: Array, limits: tuple[float, float]) -> Array:
    return (values >= limits[0]) & (values <= limits[1])


# ---- the page; lengths are inches, so that text keeps its room whatever the number of panels


def _draw(flow: Flow, scene: Scene, uniform: Array | None, title: str, subtitle: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = min(flow.dim, MAX_COLUMNS)
    width, height = {1: (13.0, 6.4), 2: (11.6, 10.2)}.get(shown, (0.0, max(7.3, 1.3 * shown + 1.6)))
    body = height - 1.65  # between the room for the x labels and that for the titles
    width = width or body + 7.2
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.3 / width, 1 - 0.2 / height, _plain(title, 90), size=14, weight="bold", va="top")
    figure.text(0.3 / width, 1 - 0.55 / height, subtitle, size=9, color=GREY, va="top")

    def panel(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    half = (body - 0.95) / 2
    side = [(width - 5.0, 0.6 + half + 0.95, 4.7, half), (width - 5.0, 0.6, 4.7, half)]
    if shown == 1:
        _draw_line(panel(0.9, 0.6, width - 6.8, body), flow, scene)
    elif shown == 2:
        top = 0.6 + half + 0.95
        _draw_map(panel(0.9, top, 4.1, half), panel(5.08, top, 0.14, half), flow, scene)
        _draw_samples(panel(width - 5.0, top, 4.7, half), scene)
        side = [(0.9, 0.6, 4.7, half), (width - 5.0, 0.6, 4.7, half)]
    else:
        _draw_pairs(panel, (0.95, 0.6, body, body), scene, shown, flow.dim)
    _draw_history(panel(*side[0]), flow)
    _draw_calibration(panel(*side[1]), uniform, scene.names)
    return figure


def _style(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "", size: float = 9) -> None:
    axes.set_title(title, size=size + 1, loc="left")
    axes.set_xlabel(xlabel, size=size)
    axes.set_ylabel(ylabel, size=size)
    axes.tick_params(labelsize=size - 1)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axis: Axis, limits: tuple[float, float], count: int) -> None:
    """A few ticks, labelled with as many digits as tell them apart."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    digits = 2 + max(0, math.ceil(math.log10(max(map(abs, limits)) / (limits[1] - limits[0]))))
    axis.set_major_locator(MaxNLocator(count))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{max(digits, 5)}g}".replace("e+", "e")))


def _scatter(axes: Axes, x: Array, y: Array, xlim: tuple[float, float], ylim: tuple[float, float], colour: str,
             size: float, faintest: float = 0.3) -> None:
    """Points that get smaller and fainter the more there are; those outside are left out, as Agg overflows on them."""
    inside = _within(x, xlim) & _within(y, ylim)
    crowd = max(1.0, len(x) / 300)
    axes.scatter(x[inside], y[inside], s=size * max(0.1, 1 / crowd), alpha=max(faintest, 0.8 / math.sqrt(crowd)),
                 color=colour, linewidths=0)
    axes.set_xlim(xlim)
    axes.set_ylim(ylim)


def _histogram(axes: Axes, values: Array, limits: tuple[float, float], colour: str, filled: bool, label: str) -> float:
    """A histogram with area 1, counting what is outside the limits; returns its highest bar."""
    n = len(values)
    bins = int(min(50, max(8, 2 * n ** (1 / 2.5))))
    counts, edges = np.histogram(values, bins=bins, range=limits)
    heights = counts / n / np.diff(edges)
    axes.stairs(heights, edges, color=colour, fill=filled, alpha=0.45 if filled else 1.0, linewidth=1.3, label=label)
    return float(heights.max())


def _average_density(flow: Flow, points: Array, context: Array | None, most: int) -> tuple[Array, str]:
    """log of p(x), or of its average over at most ``most`` rows of context, at the points; and words that say so."""
    if context is None:
        return np.asarray(flow.log_prob(points)), ""
    chosen = context[np.unique(np.linspace(0, len(context) - 1, most).astype(int))]
    terms = [flow.log_prob(points, context=np.tile(c, (len(points), 1))) for c in chosen]
    return np.logaddexp.reduce(terms, axis=0) - math.log(len(chosen)), f", mean over {len(chosen)} contexts"


def _draw_line(axes: Axes, flow: Flow, scene: Scene) -> None:
    limits = scene.limits[0]
    points = np.linspace(*limits, 500)
    log_density, words = _average_density(flow, points[:, None], scene.context, 32)
    with np.errstate(over="ignore"):
        density = np.exp(log_density)
    if scene.x is not None:
        highest = _histogram(axes, scene.x[:, 0], limits, DATA, True, "data")
    else:
        highest = _histogram(axes, scene.samples[:, 0], limits, MODEL, True, "samples")
    axes.plot(points, density, color=MODEL, linewidth=1.8, label=f"model density{words}")
    axes.set_xlim(limits)
    # A spike of the density on repeated values would flatten everything else.
    axes.set_ylim(0, 1.08 * max(highest, float(np.quantile(np.nan_to_num(density, posinf=0.0), 0.98))) or 1.0)
    _ticks(axes.xaxis, limits, 7)
    _style(axes, "density", scene.names[0], "density (1 / unit of x)")
    axes.legend(fontsize=8, frameon=False)


def _draw_map(axes: Axes, bar: Axes, flow: Flow, scene: Scene) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    side = 140 if scene.context is None else 70
    xlim, ylim = scene.limits
    centres = [low + (high - low) * (np.arange(side) + 0.5) / side for low, high in (xlim, ylim)]
    points = np.stack([grid.ravel() for grid in np.meshgrid(*centres)], axis=1)
    log_density, words = _average_density(flow, points, scene.context, 16)
    top = float(log_density[np.isfinite(log_density)].max(initial=-np.inf))
    top = top if math.isfinite(top) else 0.0
    lowest = max(top - SHOWN_DEPTH, min(top - 1.0, float(np.nan_to_num(log_density, nan=-np.inf).min())))
    shades = ListedColormap(colormaps["Blues"](np.linspace(0, 0.85, 256)))  # the darkest would swallow the data
    image = axes.imshow(np.clip(log_density, lowest, top).reshape(side, side), origin="lower",
                        extent=(*xlim, *ylim), aspect="auto", cmap=shades, interpolation="bilinear",
                        vmin=lowest, vmax=top)
    axes.figure.colorbar(image, cax=bar).ax.tick_params(labelsize=8)
    bar.set_ylabel("log-density (nats)", size=8)
    if scene.x is not None:
        shown = scene.x[:1500]
        _scatter(axes, shown[:, 0], shown[:, 1], xlim, ylim, DATA, 22.0, 0.6)
    for axis, limits in ((axes.xaxis, xlim), (axes.yaxis, ylim)):
        _ticks(axis, limits, 6)
    title = f"model's log-density{words}" + ("" if scene.x is None else ", and data")
    _style(axes, title, scene.names[0], scene.names[1])


def _draw_samples(axes: Axes, scene: Scene) -> None:
    shown = scene.samples if scene.x is None else scene.samples[: max(FEW_ROWS, len(scene.x))]
    xlim, ylim = scene.limits
    _scatter(axes, shown[:, 0], shown[:, 1], xlim, ylim, MODEL, 40.0)
    for axis, limits in ((axes.xaxis, xlim), (axes.yaxis, ylim)):
        _ticks(axis, limits, 6)
    _style(axes, f"{len(shown):,} samples", scene.names[0], scene.names[1])


def _draw_pairs(panel: Callable[..., Axes], box: tuple[float, float, float, float], scene: Scene, shown: int,
                dim: int) -> None:
    """Below the diagonal the data, above it the samples, on it both; without data the samples take its place."""
    left, bottom, wide, high = box
    step = (wide / shown, high / shown)
    lower, colour = (scene.samples, MODEL) if scene.x is None else (scene.x, DATA)
    for i in range(shown):
        for j in range(shown):
            if i < j and scene.x is None:
                continue
            axes = panel(left + j * step[0], bottom + (shown - 1 - i) * step[1], step[0] - 0.08, step[1] - 0.08)
            if i == j:
                highest = _histogram(axes, lower[:, i], scene.limits[i], colour, True, "")
                if scene.x is not None:
                    highest = max(highest, _histogram(axes, scene.samples[:, i], scene.limits[i], MODEL, False, ""))
                axes.set_xlim(scene.limits[i])
                axes.set_ylim(0, 1.08 * highest or 1.0)
                axes.set_yticks([])
            else:
                rows, tone = (lower, colour) if i > j else (scene.samples[: max(FEW_ROWS, len(lower))], MODEL)
                _scatter(axes, rows[:, j], rows[:, i], scene.limits[j], scene.limits[i], tone, 12.0)
                _ticks(axes.yaxis, scene.limits[i], 3)
            _ticks(axes.xaxis, scene.limits[j], 3)
            _style(axes, "", scene.names[j] if i == shown - 1 else "", scene.names[i] if j == 0 else "", 8)
            # Names stand in one line; the first row's numbers are at its right end, as its first panel counts rows.
            axes.yaxis.set_label_coords(-0.52 / (step[0] - 0.08), 0.5)
            axes.tick_params(labelbottom=i == shown - 1, labelleft=j == 0 and i > 0, labelsize=6.5, length=2)
            axes.tick_params(axis="y", right=False, labelright=i == 0 and j == shown - 1)
            axes.spines[["top", "right"]].set_visible(i != j)
            if i == j == 0:
                what = "samples" if scene.x is None else "data below the diagonal, samples above it, both on it"
                first = f" (the first {shown} of {dim} columns)" if shown < dim else ""
                axes.set_title(what + first, size=10, loc="left")


def _draw_history(axes: Axes, flow: Flow) -> None:
    _style(axes, "training", "epoch", "mean log-density (nats)")
    rows = [row for row in flow.history if row.get("epoch") is not None]
    epochs = np.array([row["epoch"] for row in rows], dtype=float)
    top, bottom = -math.inf, math.inf
    curves = {}
    for key, colour in (("train", GREY), ("validation", "#000000")):
        values = np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)
        good = np.isfinite(values)
        if good.any():
            curves[key] = np.where(good, values, np.nan)
            axes.plot(epochs, curves[key], color=colour, linewidth=1.5, label=key,
                      marker="o" if len(rows) < 25 else None, markersize=3)
            # A bad start would flatten the rest: nine epochs of ten get at least half of the panel.
            high, tenth = float(values[good].max()), float(np.quantile(values[good], 0.1))
            top, bottom = max(top, high), min(bottom, max(float(values[good].min()), high - 2.0 * (high - tenth)))
    if not curves:
        _empty(axes, "no training history")
        return
    scored = curves["validation" if "validation" in curves else "train"]
    training = flow.provenance.get("training")
    best = training.get("best_epoch") if isinstance(training, Mapping) else None
    at = np.flatnonzero(epochs == best) if best is not None else np.empty(0, int)
    index = int(at[0]) if at.size else int(np.nanargmax(scored))
    axes.axvline(epochs[index], color=LINES[2], linewidth=1, linestyle="--")
    axes.plot(epochs[index], scored[index], color=LINES[2], marker="*", markersize=11, linestyle="none",
              label=f"best epoch: {round(epochs[index], 1):g} ({scored[index]:.3f} nats)")
    pad = 0.06 * (top - bottom) or max(0.5, 0.01 * abs(top))
    axes.set_ylim(bottom - pad, top + pad)
    axes.legend(fontsize=8, framealpha=1, edgecolor="white", loc="lower right")


def _draw_calibration(axes: Axes, uniform: Array | None, names: list[str]) -> None:
    _style(axes, "calibration: 0 everywhere for a perfect model", "Rosenblatt value u", "empirical CDF minus u")
    if uniform is None:
        _empty(axes, "no data")
        return
    n = len(uniform)
    band = KOLMOGOROV_99 / (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))  # Stephens' correction for small n
    ordered = np.sort(uniform, axis=0)
    above, below = np.arange(1, n + 1)[:, None] / n - ordered, np.arange(n)[:, None] / n - ordered
    worst = np.maximum(above.max(axis=0), -below.min(axis=0))
    named = sorted(np.argsort(-worst, kind="stable")[:MAX_COLUMNS])
    axes.axhspan(-band, band, color="#E4E4E4", linewidth=0, label="99% band of one column")
    axes.axhline(0, color=GREY, linewidth=0.8)
    for column in [*(c for c in range(len(worst)) if c not in named), *named]:
        u = np.concatenate([[0.0], np.repeat(ordered[:, column], 2), [1.0]])
        gap = np.concatenate([[0.0], np.stack([below[:, column], above[:, column]], axis=1).ravel(), [0.0]])
        if column in named:
            axes.plot(u, gap, color=LINES[named.index(column)], linewidth=1.2, label=names[column])
        else:
            axes.plot(u, gap, color="#B0B0B0", linewidth=0.6)
    reach = 1.1 * max(float(worst.max()), 1.3 * band)
    axes.set_xlim(0, 1)
    axes.set_ylim(-reach, reach)
    # The legend stands between the title and the curves, which make room for it.
    room = 0.25 + 0.17 * math.ceil((len(named) + 1) / 3)
    box, inches = axes.get_position(), axes.bbox.height / axes.figure.dpi
    axes.set_position((box.x0, box.y0, box.width, box.height * (1 - room / inches)))
    axes.set_title(axes.get_title(loc="left"), size=10, loc="left", pad=72 * room + 6)
    others = f", the {len(named)} worst of {len(worst)} columns named" if len(named) < len(worst) else ""
    axes.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2, ncols=3,
                title=f"{n:,} rows{others}", title_fontsize=7.5, alignment="left", labelspacing=0.3)


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, size=12)
    axes.set_xticks([])
    axes.set_yticks([])
