"""What the machine itself can do, measured in the same run: matrix products, exponentials, copies."""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cases import UNITS, Network

from refnaf.reference.ddsf import layer_sizes

torch = importlib.import_module("torch")

#: Side of the matrices, elements of an elementwise function (they fit a cache), and bytes of a copy (they do not).
SIDE, ELEMENTS, COPIED = 1536, 1 << 15, 1 << 27


@dataclasses.dataclass(frozen=True)
class Limits:
    """Rates of one dtype and number of threads: FLOP/s, seconds an element, bytes/s (read and written both count)."""

    dtype: str
    threads: int
    flops: float
    exp: float
    log: float
    log1p: float
    copy: float
    #: the same by library, for the report
    exp_by: dict[str, float]


def _seconds(function: Callable[[], Any], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _elementwise(name: str, x: np.ndarray, threads: int) -> dict[str, float]:
    """Seconds an element by NumPy and by torch, if all threads had their part: one thread's time over their number."""
    out, tensor = np.empty_like(x), torch.tensor(x)
    room = torch.empty_like(tensor)
    numpy_function, torch_function = getattr(np, name), getattr(torch, name)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        by_torch = _seconds(lambda: torch_function(tensor, out=room), 200)
    finally:
        torch.set_num_threads(before)
    by_numpy = _seconds(lambda: numpy_function(x, out=out), 200)
    return {"numpy": by_numpy / x.size / threads, "torch": by_torch / x.size / threads}


def measure(dtype: str, threads: int) -> Limits:
    """The limits. NumPy's linear algebra must have been started with this many threads (OPENBLAS_NUM_THREADS)."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(SIDE, SIDE)).astype(dtype) for _ in range(2))
    product, ta, tb = np.empty_like(a), torch.tensor(a), torch.tensor(b)
    fastest = min(_seconds(lambda: np.dot(a, b, out=product), 5), _seconds(lambda: torch.mm(ta, tb), 5))
    x = rng.uniform(0.1, 3, size=ELEMENTS).astype(dtype)
    rates = {name: _elementwise(name, x, threads) for name in ("exp", "log", "log1p")}
    source = torch.ones(COPIED // 4, dtype=torch.float32)
    target = torch.empty_like(source)
    copied = _seconds(lambda: target.copy_(source), 5)
    best = {name: min(by.values()) for name, by in rates.items()}
    return Limits(dtype, threads, 2 * SIDE**3 / fastest, **best, copy=2 * COPIED / copied, exp_by=rates["exp"])


@dataclasses.dataclass(frozen=True)
class Work:
    """The least that a piece of work must do: elementary functions, multiply-adds in products, and values moved.

    Values moved are what is read and written once, with all that lies between held in a cache; they count only where
    they do not fit one.
    """

    exps: float = 0
    logs: float = 0
    log1ps: float = 0
    madds: float = 0
    values: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def times(self, count: float) -> Work:
        return Work(*(a * count for a in dataclasses.astuple(self)))

    def seconds(self, limits: Limits) -> float:
        """The larger of the time to compute and, beyond 16 MiB, the time to move."""
        computed = self.exps * limits.exp + self.logs * limits.log + self.log1ps * limits.log1p
        computed += 2 * self.madds / limits.flops
        size = self.values * np.dtype(limits.dtype).itemsize
        return max(computed, size / limits.copy if size > 1 << 24 else 0.0)


def transformer(name: str, backward: bool, d: int = UNITS) -> Work:
    """Of one sample and dimension.

    A unit of a DSF takes three exponentials (softplus, softmax, sigmoid) and a log1p; backward one more, where the
    slope is recovered from its softplus. Of a DDSF's products backward takes two for each forward; of a mixture's
    scales, tanh counts as an exponential.
    """
    if name == "affine":
        return Work(exps=2, values=5) + (Work(values=9) if backward else Work())
    if name == "mog":
        return Work(exps=4 * d, logs=2, values=3 * d + 3) + (Work(values=6 * d + 3) if backward else Work())
    if name == "dsf":
        forward = Work(exps=3 * d, log1ps=d, logs=3, values=3 * d + 3)
        return forward + (Work(exps=d, values=9 * d + 3) if backward else Work())
    forward, back = Work(values=2), Work(values=3)
    for below, width, out in layer_sizes(d, 2):
        rows = 0 if below == 1 else below
        units = 3 * width + rows
        # three right-hand sides of each product: for w those of S+, S- and the mass, for u h, its tangent and the total
        products = 3 * (out * width + (width * rows))
        forward += Work(3 * width + rows, 2 * out, width, products, units)
        back += Work(exps=width, madds=2 * products, values=3 * units)
    return forward + Work(logs=1) + (back if backward else Work())


def training_step(network: Network, dim: int, rows: int) -> Work:
    """Products with the entries inside the masks, three for each (forward, and two backward), and the transformers.

    The optimiser reads and writes four vectors of the parameters.
    """
    layers = len(network.layers)
    whole = Work(madds=3 * network.inside() * rows) + transformer(network.name, True).times(layers * dim * rows)
    return dataclasses.replace(whole, values=7 * network.inside())


def scoring(network: Network, dim: int, rows: int) -> Work:
    """One pass, as of :func:`training_step`."""
    return Work(madds=network.inside() * rows) + transformer(network.name, False).times(
        len(network.layers) * dim * rows
    )


def table(found: Sequence[Limits]) -> list[list[str]]:
    """Rows of the report."""
    return [
        [
            str(limits.threads),
            limits.dtype,
            f"{limits.flops / 1e9:.0f}",
            f"{limits.exp_by['numpy'] * 1e9:.2f} / {limits.exp_by['torch'] * 1e9:.2f}",
            f"{limits.log * 1e9:.2f}",
            f"{limits.log1p * 1e9:.2f}",
            f"{limits.copy / 1e9:.1f}",
        ]
        for limits in found
    ]
