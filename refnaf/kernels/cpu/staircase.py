"""Products with a masked weight that leave out its zeros (:mod:`refnaf.kernels.array.staircase`), compiled.

A few rows of the result at a time are summed in registers (:mod:`.tile`), over the terms that the mask leaves them: a
staircase costs little more than the entries inside it, where blocks for a library's product must be large.

A weight is a matrix, or a vector that holds of some rows at a time, a panel, the columns that any of them needs: half
the memory, which is what an optimiser's step takes its time for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.tile import ROWS, VECTORS, edge, lanes, row, row_edge, whole

#: Terms summed before the next rows have theirs: what they read of the other factor stays in a cache.
DEPTH = 256
#: Rows of a panel: so many terms, at least, has a sum along the columns.
PANEL = 16 * ROWS
#: Rows and columns of a square that is transposed at a time.
SQUARE = 16


class Panel(NamedTuple):
    """Rows, the columns of them that are stored, and where."""

    rows: slice
    columns: slice
    place: int

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start


class Layout:
    """Where the entries of a weight lie, and what its products do, as tables for the kernels."""

    def __init__(self, mask: np.ndarray, panels: list[Panel]) -> None:
        self._mask, self._panels = mask, panels
        #: Of each row, the place of column 0 (whether or not it is stored), and how far apart columns' rows are.
        self._starts, self._strides = np.zeros((2, len(mask)), np.int64)
        for rows, columns, place in panels:
            width = columns.stop - columns.start
            self._starts[rows] = place - columns.start + width * np.arange(rows.stop - rows.start)
            self._strides[rows] = width
        self._down = spans(mask)

    @cached_property
    def product(self) -> np.ndarray:
        """Jobs ``(count, 8)`` of :func:`_multiply` for ``W x``."""
        rows, columns = self._mask.shape
        top = ROWS * np.arange(len(self._down))
        jobs = []
        for start in range(0, max(columns, 1), DEPTH):
            k, last = np.clip(self._down, start, start + DEPTH).T
            jobs.append(_jobs(self._starts[top] + k, self._strides[top], 1, k, last - k, top, rows, start > 0))
        return np.concatenate(jobs)

    @cached_property
    def transposed(self) -> np.ndarray:
        """Jobs of :func:`_multiply` for ``W^T g``."""
        columns, up = self._mask.shape[1], spans(self._mask.T)
        left = ROWS * np.arange(len(up))
        jobs = []
        for number, (rows, stored, place) in enumerate(self._panels or [Panel(slice(0, 0), slice(0, 0), 0)]):
            k, last = np.clip(up, rows.start, rows.stop).T
            there = (left >= stored.start) & (left < stored.stop)
            width = stored.stop - stored.start
            at = place - stored.start + (k - rows.start) * width + left
            jobs.append(_jobs(at, 1, width, k, np.where(there, last - k, 0), left, columns, number > 0))
        return np.concatenate(jobs)

    @cached_property
    def outer(self) -> tuple[np.ndarray, np.ndarray]:
        """For ``g x^T``: first and last column, place and stride of each group of rows, and runs of zeros inside."""
        top = ROWS * np.arange(len(self._down))
        groups = np.stack([*self._down.T, self._starts[top], self._strides[top]], axis=1)
        first, last = np.repeat(self._down, ROWS, axis=0)[: len(self._mask)].T[:, :, None]
        # a column more, so that no run goes on to the next row
        columns = np.arange(self._mask.shape[1] + 1)
        hole = ~np.pad(self._mask, ((0, 0), (0, 1)), constant_values=True) & (columns >= first) & (columns < last)
        row, column = np.divmod(np.flatnonzero(np.diff(hole.ravel(), prepend=False)), len(columns))
        return groups, (self._starts[row] + column).reshape(-1, 2).astype(np.int64)


class Staircase:
    """As :class:`refnaf.kernels.array.staircase.Staircase`. Results are C-contiguous; dtypes are one.

    Weights may be packed: :meth:`pack` makes a vector ``(size,)`` of a matrix.
    """

    def __init__(self, mask: np.ndarray) -> None:
        self._mask = mask
        self.dense = bool(mask.all())

    @cached_property
    def _panels(self) -> list[Panel]:
        found, place = [], 0
        for top in range(0, len(self._mask), PANEL):
            rows = slice(top, min(top + PANEL, len(self._mask)))
            some = np.flatnonzero(self._mask[rows].any(axis=0))
            # whole groups of columns, so that a sum along them stays inside
            low, high = (some[0] // ROWS * ROWS, -(-(some[-1] + 1) // ROWS) * ROWS) if len(some) else (0, 0)
            found.append(Panel(rows, slice(int(low), int(high)), place))
            place += (rows.stop - top) * found[-1].width
        return found

    @cached_property
    def _whole(self) -> Layout:
        rows, columns = self._mask.shape
        tops = range(0, rows, DEPTH)
        return Layout(self._mask, [Panel(slice(t, min(t + DEPTH, rows)), slice(0, columns), t * columns) for t in tops])

    @cached_property
    def _packed(self) -> Layout:
        return Layout(self._mask, self._panels)

    @property
    def size(self) -> int:
        """Entries of a packed weight."""
        return sum((panel.rows.stop - panel.rows.start) * panel.width for panel in self._panels)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """A matrix ``(out, in)``, zero outside the mask, to a vector ``(size,)``."""
        found = np.zeros(self.size, weight.dtype)
        for inside, stored in self._pieces(found):
            stored[...] = weight[inside]
        return found

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """The opposite of :meth:`pack`."""
        weight = np.zeros(self._mask.shape, packed.dtype)
        for inside, stored in self._pieces(packed):
            weight[inside] = stored
        return weight

    def _pieces(self, packed: np.ndarray) -> list[tuple[tuple[slice, slice], np.ndarray]]:
        columns = self._mask.shape[1]
        found = []
        for rows, stored, place in self._panels:
            width, right = stored.stop - stored.start, min(stored.stop, columns)
            whole = packed[place : place + (rows.stop - rows.start) * width].reshape(rows.stop - rows.start, width)
            found.append(((rows, slice(stored.start, right)), whole[:, : right - stored.start]))
        return found

    def _layout(self, weight: np.ndarray) -> Layout:
        return self._packed if weight.ndim == 1 else self._whole

    def product(self, weight: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        """``out (out, N) = W x`` for x ``(in, N)``."""
        _multiply(_flat(weight), _flat(x), x.shape[1], out.reshape(-1), self._layout(weight).product)

    def transposed(self, weight: np.ndarray, grad: np.ndarray, out: np.ndarray) -> None:
        """``out (in, N) = W^T g`` for g ``(out, N)``."""
        _multiply(_flat(weight), _flat(grad), grad.shape[1], out.reshape(-1), self._layout(weight).transposed)

    def outer(self, grad: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out = mask * (g x^T)``, a matrix or packed. Nothing is written far outside the mask: it must be zero."""
        (columns, count), mark = x.shape, ws.mark()
        turned = ws.take((count, columns), x.dtype)
        _transpose(_flat(x), columns, count, turned.reshape(-1))
        groups, holes = self._layout(out).outer
        _outer(_flat(grad), len(grad), count, _flat(turned), columns, out.reshape(-1), groups, holes)
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


