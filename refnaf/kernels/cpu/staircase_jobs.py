"""What the products of :mod:`.staircase` do, as tables for its kernel, and where a weight's entries lie."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.cpu.tile import ROWS

#: Terms summed before the next rows have theirs: what they read of the other factor stays in a cache.
DEPTH = 256
#: Rows of a panel: so many terms, at least, has a sum along the columns.
PANEL = 16 * ROWS

#: In a job, for a number that is known at the call: that of samples, or of the terms.
EACH = -1
#: What a job of :func:`_multiply` is.
JOB = (
    *("left", "left_rows", "left_row", "left_col"),
    *("k", "terms"),
    *("out", "out_rows", "out_row", "begin", "end"),
    *("many", "add"),
)


class Panel(NamedTuple):
    """Rows of a weight, which of their columns are stored, and where: all those of a row, one row after the other."""

    rows: slice
    columns: slice
    place: int

    @property
    def height(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start


def whole_panels(rows: int, columns: int) -> list[Panel]:
    """Those of a matrix."""
    tops = range(0, rows, DEPTH)
    return [Panel(slice(top, min(top + DEPTH, rows)), slice(0, columns), top * columns) for top in tops]


def packed_panels(mask: np.ndarray) -> list[Panel]:
    """Those of a vector that leaves out what none of a panel's rows needs."""
    found, place = [], 0
    for top in range(0, len(mask), PANEL):
        rows = slice(top, min(top + PANEL, len(mask)))
        some = np.flatnonzero(mask[rows].any(axis=0))
        # whole groups of columns, so that a group is stored or it is not
        low, high = (some[0] // ROWS * ROWS, -(-(some[-1] + 1) // ROWS) * ROWS) if len(some) else (0, 0)
        found.append(Panel(rows, slice(int(low), int(high)), place))
        place += found[-1].height * found[-1].width
    return found


class Work(NamedTuple):
    """A table of jobs, its halves, which write to different rows, and how many terms it has."""

    jobs: np.ndarray
    halves: list[np.ndarray]
    terms: int


class Layout:
    """Where the entries of a weight lie, and what its products do, as tables for the kernels."""

    def __init__(self, mask: np.ndarray, panels: list[Panel]) -> None:
        self._mask, self._panels = mask, panels
        #: Of each row, the place of column 0 (whether or not it is stored), and how far apart columns' rows are.
        self._starts, self._strides = np.zeros((2, len(mask)), np.int64)
        for panel in panels:
            self._starts[panel.rows] = panel.place - panel.columns.start + panel.width * np.arange(panel.height)
            self._strides[panel.rows] = panel.width
        self._down = spans(mask)

    @property
    def size(self) -> int:
        """Numbers that are stored."""
        return sum(panel.height * panel.width for panel in self._panels)

    def pieces(self, stored: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Rows and columns of the matrix, and the view of a stored weight that holds them."""
        for panel in self._panels:
            part = stored[panel.place : panel.place + panel.height * panel.width].reshape(panel.height, panel.width)
            columns = slice(panel.columns.start, min(panel.columns.stop, self._mask.shape[1]))
            yield (panel.rows, columns), part[:, : columns.stop - columns.start]

    @cached_property
    def product(self) -> Work:
        """``W x``."""
        rows, columns = self._mask.shape
        top = ROWS * np.arange(len(self._down))
        jobs = []
        for start in range(0, max(columns, 1), DEPTH):
            k, last = np.clip(self._down, start, start + DEPTH).T
            left = {"left": self._starts[top] + k, "left_row": self._strides[top], "left_col": 1}
            out = {"out_rows": top, "out_row": EACH, "end": EACH}
            jobs.append(_jobs(rows, start > 0, **left, k=k, terms=last - k, **out))
        return _work(jobs)

    @cached_property
    def transposed(self) -> Work:
        """``W^T g``."""
        columns, up = self._mask.shape[1], spans(self._mask.T)
        group = ROWS * np.arange(len(up))
        jobs = []
        # where there is nothing to sum, the first jobs write zeros
        for number, panel in enumerate(self._panels or [Panel(slice(0, 0), slice(0, 0), 0)]):
            k, last = np.clip(up, panel.rows.start, panel.rows.stop).T
            is_stored = (group >= panel.columns.start) & (group < panel.columns.stop)
            at = panel.place + (k - panel.rows.start) * panel.width + group - panel.columns.start
            left = {"left": at, "left_row": 1, "left_col": panel.width}
            out = {"out_rows": group, "out_row": EACH, "end": EACH}
            jobs.append(_jobs(columns, number > 0, **left, k=k, terms=np.where(is_stored, last - k, 0), **out))
        return _work(jobs)

    @cached_property
    def outer(self) -> tuple[Work, np.ndarray]:
        """``g x^T``, and runs of the mask's zeros inside of what it writes."""
        top = ROWS * np.arange(len(self._down))
        begin, end = self._down.T
        left = {"left_rows": top, "left_row": EACH, "left_col": 1, "terms": EACH}
        out = {"out": self._starts[top], "out_row": self._strides[top], "begin": begin, "end": end}
        jobs = _jobs(len(self._mask), False, **left, **out)
        first, last = np.repeat(self._down, ROWS, axis=0)[: len(self._mask)].T[:, :, None]
        # a column more, so that no run goes on to the next row
        columns = np.arange(self._mask.shape[1] + 1)
        hole = ~np.pad(self._mask, ((0, 0), (0, 1)), constant_values=True) & (columns >= first) & (columns < last)
        row, column = np.divmod(np.flatnonzero(np.diff(hole.ravel(), prepend=False)), len(columns))
        return _work([jobs]), (self._starts[row] + column).reshape(-1, 2).astype(np.int64)


def spans(mask: np.ndarray) -> np.ndarray:
    """For each :data:`ROWS` rows of a mask, the first column with a one and the one after the last: ``(groups, 2)``."""
    if not mask.size:
        return np.zeros((-(-len(mask) // ROWS), 2), np.int64)
    some = np.logical_or.reduceat(mask, np.arange(0, len(mask), ROWS), axis=0)
    first, last = some.argmax(axis=1), mask.shape[1] - some[:, ::-1].argmax(axis=1)
    return np.stack([first, np.where(some.any(axis=1), last, first)], axis=1).astype(np.int64)


def _jobs(rows: int, add: bool, **given: Any) -> np.ndarray:
    """A job for each group of the result's rows; those that would add nothing are left out."""
    groups = np.arange(-(-rows // ROWS))
    columns = dict.fromkeys(JOB, 0) | given | {"many": np.minimum(ROWS, rows - ROWS * groups), "add": add}
    table = np.stack(np.broadcast_arrays(*(columns[name] for name in JOB), groups)[:-1], axis=1).astype(np.int64)
    return table[table[:, JOB.index("terms")] != 0] if add else table


def _work(tables: list[np.ndarray]) -> Work:
    """Jobs one table after the other, and their halves, by the rows that they write to, of about as many terms."""
    jobs = np.concatenate(tables)
    column = {name: jobs[:, k] for k, name in enumerate(JOB)}
    # of a job that writes some columns, these stand for its terms
    terms = np.where(column["terms"] == EACH, column["end"] - column["begin"], column["terms"])
    # the rows that are written: an outer product's are those of its left factor
    top = column["out_rows"] + column["left_rows"]
    order = np.argsort(top, kind="stable")
    before = np.cumsum(terms[order])
    second = top >= (top[order][np.searchsorted(before, before[-1] / 2)] if len(before) else 0)
    halves = [half for half in (jobs[~second], jobs[second]) if len(half)]
    return Work(jobs, halves, ROWS * int(terms.sum()))
