"""Kernels that do nothing but one kind of arithmetic: what a card can do, and how to keep it busy for a while."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda

from refnaf.kernels.cuda.compiler import kernel, part
from refnaf.kernels.cuda.elementary import functions

#: Independent chains of a thread, and what each does in a round: many, that the loop itself costs little.
FMA_CHAINS, FMA_STEPS = 8, 16
EXP_CHAINS, EXP_STEPS = 4, 4


@cache
def kernels(dtype: Any) -> SimpleNamespace:
    """For np.float32 or np.float64: ``fma(out, a, b, rounds)``, ``own_exp`` and ``library_exp`` ``(out, rounds)``, and
    ``nothing(out)``. Every thread goes its rounds; those that ``out`` has room for write what they found."""
    exp_negative, zero = functions(dtype).exp_negative, dtype(0)
    eighth = dtype(0.125)

    @part
    def library(x: Any) -> Any:
        return math.exp(x)

    @kernel(dtype, "1ffi")
    def fma(out: Any, a: Any, b: Any, rounds: int) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        # chains from different numbers, or a compiler would make one of them
        v0 = zero
        v1 = v0 + eighth
        v2 = v1 + eighth
        v3 = v2 + eighth
        v4 = v3 + eighth
        v5 = v4 + eighth
        v6 = v5 + eighth
        v7 = v6 + eighth
        for _ in range(rounds):
            for _ in range(FMA_STEPS):
                v0 = v0 * a + b
                v1 = v1 * a + b
                v2 = v2 * a + b
                v3 = v3 * a + b
                v4 = v4 * a + b
                v5 = v5 * a + b
                v6 = v6 * a + b
                v7 = v7 * a + b
        if n < out.shape[0]:
            out[n] = ((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7))

    def exponentials(function: Any) -> Any:
        @kernel(dtype, "1i")
        def exps(out: Any, rounds: int) -> None:
            n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
            v0 = zero
            v1 = v0 + eighth
            v2 = v1 + eighth
            v3 = v2 + eighth
            for _ in range(rounds):
                for _ in range(EXP_STEPS):
                    v0 = function(-v0)
                    v1 = function(-v1)
                    v2 = function(-v2)
                    v3 = function(-v3)
            if n < out.shape[0]:
                out[n] = (v0 + v1) + (v2 + v3)

        return exps

    @kernel(dtype, "1")
    def nothing(out: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n > out.shape[0]:
            out[0] = zero

    own_exp, library_exp = exponentials(exp_negative), exponentials(library)
    return SimpleNamespace(fma=fma, own_exp=own_exp, library_exp=library_exp, nothing=nothing)