def _jobs(at: Any, row: Any, column: Any, k: Any, terms: Any, top: np.ndarray, rows: int, add: bool) -> np.ndarray:
    """Jobs of :func:`_multiply`; those that would add nothing are left out."""
    many = np.minimum(ROWS, rows - top)
    jobs = np.stack(np.broadcast_arrays(at, row, column, k, terms, top, many, add), axis=1).astype(np.int64)
    return jobs[terms > 0] if add else jobs


@kernel
def _transpose(x: Any, rows: int, columns: int, out: Any) -> None:
    for top in range(0, rows, SQUARE):
        bottom = min(top + SQUARE, rows)
        for j in range(columns):
            for i in range(top, bottom):
                out[j * rows + i] = x[i * columns + j]


@part
def _band(
    left: Any,
    left_at: Any,
    left_row: Any,
    left_col: Any,
    right: Any,
    right_at: Any,
    right_row: Any,
    out: Any,
    at: Any,
    out_row: Any,
    many: Any,
    begin: Any,
    end: Any,
    terms: Any,
    add: Any,
) -> None:
    """So many rows of a product, at most :data:`ROWS`, from one column to another."""
    size = lanes(out)
    wide = VECTORS * size
    j = begin
    if many == ROWS:
        while j + wide <= end:
            whole(
                left, left_at, left_row, left_col, right, right_at + j, right_row, out, at + j, out_row, terms, add, 0
            )
            j += wide
        while j < end:
            edge(
                left,
                left_at,
                left_row,
                left_col,
                right,
                right_at + j,
                right_row,
                out,
                at + j,
                out_row,
                terms,
                add,
                end - j,
            )
            j += size
        return
    for i in range(many):
        a, c, j = left_at + i * left_row, at + i * out_row, begin
        while j + wide <= end:
            row(left, a, left_row, left_col, right, right_at + j, right_row, out, c + j, out_row, terms, add, 0)
            j += wide
        while j < end:
            row_edge(
                left, a, left_row, left_col, right, right_at + j, right_row, out, c + j, out_row, terms, add, end - j
            )
            j += size


@kernel
def _multiply(left: Any, right: Any, width: int, out: Any, jobs: Any) -> None:
    """``out = left right``, both right and out of rows of ``width`` entries.

    A job is ``at, row, column, k, terms, top, many, add``: where the factors begin in ``left``, and how far its rows
    and columns are apart; the first row of ``right``, and how many; the first row of ``out``, and how many; and whether
    to add to it.
    """
    for n in range(len(jobs)):
        at, row, column, k, terms, top, many, add = jobs[n]
        _band(left, at, row, column, right, k * width, width, out, top * width, width, many, 0, width, terms, add > 0)


@kernel
def _outer(grad: Any, rows: int, count: int, turned: Any, columns: int, out: Any, groups: Any, holes: Any) -> None:
    """``g x^T`` for ``turned``, which is ``x^T (count, columns)``, where the tables of :class:`Layout` say."""
    zero = out.dtype.type(0)
    for start in range(0, max(count, 1), DEPTH):
        terms = min(DEPTH, count - start)
        for n in range(len(groups)):
            first, last, at, stride = groups[n]
            top = n * ROWS
            many = min(ROWS, rows - top)
            a, b = top * count + start, start * columns
            _band(grad, a, count, 1, turned, b, columns, out, at, stride, many, first, last, terms, start > 0)
    for n in range(len(holes)):
        for place in range(holes[n, 0], holes[n, 1]):
            out[place] = zero
