"""Times of several ways to do the same work, taken in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Between two candidates: threads of the one must have stopped spinning before the other starts.
PAUSE = 0.003
#: Rounds of bursts, and the most calls in a burst.
ROUNDS, CALLS = 5, 100
#: Seconds of a call that needs no call before it to fill the caches, and of which three rounds are enough.
LONG = 0.1


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured: seconds of a call by candidate, the largest spread among them, and what the machine allows.

    ``count`` is the number of things a call does (units, samples and dimensions, rows), in which the report counts.
    """

    section: str
    work: str
    dim: int
    rows: int
    dtype: str
    threads: int
    seconds: dict[str, float]
    spread: float = 0.0
    count: int = 1
    limit: float | None = None
    hidden: int | None = None

    @property
    def label(self) -> str:
        hidden = f", H = {self.hidden}" if self.hidden else ""
        return f"{self.work}{hidden}, D = {self.dim}, N = {self.rows}, {self.dtype}, threads = {self.threads}"


class Disagreement(Exception):
    """Two ways to do the same work gave different numbers."""


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    ``run`` is timed and returns arrays; ``prepare`` goes before it and is not timed (it restores what ``run``
    overwrites); ``around`` gives a context in which a burst of calls runs.
    """

    name: str
    run: Callable[[], list[Any]]
    prepare: Callable[[], None] = _nothing
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclasses.dataclass(frozen=True)
class Timed:
    """Median seconds of a call, and the interquartile range of the rounds over that median."""

    seconds: float
    spread: float


def _burst(candidate: Candidate, calls: int, warm: bool) -> float:
    times = []
    with candidate.around():
        for k in range(calls + warm):
            candidate.prepare()
            start = time.perf_counter()
            candidate.run()
            seconds = time.perf_counter() - start
            if k >= warm:
                times.append(seconds)
    time.sleep(PAUSE)
    return statistics.median(times)


def interleaved(candidates: Sequence[Candidate], seconds: float, rounds: int = ROUNDS) -> dict[str, Timed]:
    """Bursts of calls of each candidate in turn, for about so many seconds in all.

    Each has been called before (what it compiles is not counted), and the first call of a burst is not counted unless
    the call is long. A round starts with another candidate than the one before.
    """
    once = {candidate.name: _burst(candidate, 1, False) for candidate in candidates}
    if max(once.values()) > LONG:
        rounds = min(rounds, 3)
    share = seconds / (rounds * len(candidates))
    bursts: dict[str, list[float]] = {name: [] for name in once}
    gc.collect()
    gc.disable()
    try:
        for k in range(rounds):
            for j in range(len(candidates)):
                candidate = candidates[(j + k) % len(candidates)]
                estimate = once[candidate.name]
                calls = int(np.clip(share / estimate, 1, CALLS))
                bursts[candidate.name].append(_burst(candidate, calls, estimate < LONG))
    finally:
        gc.enable()
    return {name: _summary(times) for name, times in bursts.items()}


def row(found: dict[str, Timed], **what: Any) -> Row:
    """A row of what :func:`interleaved` found."""
    seconds = {name: timed.seconds for name, timed in found.items()}
    return Row(seconds=seconds, spread=max(timed.spread for timed in found.values()), **what)


def _summary(times: list[float]) -> Timed:
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return Timed(float(middle), float((high - low) / middle))


def agree(what: str, found: Sequence[Any], wanted: Sequence[Any], tolerance: float) -> None:
    """Raises Disagreement unless the arrays are those wanted, in this order; more may be wanted than found.

    The measure is the root mean square of the difference over that of what is wanted; it must be a number.
    """
    for k, (array, right) in enumerate(zip(found, wanted, strict=False)):
        array = np.asarray(array.detach() if hasattr(array, "detach") else array, np.float64)
        right = np.asarray(right, np.float64)
        if array.shape != right.shape:
            raise Disagreement(f"{what}: array {k} has shape {array.shape}, not {right.shape}")
        error = float(np.sqrt(np.mean((array - right) ** 2) / np.mean(right**2)))
        if not error <= tolerance:
            raise Disagreement(f"{what}: array {k} is wrong by {error:.2g}, more than {tolerance:g}")
