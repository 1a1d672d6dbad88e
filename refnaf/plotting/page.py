"""The page: which panels there are and where they stand, the title, and the line below it.

Lengths are inches, so that text keeps its room whatever the number of panels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from refnaf.plotting.density import draw_density, draw_map, draw_samples
from refnaf.plotting.diagnostics import draw_calibration, draw_history
from refnaf.plotting.marks import GREY
from refnaf.plotting.pairs import draw_pairs
from refnaf.plotting.scene import Array, Scene, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from refnaf.flows import Flow

HEAD, FOOT = 1.05, 0.6  # above and below the panels, for the titles and for the x labels
LEFT, GRID_LEFT = 0.9, 0.95  # of the panels, and of a pair grid, for the y labels
MARGIN = 0.3  # left of the titles, right of the panels
SIDE = 4.7  # width of a panel at the right
BETWEEN_COLUMNS, BETWEEN_ROWS = 0.9, 0.95  # of panels, for their labels
BESIDE_GRID = 7.2  # left and right of a pair grid together
MAX_TITLE = 90  # characters


def draw_page(flow: Flow, scene: Scene, title: str) -> Figure:
    """The whole figure, with a canvas to save it from."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _page_size(scene.columns)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(MARGIN / width, 1 - 0.2 / height, plain(title, MAX_TITLE), size=14, weight="bold", va="top")
    figure.text(MARGIN / width, 1 - 0.55 / height, _subtitle(flow, scene), size=9, color=GREY, va="top")

    def panel(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    body = height - (HEAD + FOOT)
    half = (body - BETWEEN_ROWS) / 2
    upper = FOOT + half + BETWEEN_ROWS
    side = width - (SIDE + MARGIN)
    history, calibration = (side, upper, SIDE, half), (side, FOOT, SIDE, half)
    if scene.columns == 1:
        draw_density(panel(LEFT, FOOT, side - (LEFT + BETWEEN_COLUMNS), body), flow, scene)
    elif scene.columns == 2:
        draw_map(panel(LEFT, upper, SIDE - 0.6, half), panel(LEFT + SIDE - 0.52, upper, 0.14, half), flow, scene)
        draw_samples(panel(side, upper, SIDE, half), scene)
        history = (LEFT, FOOT, SIDE, half)
    else:
        draw_pairs(panel, (GRID_LEFT, FOOT, body, body), scene)
    draw_history(panel(*history), flow)
    draw_calibration(panel(*calibration), scene)
    return figure


def _page_size(columns: int) -> tuple[float, float]:
    """Width and height."""
    if columns == 1:
        return 13.0, 6.4
    if columns == 2:
        return 11.6, 10.2
    height = max(7.3, 1.3 * columns + 1.6)
    return height - (HEAD + FOOT) + BESIDE_GRID, height  # the pair grid is a square


def _subtitle(flow: Flow, scene: Scene) -> str:
    """The facts about the flow, and how much of the data the picture shows."""
    parts = [f"{flow.dim} column{'s' * (flow.dim > 1)}"]
    if flow.context_dim:
        parts.append(f"context of {flow.context_dim}")
    parts.append(f"{flow.n_params:,} parameters")
    scores = flow.provenance.get("scores")
    test = scores.get("test") if isinstance(scores, Mapping) else None
    if isinstance(test, Sequence) and len(test) == 2 and all(isinstance(v, (int, float)) for v in test):
        parts.append(f"test {test[0]:.3f} ± {test[1]:.3f} nats")
    if scene.x is not None:
        n = len(scene.x)
        shown = f"{n:,} of {scene.total:,} rows shown" if n < scene.total else f"{n:,} row{'s' * (n > 1)}"
        parts.append(shown + _outside(scene, scene.x))
    if scene.x is None or scene.columns > 1:
        parts.append(f"{len(scene.scattered):,} samples" + _outside(scene, scene.scattered))
    if scene.x is None:
        parts.append("no data")
    return ", ".join(parts)


def _outside(scene: Scene, rows: Array) -> str:
    """Words for how many of the rows (K, D) are outside the limits, if any."""
    count = scene.outside(rows)
    return f" ({count:,} outside the panels)" if count else ""
