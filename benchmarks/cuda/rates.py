"""What the card itself can do, measured in the same run: copies, matrix products, exponentials, multiply-adds."""

from __future__ import annotations

import dataclasses
from functools import partial

import burn
import numpy as np
from card import Clock

from refnaf.kernels.cuda import arrays
from refnaf.kernels.cuda.compiler import SIMULATED, THREADS

#: Bytes of a copy, side of the matrices, threads that burn, and their rounds.
COPIED, SIDE = (1 << 10, 4) if SIMULATED else (1 << 30, 8192)
BLOCKS, ROUNDS = (1, 1) if SIMULATED else (1 << 13, 256)
DTYPES = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class Rates:
    """Bytes/s of a copy (read and written both count), FLOP/s of float32 products without TF32; by dtype,
    exponentials/s and multiply-adds/s; seconds of an empty kernel between two events, and those for which its launch
    keeps the host."""

    copy: float
    products: float
    exps: dict[str, float]
    own_exps: dict[str, float]
    fmas: dict[str, float]
    empty: float
    launch: float


def measure(clock: Clock) -> Rates:
    """All of them. Exponentials are the quicker of CUDA's and refnaf's own."""
    source = arrays.put(np.ones(COPIED // 4, np.float32))
    target = arrays.module().empty(COPIED // 4, np.float32)
    copied = clock.seconds(partial(np.copyto, target, source))
    del source, target
    rng = np.random.default_rng(0)
    a, b = (arrays.put(rng.normal(size=(SIDE, SIDE)).astype(np.float32)) for _ in range(2))
    product = np.empty_like(a)
    multiplied = clock.seconds(partial(np.dot, a, b, out=product))
    del a, b, product
    exps, own, fmas = {}, {}, {}
    for dtype in DTYPES:
        kernels, out = burn.kernels(getattr(np, dtype)), arrays.put(np.zeros(BLOCKS * THREADS, dtype))
        threads = BLOCKS * THREADS * ROUNDS
        seconds = [
            clock.seconds(partial(run, (BLOCKS,), out, ROUNDS)) for run in (kernels.own_exp, kernels.library_exp)
        ]
        made = threads * burn.EXP_CHAINS * burn.EXP_STEPS
        own[dtype], exps[dtype] = made / seconds[0], made / min(seconds)
        burnt = clock.seconds(partial(kernels.fma, (BLOCKS,), out, 0.999, 0.001, ROUNDS))
        fmas[dtype] = threads * burn.FMA_CHAINS * burn.FMA_STEPS / burnt
    nothing, one = burn.kernels(np.float32).nothing, arrays.put(np.zeros(1, np.float32))
    launch = partial(nothing, (1,), one)
    return Rates(
        2 * COPIED / copied,
        2 * SIDE**3 / multiplied,
        exps,
        own,
        fmas,
        clock.seconds(launch),
        clock.host_seconds(launch),
    )
