"""Panels of flows of one or two columns: the density as a curve or a map, and samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from refnaf.plotting.marks import DATA, MODEL, histogram, named, scatter, style, ticks
from refnaf.plotting.scene import Array, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from refnaf.flows import Flow

SHOWN_DEPTH = 9.0  # nats below the mode that a density map tells apart
CURVE_POINTS = 500
CURVE_CONTEXTS, MAP_CONTEXTS = 32, 16  # the most that a density is averaged over
MAP_SIDE, MAP_SIDE_CONTEXTS = 140, 70  # points of a map along each axis; fewer where each is an average


def draw_density(axes: Axes, flow: Flow, scene: Scene) -> None:
    """One column: the model's density over a histogram of the data, or of samples where there are none."""
    limits = scene.limits[0]
    points = np.linspace(*limits, CURVE_POINTS)
    log_density, suffix = _average_density(flow, points[:, None], scene.context, CURVE_CONTEXTS)
    with np.errstate(over="ignore"):
        density = np.exp(log_density)
    if scene.x is not None:
        highest = histogram(axes, scene.x[:, 0], limits, DATA, label="data")
    else:
        highest = histogram(axes, scene.samples[:, 0], limits, MODEL, label="samples")
    axes.plot(points, density, color=MODEL, linewidth=1.8, label="model density" + suffix)
    axes.set_xlim(limits)
    # A spike of the density on repeated values would flatten everything else.
    top = 1.08 * max(highest, float(np.quantile(np.nan_to_num(density, posinf=0.0), 0.98))) or 1.0
    axes.set_ylim(0, top)
    ticks(axes.xaxis, limits, 7)
    ticks(axes.yaxis, (0.0, top), 8)
    style(axes, "density", named(scene.names[0], limits), f"density (1 / unit of {scene.names[0]})")
    axes.legend(fontsize=8, frameon=False)


def draw_map(axes: Axes, bar: Axes, flow: Flow, scene: Scene) -> None:
    """Two columns: the model's log-density under the data; ``bar`` says which colour is how many nats."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    side = MAP_SIDE if scene.context is None else MAP_SIDE_CONTEXTS
    xlim, ylim = scene.limits
    centres = [low + (high - low) * (np.arange(side) + 0.5) / side for low, high in (xlim, ylim)]
    points = np.stack([grid.ravel() for grid in np.meshgrid(*centres)], axis=1)
    log_density, suffix = _average_density(flow, points, scene.context, MAP_CONTEXTS)
    top = float(log_density[np.isfinite(log_density)].max(initial=-np.inf))
    top = top if math.isfinite(top) else 0.0
    bottom = float(np.nan_to_num(log_density, nan=-np.inf).min())
    lowest = max(top - SHOWN_DEPTH, min(top - 1.0, bottom))
    shades = ListedColormap(colormaps["Blues"](np.linspace(0, 0.85, 256)))  # the darkest would swallow the data
    image = axes.imshow(
        np.clip(log_density, lowest, top).reshape(side, side),
        origin="lower",
        extent=(*xlim, *ylim),
        aspect="auto",
        cmap=shades,
        interpolation="bilinear",
        vmin=lowest,
        vmax=top,
    )
    axes.figure.colorbar(image, cax=bar, extend="min" if bottom < lowest else "neither").ax.tick_params(labelsize=8)
    bar.set_ylabel("log-density (nats)", size=8)
    if scene.x is not None:
        scatter(axes, scene.x[:, 0], scene.x[:, 1], xlim, ylim, DATA, 22.0, 0.9)
    title = f"log of the model's density{suffix}" if suffix else "model's log-density"
    _label(axes, scene, title + ("" if scene.x is None else ", and data"))


def draw_samples(axes: Axes, scene: Scene) -> None:
    """Two columns: samples, within the limits of the map."""
    shown = scene.scattered
    xlim, ylim = scene.limits
    scatter(axes, shown[:, 0], shown[:, 1], xlim, ylim, MODEL, 40.0)
    _label(axes, scene, f"{len(shown):,} samples")


def _label(axes: Axes, scene: Scene, title: str) -> None:
    """Title, names and ticks of a panel with two columns."""
    xlim, ylim = scene.limits
    ticks(axes.xaxis, xlim, 6)
    ticks(axes.yaxis, ylim, 6)
    style(axes, title, named(scene.names[0], xlim), named(scene.names[1], ylim))


def _average_density(flow: Flow, points: Array, context: Array | None, most: int) -> tuple[Array, str]:
    """log p, in nats (M,), at the points (M, D), and what to add to the name of p.

    With a context (N, C), p is the average over at most ``most`` of its rows.
    """
    if context is None:
        return np.asarray(flow.log_prob(points)), ""
    chosen = context[np.unique(np.linspace(0, len(context) - 1, most).astype(int))]
    terms = [flow.log_prob(points, context=np.tile(c, (len(points), 1))) for c in chosen]
    n = len(chosen)
    return np.logaddexp.reduce(terms, axis=0) - math.log(n), f", mean over {n} context{'s' * (n > 1)}"
