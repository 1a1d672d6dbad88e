"""The weights of a block network from their raw numbers, and back, compiled; products that leave out blocks of zeros.

The equations are those of ``weight`` and ``weight_vjp`` in :mod:`refnaf.kernels.array.block`. A row goes through the
first-level cache twice, and what lies above the diagonal blocks is neither read nor multiplied. Sums are float64's.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array.staircase import Block, blocks
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel, summing
from refnaf.kernels.cpu.elementary import exp_negative
from refnaf.kernels.cpu.sums import squares
from refnaf.reference.block import masks

#: Rows of a weight's numbers: ``exp(gain)`` times what an epsilon leaves of it in W, and in the diagonal blocks; these
#: two shares; and one over the norm.
SCALE, OWN_SCALE, KEPT, OWN_KEPT, INVERSE_NORM = range(5)


class Weight(NamedTuple):
    """``full`` W ``(D r, D c)``, zero above the diagonal blocks as far as products read it; ``blocks`` ``(D, r, c)`` as
    the log-slopes have them; the rows' numbers ``(5, D r)``, float64; the largest row sum of a block, NaN where some
    number is not finite or a row's length has underflowed."""

    full: np.ndarray
    blocks: np.ndarray
    numbers: np.ndarray
    reach: float


def weight(raw: np.ndarray, gain: np.ndarray, dim: int, epsilon: float, ws: Workspace) -> Weight:
    """A layer's weight from raw numbers ``(D r, D c)`` and gains ``(D r,)``."""
    rows, columns = raw.shape[0] // dim, raw.shape[1] // dim
    full, own = ws.take(raw.shape, raw.dtype), ws.take((dim, rows, columns), raw.dtype)
    numbers = ws.take((5, len(raw)), np.float64)
    if not raw.flags.c_contiguous:
        given, raw = raw, ws.take(raw.shape, raw.dtype)
        np.copyto(raw, given)
    shortest = float(np.finfo(raw.dtype).tiny) / float(np.finfo(raw.dtype).eps)
    reach = _weight(raw, plain(gain), epsilon, stairs(dim, rows, columns)[2], shortest, full, own, numbers)
    return Weight(full, own, numbers, reach)


def weight_vjp(w: Weight, grad: np.ndarray, grad_blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of W, overwritten, and of the diagonal blocks to those of the raw numbers and the gains.

    That of W is not read above the diagonal blocks.
    """
    grad_gain = np.empty(len(grad), grad.dtype)
    _weight_vjp(w.full, w.numbers, plain(grad_blocks), grad, grad_gain)
    return grad, grad_gain


@cache
def stairs(dim: int, rows: int, columns: int) -> tuple[list[Block], list[Block], np.ndarray]:
    """Blocks of rows, and of columns, that hold all that is not zero in a weight ``(D rows, D columns)``; and how many
    of each row's numbers these blocks reach."""
    mask = np.add(*masks(dim, rows, columns))
    down, up = blocks(mask), [Block(block.columns, block.rows) for block in blocks(mask.T)]
    covered = np.zeros(mask.shape, bool)
    for block in (*down, *up):
        covered[block] = True
    return down, up, np.sum(covered, axis=1)


def product(w: Weight, x: np.ndarray, out: np.ndarray) -> None:
    """``out = W x``."""
    for rows, columns in stairs(*w.blocks.shape)[0]:
        np.dot(w.full[rows, columns], x[columns], out=out[rows])


def transposed(w: Weight, grad: np.ndarray, out: np.ndarray) -> None:
    """``out = W' g``."""
    for rows, columns in stairs(*w.blocks.shape)[1]:
        np.matmul(w.full[rows, columns].T, grad[rows], out=out[columns])


def outer(w: Weight, grad: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
    """``out = g x'``, of which not all is written above the diagonal blocks."""
    for rows, columns in stairs(*w.blocks.shape)[1]:
        np.matmul(grad[rows], x[columns].T, out=out[rows, columns])


@kernel
def _weight(
    raw: Any, gain: Any, epsilon: float, reached: Any, shortest: float, full: Any, own: Any, numbers: Any
) -> float:
    """:class:`Weight`'s arrays, and its reach, which is returned."""
    dim, rows, columns = own.shape
    dtype = raw.dtype.type
    zero, lowest = dtype(0), dtype(-30)
    reach = 0.0
    for i in range(dim):
        start, stop = i * columns, (i + 1) * columns
        for j in range(rows):
            r = i * rows + j
            given, w = raw[r], full[r]
            top = lowest
            for n in range(start, stop):
                top = given[n] if given[n] > top else top
            for n in range(start, stop):
                w[n] = exp_negative(given[n] - top)
            # a common factor of a row cancels
            taken = math.exp(-np.float64(top))
            norm = math.sqrt(squares(given[:start]) * (taken * taken) + squares(w[start:stop]))
            inverse_norm = taken / norm
            kept, own_kept = 1 / (1 + epsilon * inverse_norm), 1 / math.sqrt(1 + epsilon * inverse_norm**2)
            scale = math.exp(np.float64(gain[r]))
            numbers[SCALE, r], numbers[OWN_SCALE, r] = scale * kept, scale * own_kept
            numbers[KEPT, r], numbers[OWN_KEPT, r], numbers[INVERSE_NORM, r] = kept, own_kept, inverse_norm
            before, inside = dtype(scale * kept * inverse_norm), dtype(scale * kept / norm)
            for_slopes = dtype(scale * own_kept / norm)
            summed = zero
            for n in range(columns):
                own[i, j, n] = w[start + n] * for_slopes
                summed += own[i, j, n]
            for n in range(start):
                w[n] = given[n] * before
            for n in range(start, stop):
                w[n] = w[n] * inside
            for n in range(stop, reached[r]):
                w[n] = zero
            # NaN, once there, stays
            if summed > reach:
                reach = np.float64(summed)
            if not (norm > 0 and norm < math.inf and scale * kept > shortest and dtype(scale) < math.inf):
                reach = math.nan
    return reach


@summing
def _dot(a: Any, b: Any) -> float:
    out = 0.0
    for n in range(len(a)):
        out += np.float64(a[n]) * np.float64(b[n])
    return out


@kernel
def _weight_vjp(full: Any, numbers: Any, grad_blocks: Any, grad: Any, grad_gain: Any) -> None:
    dim, rows, columns = grad_blocks.shape
    dtype = grad.dtype.type
    zero = dtype(0)
    for i in range(dim):
        start, stop = i * columns, (i + 1) * columns
        for j in range(rows):
            r = i * rows + j
            g, w, own = grad[r], full[r], grad_blocks[i, j]
            scale, own_scale, inverse_norm = numbers[SCALE, r], numbers[OWN_SCALE, r], numbers[INVERSE_NORM, r]
            along = _dot(g[:stop], w[:stop])
            own_along = own_scale / scale * _dot(own, w[start:stop])
            grad_gain[r] = along + own_along
            # longer rows change the two the less the more an epsilon takes of them
            less = (numbers[KEPT, r] * along + numbers[OWN_KEPT, r] ** 2 * own_along) / scale
            by, back = dtype(scale * inverse_norm), dtype(less * inverse_norm)
            for n in range(start):
                g[n] = g[n] * by - w[n] * back
            own_by, back = dtype(own_scale / scale), dtype(less / scale)
            for n in range(start, stop):
                # d exp(raw) / d raw is the entry itself, w over its scale
                g[n] = (g[n] + own[n - start] * own_by - w[n] * back) * w[n]
            for n in range(stop, len(g)):
                g[n] = zero
