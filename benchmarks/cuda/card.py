"""The card: what it is, and how long it takes for something, by its own clock."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import burn
import numpy as np

import refnaf
from refnaf.kernels.cuda import arrays
from refnaf.kernels.cuda.compiler import SIMULATED

#: Calls that are timed, and those before them, in which kernels are compiled and memory is found.
REPEATS, WARM = (1, 1) if SIMULATED else (31, 3)
#: Bytes that are written between calls, more than any second-level cache has, so that each finds it cold.
FLUSHED = 1 << 10 if SIMULATED else 1 << 28
#: Rounds by which the holding kernel is calibrated, and the longest that a queue is held, in seconds.
CALIBRATION, LONGEST = (1, 1e-5) if SIMULATED else (20_000, 0.5)
PACKAGES = ("numpy", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "cuda-bindings", "torch", "triton")


def describe() -> dict[str, str]:
    """Card, driver, CUDA, versions and date."""
    found = {"card": "none: the simulator", "driver": "none", "CUDA": "none"}
    if not SIMULATED:
        import cupy

        runtime = cupy.cuda.runtime
        properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
        found["card"] = (
            f"{properties['name'].decode()}, {properties['multiProcessorCount']} multiprocessors, "
            f"{properties['totalGlobalMem'] / 2**30:.0f} GiB, second-level cache {properties['l2CacheSize'] >> 20} MiB"
        )
        found["driver"] = f"{_driver()}, for CUDA up to {_version(runtime.driverGetVersion())}"
        found["CUDA"] = _version(runtime.runtimeGetVersion())
    versions = [f"refnaf {refnaf.__version__}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"versions": ", ".join(versions), "date": datetime.date.today().isoformat()}


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
    return said[0].strip() or "unknown"


def release() -> None:
    """Give memory that nothing holds any more back to the card, where others look for it."""
    if not SIMULATED:
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()


class _HostEvent:
    """An event of the simulator, for which nothing goes on beside the host."""

    def record(self) -> None:
        self.time = time.perf_counter()


def _event() -> Any:
    if SIMULATED:
        return _HostEvent()
    import cupy

    return cupy.cuda.Event()


def _between(before: Any, after: Any) -> float:
    """Seconds from one event to the other."""
    if SIMULATED:
        return float(after.time - before.time)
    import cupy

    return float(cupy.cuda.get_elapsed_time(before, after)) * 1e-3


class Clock:
    """Times calls on the current stream.

    To launch a small kernel takes the host longer than the card needs for it. So that this is not in the times, the
    card is first held by a kernel that only burns time, until the host has asked for all the calls.
    """

    def __init__(self) -> None:
        self._flushed = arrays.module().empty(FLUSHED, np.uint8)
        self._out = arrays.put(np.zeros(1, np.float32))
        self._burn(CALIBRATION)
        before, after = _event(), _event()
        before.record()
        self._burn(CALIBRATION)
        after.record()
        arrays.wait()
        self._round = max(_between(before, after), 1e-9) / CALIBRATION

    def _burn(self, rounds: int) -> None:
        burn.kernels(np.float32).fma((1,), self._out, 0.999, 0.001, rounds)

    def seconds(self, call: Callable[[], Any], repeats: int = REPEATS) -> float:
        """The median of the times between two events around a call; the cache is cold before each."""
        for _ in range(WARM):
            call()
        arrays.wait()
        pairs = [(_event(), _event()) for _ in range(repeats)]
        asked = self._ask(call, pairs[0])
        arrays.wait()
        self._burn(max(int(min(2 * asked * repeats, LONGEST) / self._round), 1))
        for pair in pairs:
            self._ask(call, pair)
        arrays.wait()
        return statistics.median(_between(*pair) for pair in pairs)

    def _ask(self, call: Callable[[], Any], pair: tuple[Any, Any]) -> float:
        """Host's seconds to ask for one call, between the events of a pair."""
        began = time.perf_counter()
        self._flushed.fill(0)
        pair[0].record()
        call()
        pair[1].record()
        return time.perf_counter() - began

    def host_seconds(self, call: Callable[[], Any], repeats: int = REPEATS) -> float:
        """The median time for which a call keeps the host, whatever the card does meanwhile."""
        call()
        times = []
        for _ in range(repeats):
            arrays.wait()
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        arrays.wait()
        return statistics.median(times)
