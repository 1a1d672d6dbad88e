"""The optimiser's step (:class:`refnaf.training.adam.Adam`) on a device, which decides there whether to take it.

The host needs neither the loss nor the gradient's norm to go on: :func:`judge` leaves out a step whose loss or gradient
is not finite, and keeps a tally that the host may read when it likes.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda

from refnaf.kernels.cuda.compiler import THREADS, kernel

#: Blocks that add up squares, at most.
BLOCKS = 256
#: The tally: steps taken, steps left out, and the sum of the losses of those taken.
TAKEN, LEFT_OUT, LOSSES, TALLY = range(4)


def sum_of_squares(values: Any, parts: Any) -> None:
    """Of a vector, in parts ``(BLOCKS,)`` of which those that it needs are written; the others are zero."""
    blocks = min(len(parts), -(-len(values) // (8 * THREADS)))
    kernels(values.dtype.type).sum_of_squares((blocks,), values, parts)


def judge(parts: Any, loss: Any, clip: float, factor: Any, tally: Any) -> None:
    """From the squares' parts and the loss ``(1,)``: what to multiply the gradient by ``(1,)``, -1 for no step."""
    kernels(parts.dtype.type).judge((1,), parts, loss, clip, factor, tally)


def update(flat: Any, *arguments: Any) -> None:
    """As :func:`refnaf.kernels.cpu.adam.update`; the factor is an array ``(1,)``, and one of ones where numbers decay
    and zeros elsewhere follows it."""
    kernels(flat.dtype.type).update.each(len(flat), flat, *arguments)


@cache
def kernels(dtype: Any) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64."""
    zero, one = dtype(0), dtype(1)

    @kernel(dtype, "11")
    def sum_of_squares(values: Any, parts: Any) -> None:
        t, b = cuda.threadIdx.x, cuda.blockIdx.x
        sums = cuda.shared.array(THREADS, dtype)
        total = zero
        for n in range(b * THREADS + t, values.shape[0], cuda.gridDim.x * THREADS):
            total += values[n] * values[n]
        sums[t] = total
        cuda.syncthreads()
        width = THREADS // 2
        while width > 0:
            if t < width:
                sums[t] += sums[t + width]
            cuda.syncthreads()
            width //= 2
        if t == 0:
            parts[b] = sums[0]

    @kernel(dtype, "11f11")
    def judge(parts: Any, loss: Any, clip: Any, factor: Any, tally: Any) -> None:
        if cuda.threadIdx.x > 0:
            return
        squares = zero
        for n in range(parts.shape[0]):
            squares += parts[n]
        # NaN and infinity are neither below infinity
        if squares < dtype(math.inf) and abs(loss[0]) < dtype(math.inf):
            norm = math.sqrt(squares)
            factor[0] = clip / norm if norm > clip else one
            tally[TAKEN] += one
            tally[LOSSES] += loss[0]
        else:
            factor[0] = -one
            tally[LEFT_OUT] += one

    @kernel(dtype, "11111111fffffff")
    def update(
        flat: Any,
        first: Any,
        second: Any,
        largest: Any,
        average: Any,
        grad: Any,
        factor: Any,
        decayed: Any,
        c1: Any,
        c2: Any,
        unbias: Any,
        eps: Any,
        rate: Any,
        shrink: Any,
        new: Any,
    ) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n >= flat.shape[0] or factor[0] < zero:
            return
        g = grad[n] * factor[0]
        m = first[n] + (g - first[n]) * c1
        v = second[n] + (g * g - second[n]) * c2
        first[n], second[n] = m, v
        if largest.shape[0] > 0:
            v = max(largest[n], v)
            largest[n] = v
        x = flat[n] - flat[n] * (shrink * decayed[n])
        x -= m / (math.sqrt(v) * unbias + eps) * rate
        flat[n] = x
        average[n] += (x - average[n]) * new

    return SimpleNamespace(sum_of_squares=sum_of_squares, judge=judge, update=update)
