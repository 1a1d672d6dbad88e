"""Adaptive integration of a density over the whole line or plane, vectorised over cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

#: Nodes a dimension of the Gauss-Legendre rule in every cell.
_NODES = 5
#: How far cells reach at least and at most, in units of t: to 1e6 and 1e13 scales; and how far beyond the points.
_REACH, _FARTHEST, _BEYOND = (float(np.arcsinh(r)) for r in (1e6, 1e13, 1e4))
#: How far the density at a point may exceed its cell's average before the cell is taken to have missed a peak.
_PEAK = 10.0
#: A cell with more mass is halved in any case, since a jump close to its edge is seen by no node; D = 1 and 2.
_LARGEST = (1e-3, 5e-3)

Density = Callable[[np.ndarray], np.ndarray]


def integrate(
    density: Density,
    center: np.ndarray,
    scale: np.ndarray,
    points: np.ndarray | None,
    budget: int,
    tolerance: float,
) -> tuple[float, float]:
    """The integral of ``density`` (rows ``(n, D)`` to ``(n,)``, D = 1 or 2) and an error bound.

    The line is taken as ``x = center + scale sinh t``, so that a finite box of t reaches to 1e6 scales, or 1e4 times as
    far as the farthest of the ``points`` (rows where the mass is supposed to be), if that is farther. Cells of t are
    halved in every dimension until a cell and its parts agree to ``tolerance``, and until the density at none of the
    points stands out of its cell as a peak between the nodes would; or else until ``budget`` evaluations are spent, on
    the worst cells first.
    """
    dim = len(center)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    grid = np.stack(np.meshgrid(*[nodes] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    grid_weights = np.prod(np.stack(np.meshgrid(*[weights] * dim, indexing="ij"), axis=-1).reshape(-1, dim), axis=1)
    halves = np.array(list(itertools.product((-0.5, 0.5), repeat=dim)))
    binary = 2 ** np.arange(dim)[::-1]  # of a point's sides of the middle: the number of its part, in halves' order

    def by_t(t: np.ndarray) -> np.ndarray:
        return density(center + scale * np.sinh(t)) * np.prod(scale * np.cosh(t), axis=1)

    def masses(middles: np.ndarray, widths: np.ndarray) -> np.ndarray:
        t = middles[:, None] + widths[:, None] * grid
        return by_t(t.reshape(-1, dim)).reshape(len(middles), -1) @ grid_weights * np.prod(widths, axis=1)

    where = np.zeros((0, dim)) if points is None else np.arcsinh((points - center) / scale)
    middles, widths = _first_cells(dim, np.clip(np.max(np.abs(where), initial=0) + _BEYOND, _REACH, _FARTHEST))
    coarse = masses(middles, widths)
    suspicion = np.abs(coarse)  # how far the estimate of a cell may be off
    heights = by_t(where) if len(where) else np.zeros(0)
    home = _homes(where, middles, widths)
    left = budget - len(middles) * len(grid) - len(where)
    total, error = 0.0, 0.0
    while len(middles):
        affordable = left // (len(halves) * len(grid))
        if affordable < len(middles):  # the others count as they stand
            order = np.argsort(-suspicion)
            chosen, rest = order[:affordable], order[affordable:]
            total += float(coarse[rest].sum())
            error += float(suspicion[rest].sum())
            middles, widths, coarse = middles[chosen], widths[chosen], coarse[chosen]
            home = _renumbered(home, chosen, len(order))
            if not len(middles):
                break
        left -= len(middles) * len(halves) * len(grid)
        parts = middles[:, None] + widths[:, None] * halves
        part_widths = np.repeat(widths[:, None] / 2, len(halves), axis=1)
        fine = masses(parts.reshape(-1, dim), part_widths.reshape(-1, dim)).reshape(len(middles), -1)
        mass, off = fine.sum(axis=1), np.abs(fine.sum(axis=1) - coarse)
        inside = home >= 0
        peak, count = np.zeros(len(middles)), np.zeros(len(middles))
        np.maximum.at(peak, home[inside], heights[inside])
        np.add.at(count, home[inside], 1 / max(len(where), 1))
        missed = peak * np.prod(2 * widths, axis=1) > _PEAK * mass + tolerance
        large = np.abs(mass) > _LARGEST[dim - 1]
        done = ~(off > tolerance) & ~missed & ~large  # NaN too: the caller looks for it
        total += float(mass[done].sum())
        error += float(off[done].sum()) / 4  # the sum of the parts is closer than the whole, even about a kink
        side = (where[inside] > middles[home[inside]]) @ binary
        home[inside] = home[inside] * len(halves) + side
        kept = np.flatnonzero(np.repeat(~done, len(halves)))
        home = _renumbered(home, kept, fine.size)
        middles, widths = parts.reshape(-1, dim)[kept], part_widths.reshape(-1, dim)[kept]
        coarse = fine.reshape(-1)[kept]
        suspicion = np.repeat(np.where(missed, np.maximum(off, count), off) / len(halves), len(halves))[kept]
    return total, error


def _first_cells(dim: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles and half widths ``(M, D)`` of a regular grid."""
    count = int(np.ceil((32 if dim == 1 else 12) * reach / _REACH))
    edges = -reach + (np.arange(count) + 0.5) * 2 * reach / count
    middles = np.stack(np.meshgrid(*[edges] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    return middles, np.full_like(middles, reach / count)


def _homes(where: np.ndarray, middles: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The number of the cell that each point lies in, -1 where it is in none."""
    home = np.full(len(where), -1)
    for k, (middle, width) in enumerate(zip(middles, widths, strict=True)):
        home[np.all(np.abs(where - middle) <= width, axis=1)] = k
    return home


def _renumbered(home: np.ndarray, kept: np.ndarray, count: int) -> np.ndarray:
    """Cell numbers after only the ``kept`` of ``count`` cells remain, in that order; -1 for the others."""
    number = np.full(count + 1, -1)
    number[kept] = np.arange(len(kept))
    return number[home]
