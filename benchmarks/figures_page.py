"""What the figures share: the page, maps of densities, lines of Markdown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refnaf.persistence import atomic_write
from refnaf.plotting.marks import style, ticks
from refnaf.plotting.picture import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Array = np.ndarray
DOTS_PER_INCH = 90
SIDE = 150  # points of a map along each axis
SHADES, COLOURS = 48, 128  # of a map and of a file: few, for small files
DATA_SHADES, MODEL_SHADES = "Oranges", "Blues"  # as everywhere in refnaf's plots: orange is the truth, blue the model


def print_header(*names: str, words: int = 2) -> None:
    """The head of a table whose first columns, ``words`` of them, hold words and the others numbers."""
    print(f"\n| {' | '.join(names)} |\n|{'---|' * words}{'---:|' * (len(names) - words)}", flush=True)


def print_row(*cells: object) -> None:
    """A line of the table, at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


@contextlib.contextmanager
def page(path: Path, title: str, width: float, height: float) -> Iterator[Figure]:
    """A figure of that many inches to draw on, written to the path (whole or not at all) when the block ends."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image

    with matplotlib.style.context(STYLE):
        layout = ConstrainedLayoutEngine(compress=True, h_pad=0.07)
        figure = Figure(figsize=(width, height), facecolor="white", dpi=DOTS_PER_INCH, layout=layout)
        canvas = FigureCanvasAgg(figure)
        figure.suptitle(title, size=11, weight="bold", x=0.012, ha="left")
        yield figure
        canvas.draw()
    # a palette makes the file a third as large
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(
        COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        image.save(file, format="png", optimize=True)
    print(f"\nwrote {path}", flush=True)


def plane(reach: float) -> Array:
    """The centres ``(SIDE^2, 2)`` of the cells of a map of ``[-reach, reach]^2``, the second coordinate slowest."""
    centres = reach * ((2 * np.arange(SIDE) + 1) / SIDE - 1)
    return np.stack([grid.ravel() for grid in np.meshgrid(centres, centres)], axis=1)


def density_map(
    axes: Axes, values: Array, reach: float, limits: tuple[float, float], shades: str, title: str
) -> AxesImage:
    """The values ``(SIDE^2,)`` at the points of :func:`plane`, from the colour of one limit to that of the other."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    image = axes.imshow(
        np.clip(values, *limits).reshape(SIDE, SIDE),
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        cmap=ListedColormap(colormaps[shades](np.linspace(0, 0.95, SHADES))),
        vmin=limits[0],
        vmax=limits[1],
        interpolation="bilinear",
    )
    for axis in (axes.xaxis, axes.yaxis):
        ticks(axis, (-reach, reach), 6)
    style(axes, title, size=9)
    axes.label_outer()
    return image


def colour_bar(figure: Figure, axes: Sequence[Axes], limits: tuple[float, float], label: str) -> None:
    """What the shades of grey would be for both of the colours, beside the panels."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    greys = ScalarMappable(Normalize(*limits), ListedColormap(colormaps["Greys"](np.linspace(0, 0.95, SHADES))))
    bar = figure.colorbar(greys, ax=list(axes), shrink=0.9, pad=0.02, aspect=25, extend="min")
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, size=8)
