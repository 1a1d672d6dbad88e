"""Plain threads that share fixed parts of a computation.

What is computed is serial, releases the interpreter's lock, and is cut into parts that do not depend on the number of
threads: so the bits of a result do not either. Linear algebra is held to one thread meanwhile, since two libraries'
threads on the same cores take turns waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
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
        if len(jobs) == 2:
            # this thread takes one: to wake another takes longer than many a job
            second = self._pool.submit(function, *jobs[1])
            try:
                first = function(*jobs[0])
            finally:
                wait([second])
            return [first, second.result()]
        return list(self._pool.map(lambda job: function(*job), jobs))

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class Order:
    """Turns of a sequence of jobs at each of some places: the k-th job's comes when the job before has had its own.

    Jobs must start in their order (as :meth:`Workers.map` has them), or one waits for another that never runs.
    """

    def __init__(self, places: int) -> None:
        self._places, self._condition = places, threading.Condition()
        self.begin()

    def begin(self) -> None:
        """Everything anew: the first job is next everywhere."""
        self._next, self._broken = [0] * self._places, False

    @contextmanager
    def turn(self, place: int, job: int) -> Iterator[None]:
        """What the job does at a place. Raises RuntimeError where it would wait for one that gave up."""
        with self._condition:
            self._condition.wait_for(lambda: self._broken or self._next[place] == job)
            if self._next[place] != job:
                raise RuntimeError("another part of the same work has failed")
        yield
        with self._condition:
            self._next[place] += 1
            self._condition.notify_all()

    def give_up(self) -> None:
        """Let nobody wait: a job has failed."""
        with self._condition:
            self._broken = True
            self._condition.notify_all()


@cache
def _libraries() -> Any:
    """The linear algebra that is loaded: numpy's. To look for it takes longer than to score a row."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _free() -> None:
    """Let this thread, and then any other, set their number: since version 3.8 it is the first one's to set alone."""
    for library in _libraries().lib_controllers:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)


class _Serial:
    """Threads inside :func:`serial_algebra`: the first to enter sets the limit, the last to leave lifts it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depths: dict[int, int] = {}
        self.limits: Any = None

    def enter(self) -> None:
        me = threading.get_ident()
        with self.lock:
            if not self.depths:
                _free()
                self.limits = _libraries().limit(limits=1, user_api="blas")
                _free()
            self.depths[me] = self.depths.get(me, 0) + 1

    def leave(self) -> None:
        me = threading.get_ident()
        with self.lock:
            self.depths[me] -= 1
            if not self.depths[me]:
                del self.depths[me]
            if not self.depths:
                self.lift()

    def lift(self) -> None:
        """Give linear algebra its threads back."""
        _free()
        self.limits.restore_original_limits()
        _free()

    def forked(self) -> None:
        """In a forked child only the thread that forked goes on."""
        others, me = bool(self.depths), threading.get_ident()
        self.lock = threading.Lock()
        self.depths = {me: self.depths[me]} if me in self.depths else {}
        if others and not self.depths:
            self.lift()


_serial = _Serial()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial.forked)


@contextmanager
def serial_algebra() -> Iterator[None]:
    """One thread of linear algebra for each of the caller's; several may be inside at a time."""
    _serial.enter()
    try:
        yield
    finally:
        _serial.leave()
