"""Buffers that are handed out again, in the same order, every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Workspace:
    """A sequence of arrays that is replayed: the k-th request after :meth:`reset` gets the k-th buffer again.

    A training step asks for the same arrays each time; fresh memory would cost it page faults. What a buffer holds is
    undefined, and is overwritten by the step after the next reset: copy what must outlive it. ``empty`` makes them, as
    np.empty does.
    """

    def __init__(self, empty: Callable[..., Any] = np.empty) -> None:
        self._empty = empty
        self._buffers: list[Any] = []
        self._next = 0
        self._own: dict[Any, Any] = {}

    def own(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gave for this key the first time: scratch of which every call may have the same."""
        if key not in self._own:
            self._own[key] = make()
        return self._own[key]

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
