"""Products with a masked weight that leave out its zeros (:mod:`refnaf.kernels.array.staircase`), compiled.

A few rows of the result at a time are summed in registers (:mod:`.tile`), over the terms that the mask leaves them: a
staircase costs little more than the entries inside it, where blocks for a library's product must be large.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.tile import ROWS, VECTORS, edge, lanes, row, row_edge, whole

#: Terms summed before the next rows have theirs: what they read of the other factor stays in a cache.
DEPTH = 256
#: Rows and columns of a square that is transposed at a time.
SQUARE = 16


class Staircase:
    """As :class:`refnaf.kernels.array.staircase.Staircase`. Results are C-contiguous; dtypes are one."""

    def __init__(self, mask: np.ndarray) -> None:
        self._mask = mask
        self.dense = bool(mask.all())
        self._down = spans(mask)

    @cached_property
    def _up(self) -> np.ndarray:
        return spans(self._mask.T)

    @cached_property
    def _holes(self) -> np.ndarray:
        return holes(self._mask, self._down)

    def product(self, weight: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        """``out (out, N) = W x`` for x ``(in, N)``."""
        rows, columns = weight.shape
        _multiply(
            _flat(weight), columns, 1, _flat(x), x.shape[1], out.reshape(-1), self._down, False, rows, columns, _NONE
        )

    def transposed(self, weight: np.ndarray, grad: np.ndarray, out: np.ndarray) -> None:
        """``out (in, N) = W^T g`` for g ``(out, N)``."""
        columns, rows = weight.shape
        _multiply(
            _flat(weight), 1, rows, _flat(grad), grad.shape[1], out.reshape(-1), self._up, False, rows, columns, _NONE
        )

    def outer(self, grad: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (out, in) = mask * (g x^T)``. Nothing is written far outside the mask: it must be zero there."""
        (width, count), mark = x.shape, ws.mark()
        turned = ws.take((count, width), x.dtype)
        _transpose(_flat(x), width, count, turned.reshape(-1))
        args = _flat(turned), width, out.reshape(-1), self._down, True, len(grad), count, self._holes
        _multiply(_flat(grad), count, 1, *args)
        ws.release(mark)


def _flat(array: np.ndarray) -> np.ndarray:
    """A flat view, read-only like a flow's own numbers: so that kernels are compiled for no other kind."""
    flat = np.ascontiguousarray(array).reshape(-1)
    flat.flags.writeable = False
    return flat


def spans(mask: np.ndarray) -> np.ndarray:
    """For each :data:`ROWS` rows of a mask, the first column with a one and the one after the last: ``(groups, 2)``."""
    if not mask.size:
        return np.zeros((-(-len(mask) // ROWS), 2), np.int64)
    some = np.logical_or.reduceat(mask, np.arange(0, len(mask), ROWS), axis=0)
    first, last = some.argmax(axis=1), mask.shape[1] - some[:, ::-1].argmax(axis=1)
    return np.stack([first, np.where(some.any(axis=1), last, first)], axis=1).astype(np.int64)


def holes(mask: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Where zeros of the mask lie inside the rows' spans: begin and end ``(runs, 2)`` of each run, in a flat array."""
    first, last = np.repeat(down, ROWS, axis=0)[: len(mask)].T
    columns = np.arange(mask.shape[1])
    hole = ~mask & (columns >= first[:, None]) & (columns < last[:, None])
    edges = np.flatnonzero(np.diff(hole.ravel(), prepend=False, append=False))
    return edges.reshape(-1, 2).astype(np.int64)


_NONE = np.zeros((0, 2), np.int64)


@kernel
def _transpose(x: Any, rows: int, columns: int, out: Any) -> None:
    for top in range(0, rows, SQUARE):
        bottom = min(top + SQUARE, rows)
        for j in range(columns):
            for i in range(top, bottom):
                out[j * rows + i] = x[i * columns + j]


@kernel
def _multiply(
    left: Any,
    left_row: int,
    left_col: int,
    right: Any,
    width: int,
    out: Any,
    spans: Any,
    across: bool,
    rows: int,
    depth: int,
    holes: Any,
) -> None:
    """``out = left right`` for ``right`` and ``out`` of rows of ``width`` entries, and zero in the holes.

    ``spans`` are those of the terms of each group of rows, or of its columns with ``across``: there are so many terms
    (``depth``), then, and other columns are not written.
    """
    zero = out.dtype.type(0)
    size = lanes(out)
    wide = VECTORS * size
    for start in range(0, max(depth, 1), DEPTH):
        for group in range(len(spans)):
            low, high = spans[group, 0], spans[group, 1]
            begin, end = (low, high) if across else (0, width)
            k, last = (0, depth) if across else (low, high)
            k, last = max(k, start), min(last, start + DEPTH)
            terms = max(last - k, 0)
            add = start > 0
            if add and terms == 0:
                continue
            top = group * ROWS
            if top + ROWS <= rows:
                a, b, c, j = top * left_row + k * left_col, k * width, top * width, begin
                while j + wide <= end:
                    whole(left, a, left_row, left_col, right, b + j, width, out, c + j, width, terms, add, size)
                    j += wide
                while j < end:
                    edge(left, a, left_row, left_col, right, b + j, width, out, c + j, width, terms, add, end - j)
                    j += size
                continue
            for i in range(top, rows):
                a, b, c, j = i * left_row + k * left_col, k * width, i * width, begin
                while j + wide <= end:
                    row(left, a, left_row, left_col, right, b + j, width, out, c + j, width, terms, add, size)
                    j += wide
                while j < end:
                    row_edge(left, a, left_row, left_col, right, b + j, width, out, c + j, width, terms, add, end - j)
                    j += size
    for run in range(len(holes)):
        for n in range(holes[run, 0], holes[run, 1]):
            out[n] = zero
