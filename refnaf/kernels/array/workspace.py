"""Buffers that are handed out again, in the same order, every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

#: Numbers, of about a nanosecond each, that take much longer to compute than to wake a thread and wait for it.
SHARED = 300_000


def split(count: int) -> tuple[slice, list[slice]]:
    """All of a range, and its halves."""
    middle = (count + 1) // 2
    return slice(0, count), [slice(0, middle), slice(middle, count)][: min(count, 2)]


class Workspace:
    """A sequence of arrays that is replayed: the k-th request after :meth:`reset` gets the k-th buffer again.

    A training step asks for the same arrays each time; fresh memory would cost it page faults. What a buffer holds is
    undefined, and is overwritten by the step after the next reset: copy what must outlive it. ``empty`` makes them, as
    np.empty does.
    """

    #: Who works on the halves of one call (:meth:`share`): something with ``map``, as of :mod:`refnaf.parallel`, or
    #: None for nobody else.
    workers: Any = None

    def __init__(self, empty: Callable[..., Any] = np.empty) -> None:
        self._empty = empty
        self._other: Workspace | None = None
        self._buffers: list[Any] = []
        self._next = 0
        self._own: dict[Any, Any] = {}

    def own(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gave for this key the first time: scratch of which every call may have the same."""
        if key not in self._own:
            self._own[key] = make()
        return self._own[key]

    def share(
        self,
        function: Callable[[Workspace, Any], T],
        whole: Any,
        halves: Sequence[Any],
        size: int,
        always: bool = False,
    ) -> list[T]:
        """``function(workspace, part)`` of the whole work, or of its halves by the workers where it is large enough.

        ``size`` is how many numbers are computed. ``always``: of halves anyway, so that what the function sums is
        summed alike for any number of threads. The second half has a workspace of its own, for :meth:`own` alone.
        """
        shared = self.workers is not None and size >= SHARED
        if len(halves) < 2 or not (shared or always):
            return [function(self, whole)]
        if self._other is None:
            self._other = Workspace(self._empty)
        jobs = list(zip((self, self._other), halves, strict=True))
        return self.workers.map(function, jobs) if shared else [function(*job) for job in jobs]

    def reset(self) -> None:
        self._next = 0

    def mark(self) -> int:
        """The place in the sequence, for :meth:`release`."""
        return self._next

    def release(self, mark: int) -> None:
        """Give back what was taken since the mark."""
        self._next = mark

    def take(self, shape: tuple[int, ...], dtype: np.dtype | type) -> Any:
        """An uninitialised C-contiguous array."""
        count = math.prod(shape)
        size = max(count * np.dtype(dtype).itemsize, 1)
        if self._next == len(self._buffers):
            self._buffers.append(self._empty(size, np.uint8))
        elif self._buffers[self._next].size < size:
            self._buffers[self._next] = self._empty(size, np.uint8)
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
