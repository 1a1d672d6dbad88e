"""What the panels share: colours, labels, ticks, points and histograms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from refnaf.plotting.scene import Array, Limits, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Of Okabe and Ito's palette, which people with any colour vision can tell apart.
DATA, MODEL, GREEN, BLACK, GREY = "#D55E00", "#0072B2", "#009E73", "#000000", "#767676"
LINES = (GREEN, "#CC79A7", "#56B4E9", "#E69F00", BLACK, "#8C6D31", MODEL, DATA)  # a column is neither of the last two

FAR_FROM_ZERO = 1e4  # in widths of a panel; the labels of one further away have a number taken off


def style(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "", size: float = 9) -> None:
    """Words at the panel, at ``size`` points and near it, and no more frame than the two axes."""
    axes.set_title(title, size=size + 1, loc="left")
    axes.set_xlabel(xlabel, size=size)
    axes.set_ylabel(ylabel, size=size)
    axes.tick_params(labelsize=size - 1)
    axes.spines[["top", "right"]].set_visible(False)


def ticks(axis: Axis, limits: Limits, count: int, margin: float = 0.0) -> None:
    """At most ``count`` intervals, their ends labelled with what is left of them after what ``named`` takes off.

    No tick is nearer to a limit than ``margin``, a fraction of the distance between the two.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    offset, exponent = _offset(limits)
    digits = 5 if offset else max(5, 3 + math.ceil(math.log10(max(map(abs, limits)))) - exponent)

    def label(value: float, _: int) -> str:
        rest = round(value - offset, 4 - exponent) + 0.0 if offset else value  # never -0
        return f"{rest:.{digits}g}".replace("e+", "e")

    room = margin * (limits[1] - limits[0])
    inner = limits[0] + room, limits[1] - room
    places = np.asarray(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(*inner))
    axis.set_major_locator(FixedLocator(places[within(places, inner)]))
    axis.set_major_formatter(FuncFormatter(label))


def named(name: str, limits: Limits, separator: str = " ") -> str:
    """The name of a column, less the number that all of its labels have in common, if that is what is long in them."""
    offset, _ = _offset(limits)
    number = f"{abs(offset):.15g}".replace("e+", "e")
    return f"{name}{separator}{'-' if offset > 0 else '+'} {number}" if offset else name


def _offset(limits: Limits) -> tuple[float, int]:
    """The number to take off the labels, a multiple of 10^k or 0, and k: a panel is between 10^(k-1) and 10^k wide."""
    low, high = limits
    exponent = math.ceil(math.log10(high - low))
    if max(abs(low), abs(high)) <= FAR_FROM_ZERO * (high - low):
        return 0.0, exponent
    return round((low + high) / 2, -exponent), exponent


def scatter(
    axes: Axes, x: Array, y: Array, xlim: Limits, ylim: Limits, colour: str, size: float, faintest: float = 0.3
) -> None:
    """Points (N,), (N,) that get smaller and fainter the more there are.

    ``size`` is the area of one in square points where there are 300 or fewer, ``faintest`` the least opacity. Those
    outside the limits are left out, as Agg overflows on them.
    """
    inside = within(x, xlim) & within(y, ylim)
    crowd = max(1.0, len(x) / 300)
    axes.scatter(
        x[inside],
        y[inside],
        s=size * max(0.1, 1 / crowd),
        alpha=max(faintest, 0.8 / math.sqrt(crowd)),
        color=colour,
        linewidths=0,
    )
    axes.set_xlim(xlim)
    axes.set_ylim(ylim)


def histogram(axes: Axes, values: Array, limits: Limits, colour: str, *, filled: bool = True, label: str = "") -> float:
    """A histogram of the values (N,) with area 1, counting what is outside the limits; returns its highest bar."""
    n = len(values)
    bins = int(min(50, max(8, 2 * n ** (1 / 2.5))))
    counts, edges = np.histogram(values, bins=bins, range=limits)
    heights = counts / n / np.diff(edges)
    axes.stairs(heights, edges, color=colour, fill=filled, alpha=0.45 if filled else 1.0, linewidth=1.3, label=label)
    return float(heights.max())


def say_why_empty(axes: Axes, text: str) -> None:
    """The text in the middle of a panel that has nothing to show."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, size=12)
    axes.set_xticks([])
    axes.set_yticks([])
