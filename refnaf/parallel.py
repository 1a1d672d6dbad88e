"""Plain threads that share fixed parts of a computation.

What is computed is serial, releases the interpreter's lock, and is cut into parts that do not depend on the number of
threads: so the bits of a result do not either. Linear algebra is held to one thread meanwhile, since two libraries'
threads on the same cores take turns waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


def default_threads(threads: int | None) -> int:
    """How many threads work where nothing else is asked for: as many as there are cores, and at most 4."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if threads is not None:
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


class Workers:
    """``map`` over jobs by so many threads, in order."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def map(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The function of each job's arguments, in order."""
        if self._pool is None or len(jobs) < 2:
            return [function(*job) for job in jobs]
        return list(self._pool.map(lambda job: function(*job), jobs))

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def serial_algebra() -> Iterator[None]:
    """One thread of linear algebra for each of the caller's."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield
