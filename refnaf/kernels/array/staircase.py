"""Products with a masked weight that leave out blocks of zeros.

With hidden units sorted by degree the mask of a weight is a staircase: a block of rows needs only the columns up to
where its own steps end. K blocks cost (K + 1) / (2 K) of the whole product; how many there are is chosen by what a
call costs beside its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array.workspace import Workspace

#: Multiplications that take as long as one call of a matrix product does without any.
CALL = 50_000
#: Samples for which blocks are chosen, and most blocks.
SAMPLES, MOST = 64, 16


class Block(NamedTuple):
    """Rows, and the columns outside which they are zero."""

    rows: slice
    columns: slice


def blocks(mask: np.ndarray) -> list[Block]:
    """Blocks of rows ``(out, in)``, none for rows of zeros, that take the least time together."""
    best: list[Block] = []
    least = np.inf
    count = 1
    while count <= min(MOST, max(len(mask), 1)):
        found = []
        cost = 0.0
        for k in range(count):
            rows = slice(len(mask) * k // count, len(mask) * (k + 1) // count)
            needed = np.flatnonzero(mask[rows].any(axis=0))
            if len(needed):
                found.append(Block(rows, slice(int(needed[0]), int(needed[-1]) + 1)))
                cost += CALL + SAMPLES * (rows.stop - rows.start) * (needed[-1] + 1 - needed[0])
        if cost < least:
            best, least = found, cost
        count *= 2
    return best


class Staircase:
    """The products of a network's layer with a mask ``(out, in)`` of zeros and ones. Weights are zero outside it."""

    def __init__(self, mask: np.ndarray, dtype: np.dtype | type) -> None:
        self.mask, self.dtype = np.asarray(mask, bool), dtype
        self.dense = bool(self.mask.all())
        self._twins: dict[Any, Any] = {}

    def twin(self, kind: Callable[[np.ndarray], Any]) -> Any:
        """What another module has with these methods, made of the mask once."""
        if kind not in self._twins:
            self._twins[kind] = kind(self.mask)
        return self._twins[kind]

    @cached_property
    def _down(self) -> list[Block]:
        return blocks(self.mask)

    @cached_property
    def _up(self) -> list[Block]:
        return [Block(block.columns, block.rows) for block in blocks(self.mask.T)]

    @cached_property
    def _edges(self) -> list[tuple[slice, np.ndarray] | None]:
        return [self._edge(block) for block in self._down]

    @cached_property
    def _covers_out(self) -> bool:
        return sum(b.rows.stop - b.rows.start for b in self._down) == self.mask.shape[0]

    @cached_property
    def _covers_in(self) -> bool:
        return sum(b.columns.stop - b.columns.start for b in self._up) == self.mask.shape[1]

    def _edge(self, block: Block) -> tuple[slice, np.ndarray] | None:
        """Columns of a block that are not all ones, counted from its first, and the mask there; or None."""
        part = self.mask[block]
        steps = np.flatnonzero(~part.all(axis=0))
        if not len(steps):
            return None
        columns = slice(int(steps[0]), int(steps[-1]) + 1)
        return columns, part[:, columns].astype(self.dtype)

    def product(self, weight: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (out, N) = W x`` for x ``(in, N)``."""
        if not self._covers_out:
            out.fill(0)
        for rows, columns in self._down:
            np.dot(weight[rows, columns], x[columns], out=out[rows])

    def transposed(self, weight: np.ndarray, grad: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (in, N) = W^T g`` for g ``(out, N)``."""
        if not self._covers_in:
            out.fill(0)
        for rows, columns in self._up:
            np.matmul(weight[rows, columns].T, grad[rows], out=out[columns])

    def outer(self, grad: np.ndarray, x: np.ndarray, out: np.ndarray, ws: Workspace) -> None:
        """``out (out, in) = mask * (g x^T)``. Blocks of zeros are not written: they must be zero."""
        for (rows, columns), edge in zip(self._down, self._edges, strict=True):
            part = out[rows, columns]
            np.matmul(grad[rows], x[columns].T, out=part)
            if edge is not None:
                part[:, edge[0]] *= edge[1]
