"""``plot_flow``: from a flow, and rows of data, to a PNG file."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from refnaf.persistence import atomic_write, check_writable
from refnaf.plotting.page import draw_page
from refnaf.plotting.scene import make_scene

if TYPE_CHECKING:
    from refnaf.flows import Flow

DOTS_PER_INCH = 110
STYLE: list[str | dict[str, bool]] = ["default", {"axes.unicode_minus": False}]  # one kind of minus in all numbers


def plot_flow(
    flow: Flow,
    x: Any,
    path: str | os.PathLike[str],
    context: Any = None,
    seed: int = 0,
    max_points: int = 4000,
    title: str | None = None,
) -> None:
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
    scene = make_scene(flow, x, context, seed, max_points)

    # Glyphs that the font lacks are drawn as boxes; a warning a letter about them helps nobody.
    with warnings.catch_warnings(), matplotlib.style.context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw_page(flow, scene, title or f"refnaf {flow.model}")
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
