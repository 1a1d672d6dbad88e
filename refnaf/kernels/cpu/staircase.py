"""Products with a masked weight that leave out its zeros (:mod:`refnaf.kernels.array.staircase`), compiled.

A few rows of the result at a time are summed in registers (:mod:`.tile`), over the terms that the mask leaves them: a
staircase costs little more than the entries inside it, where blocks for a library's product must be large.

A weight is a matrix, or a vector that holds of some rows at a time, a panel, the columns that any of them needs: half
the memory, which is what an optimiser's step takes its time for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.staircase_jobs import DEPTH, Layout, Work, packed_panels, whole_panels
from refnaf.kernels.cpu.tile import ROWS, VECTORS, edge, lanes, single, whole

#: Terms that take as long as a number of another kernel (:meth:`Workspace.share`).
TERMS = 64
#: Rows and columns of a square that is transposed at a time.
SQUARE = 16


class Staircase:
    """As :class:`refnaf.kernels.array.staircase.Staircase`. Results are C-contiguous; dtypes are one.

    Weights may be packed: :meth:`pack` makes a vector ``(size,)`` of a matrix.
    """

    def __init__(self, mask: np.ndarray) -> None:
        self._mask = mask
        self.dense = bool(mask.all())

    @cached_property
    def _whole(self) -> Layout:
        return Layout(self._mask, whole_panels(*self._mask.shape))

    @cached_property
    def _packed(self) -> Layout:
        return Layout(self._mask, packed_panels(self._mask))

    @property
    def size(self) -> int:
        """Entries of a packed weight."""
        return self._packed.size

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """A matrix ``(out, in)``, zero outside the mask, to a vector ``(size,)``."""
        packed = np.zeros(self.size, weight.dtype)
        for place, stored in self._packed.pieces(packed):
            stored[...] = weight[place]
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """The opposite of :meth:`pack`."""
        weight = np.zeros(self._mask.shape, packed.dtype)
        for place, stored in self._packed.pieces(packed):
            weight[place] = stored
        return weight

    def _layout(self, weight: np.ndarray) -> Layout:
        return self._packed if weight.ndim == 1 else self._whole

    def product(self, weight: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (out, N) = W x`` for x ``(in, N)``."""
        self._multiply(self._layout(weight).product, weight, x, out, ws)

    def transposed(self, weight: np.ndarray, grad: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (in, N) = W^T g`` for g ``(out, N)``."""
        self._multiply(self._layout(weight).transposed, weight, grad, out, ws)

    def _multiply(self, work: Work, weight: np.ndarray, right: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        count = right.shape[1]
        left, right, flat = _flat(weight), _flat(right), out.reshape(-1)
        size = work.terms * count // TERMS
        ws.share(lambda _, jobs: _multiply(left, right, count, flat, jobs, count, 0, 0, False), *work[:2], size)

    def outer(self, grad: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out = mask * (g x^T)``, a matrix or packed. Nothing is written far outside the mask: it must be zero."""
        (columns, count), mark = x.shape, ws.mark()
        turned = ws.take((count, columns), x.dtype)
        _transpose(_flat(x), columns, count, turned.reshape(-1))
        work, holes = self._layout(out).outer
        left, right, flat = _flat(grad), _flat(turned), out.reshape(-1)

        def run(_: Workspace, jobs: np.ndarray) -> None:
            for start in range(0, max(count, 1), DEPTH):
                terms = min(DEPTH, count - start)
                _multiply(left, right, columns, flat, jobs, count, start, terms, start > 0)

        ws.share(run, *work[:2], work.terms * count // TERMS)
        _clear(flat, holes)
        ws.release(mark)


def _flat(array: np.ndarray) -> np.ndarray:
    """A flat view, read-only like a flow's own numbers: so that kernels are compiled for no other kind."""
    flat = np.ascontiguousarray(array).reshape(-1)
    flat.flags.writeable = False
    return flat


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
    right: Any,
    right_row: int,
    out: Any,
    jobs: Any,
    count: int,
    first: int,
    depth: int,
    more: bool,
) -> None:
    """Sums ``out_ij = sum_k left_ik right_kj`` as the jobs say, one after the other; arrays are flat.

    A job begins in ``left`` at ``left + left_rows * count``, where rows and columns lie ``left_row`` and ``left_col``
    apart; at row ``k`` of ``right``, with so many ``terms``; and writes ``many`` rows, ``out_row`` apart, from ``out +
    out_rows * count`` on, of each the entries from ``begin`` to ``end``, or adds to them. Where a number is
    :data:`EACH`, that of samples stands for it, and for the number of terms ``depth``, of which the first is
    ``first``; ``more`` adds to all.
    """
    size = lanes(out)
    wide = VECTORS * size
    for n in range(len(jobs)):
        at, at_rows, row, column, k, terms, place, place_rows, apart, begin, end, many, add = jobs[n]
        row = count if row < 0 else row
        apart = count if apart < 0 else apart
        end = count if end < 0 else end
        terms = depth if terms < 0 else terms
        a, b, c = at + at_rows * count + first, (k + first) * right_row, place + place_rows * count
        adds = more or add > 0
        j = begin
        if many == ROWS:
            while j + wide <= end:
                whole(left, a, row, column, right, b + j, right_row, out, c + j, apart, terms, adds, size)
                j += wide
            while j < end:
                edge(left, a, row, column, right, b + j, right_row, out, c + j, apart, terms, adds, end - j)
                j += size
            continue
        for i in range(many):
            for j in range(begin, end, size):
                x, y = a + i * row, c + i * apart + j
                single(left, x, row, column, right, b + j, right_row, out, y, apart, terms, adds, end - j)


@kernel
def _clear(out: Any, runs: Any) -> None:
    zero = out.dtype.type(0)
    for n in range(len(runs)):
        for place in range(runs[n, 0], runs[n, 1]):
            out[place] = zero
