"""The pair grid, for flows of three columns and more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from refnaf.plotting.marks import DATA, MODEL, histogram, named, scatter, style, ticks
from refnaf.plotting.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.08  # inches between two panels
TICK_MARGIN = 0.12  # of a panel, so that numbers below it do not reach those of the next
NAMES = 0.52  # inches from the grid to the names at its left


def draw_pairs(panel: Callable[..., Axes], box: tuple[float, float, float, float], scene: Scene) -> None:
    """Below the diagonal the data, above it the samples, on it both; without data the samples take its place.

    ``panel`` makes axes of left, bottom, width and height in inches; ``box`` is those four of the whole grid.
    """
    left, bottom, width, height = box
    n = scene.columns
    across, down = width / n, height / n
    for i in range(n):
        for j in range(n if scene.x is not None else i + 1):
            axes = panel(left + j * across, bottom + (n - 1 - i) * down, across - GAP, down - GAP)
            if i == j:
                _draw_column(axes, scene, i)
            else:
                _draw_pair(axes, scene, i, j)
            _label(axes, scene, i, j)
            # Names stand in one line, whatever the width of the numbers.
            axes.yaxis.set_label_coords(-NAMES / (across - GAP), 0.5)
            if i == j == 0:
                axes.set_title(_title(scene), size=10, loc="left")


def _draw_column(axes: Axes, scene: Scene, i: int) -> None:
    """Histograms of column i."""
    limits, samples = scene.limits[i], scene.samples[:, i]
    if scene.x is None:
        highest = histogram(axes, samples, limits, MODEL)
    else:
        highest = histogram(axes, scene.x[:, i], limits, DATA)
        highest = max(highest, histogram(axes, samples, limits, MODEL, filled=False))
    axes.set_xlim(limits)
    axes.set_ylim(0, 1.08 * highest or 1.0)
    axes.set_yticks([])


def _draw_pair(axes: Axes, scene: Scene, i: int, j: int) -> None:
    """Points, with column j to the right and column i upwards."""
    if scene.x is not None and i > j:
        rows, colour = scene.x, DATA
    else:
        rows, colour = scene.scattered, MODEL
    scatter(axes, rows[:, j], rows[:, i], scene.limits[j], scene.limits[i], colour, 12.0)
    ticks(axes.yaxis, scene.limits[i], 3, TICK_MARGIN)


def _label(axes: Axes, scene: Scene, i: int, j: int) -> None:
    """Names and numbers along the left and the lower side of the grid.

    The first row has its numbers at the right end, as its first panel counts rows.
    """
    last = scene.columns - 1
    ticks(axes.xaxis, scene.limits[j], 3, TICK_MARGIN)
    below = named(scene.names[j], scene.limits[j], "\n") if i == last else ""
    beside = named(scene.names[i], scene.limits[i], "\n") if j == 0 else ""
    style(axes, "", below, beside, 8)
    axes.tick_params(labelbottom=i == last, labelleft=j == 0 and i > 0, labelsize=6.5, length=2)
    axes.tick_params(axis="y", right=False, labelright=i == 0 and j == last)
    axes.spines[["top", "right"]].set_visible(i != j)


def _title(scene: Scene) -> str:
    """What is where, and which columns are left out."""
    what = "samples" if scene.x is None else "data below the diagonal, samples above it, both on it"
    shown, dim = scene.columns, len(scene.names)
    return what + (f" (the first {shown} of {dim} columns)" if shown < dim else "")
