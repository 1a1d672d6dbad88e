"""The mixture's tails, density and quantile for a block of samples: what its kernels share.

Rows of a block's scratch are at fixed offsets in one array, so that loops write through one pointer and become vector
instructions; and each loop has one elementary function, as the constants of two fill the registers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.cpu.compiler import part
from refnaf.kernels.cpu.elementary import exp_bounded, exp_negative, log, mills, softplus, tanh
from refnaf.reference.affine import LOG_SCALE_BOUND

#: Samples a block.
BLOCK = 64
#: Offsets of the rows of scratch: x, the distance u, the largest ``|q|``, sums of the weights, of the tails and of the
#: density, the excess, the logarithm of its part of the tail, R(u).
X, U, REACH, W, UPPER, LOWER, MASS, E, PART, RATIO, ROWS = (k * BLOCK for k in range(11))
#: Of a component: the weight, the mean (then q), 1 / s, and what the raw log-scale became.
WEIGHT, MEAN, RATE, SHAPE, SLOT = (k * BLOCK for k in range(5))
ROOT_2PI = math.sqrt(2 * math.pi)


@part
def load(
    theta: Any, start: int, stop: int, work: Any, slots: Any, bent: bool, floor: float, offset: float, lowest: float
) -> None:
    """Of ``theta[:, start:stop]`` weights, means, rates and shapes to the slots, and the weights' sum to work."""
    count, m = len(theta) // 3, stop - start
    dtype = work.dtype.type
    one, zero, least, shift, bottom = dtype(1), dtype(0), dtype(floor), dtype(offset), dtype(lowest)
    bound, inverse_bound = dtype(LOG_SCALE_BOUND), dtype(1 / LOG_SCALE_BOUND)
    top = theta[0, start:stop]
    for n in range(m):
        work[U + n] = top[n]
        work[W + n] = zero
    for k in range(1, count):
        logits = theta[k, start:stop]
        for n in range(m):
            work[U + n] = logits[n] if logits[n] > work[U + n] else work[U + n]
    for k in range(count):
        at = k * SLOT
        logits, means, raw = theta[k, start:stop], theta[count + k, start:stop], theta[2 * count + k, start:stop]
        for n in range(m):
            low = logits[n] - work[U + n]
            w = exp_negative(low)
            w = w if low > bottom else zero
            work[W + n] += w
            slots[at + WEIGHT + n] = w
            slots[at + MEAN + n] = means[n]
        if bent:
            for n in range(m):
                slots[at + SHAPE + n] = tanh(raw[n] * inverse_bound)
            for n in range(m):
                slots[at + RATE + n] = exp_bounded(-bound * slots[at + SHAPE + n])
        else:
            for n in range(m):
                soft = softplus(raw[n] + shift)
                slots[at + SHAPE + n] = soft
                slots[at + RATE + n] = one / (soft + least)


@part
def evaluate(work: Any, slots: Any, count: int, m: int, lowest: float, steps: int) -> None:
    """From x in work, and the slots: all other rows of work but the weights' sum."""
    dtype = work.dtype.type
    zero, one, two, half, root_2pi, bottom = dtype(0), dtype(1), dtype(2), dtype(0.5), dtype(ROOT_2PI), dtype(lowest)
    infinity = dtype(math.inf)
    for n in range(m):
        work[U + n] = infinity
        work[E + n] = -infinity
        work[UPPER + n] = zero
        work[LOWER + n] = zero
        work[MASS + n] = zero
    for k in range(count):
        at = k * SLOT
        for n in range(m):
            q = (work[X + n] - slots[at + MEAN + n]) * slots[at + RATE + n]
            work[U + n] = q if q < work[U + n] else work[U + n]
            work[E + n] = q if q > work[E + n] else work[E + n]
    for n in range(m):
        low, high = work[U + n], work[E + n]
        work[REACH + n] = high if high > -low else -low
        u = low if low > -high else -high
        work[U + n] = u if u > zero else zero
    for k in range(count):
        at = k * SLOT
        for n in range(m):
            u, v = work[U + n], abs((work[X + n] - slots[at + MEAN + n]) * slots[at + RATE + n])
            exponent = (u - v) * (v + u) * half
            e = exp_negative(exponent)
            a = slots[at + WEIGHT + n] * (e if exponent > bottom else zero)
            work[E + n] = a
            work[MASS + n] += a * slots[at + RATE + n]
        for n in range(m):
            q = (work[X + n] - slots[at + MEAN + n]) * slots[at + RATE + n]
            beyond = work[E + n] * mills(abs(q))
            # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
            rest = slots[at + WEIGHT + n] - beyond
            work[UPPER + n] += beyond if q >= zero else rest
            work[LOWER + n] += rest if q >= zero else beyond
    # as refnaf.reference.normal.excess
    for n in range(m):
        work[RATIO + n] = mills(work[U + n])
    for n in range(m):
        upper, lower = work[UPPER + n], work[LOWER + n]
        log_part = log((upper if upper < lower else lower) / (work[W + n] * work[RATIO + n]))
        work[PART + n] = log_part if log_part < zero else zero
        scale = work[RATIO + n] * root_2pi
        linear = -work[PART + n] * scale
        work[E + n] = two * linear / (one + np.sqrt(one + two * linear * scale))
    for _ in range(steps):
        for n in range(m):
            u, e = work[U + n], work[E + n]
            there = mills(u + e)
            scale = there * root_2pi
            newton = (e * (u + half * e) - log(there / work[RATIO + n]) + work[PART + n]) * scale
            work[E + n] = e - newton / (one - half * newton * (one / scale - u - e))


@part
def is_far(work: Any, n: int, smallest: float, farthest: float) -> bool:
    """Whether a column's sums have lost digits, or its squares may overflow. NaN counts."""
    least = min(min(work[UPPER + n], work[LOWER + n]), work[MASS + n])
    return not (least >= smallest and max(work[REACH + n], work[MASS + n]) <= farthest)


@part
def results(work: Any, m: int, y: Any, log_slope: Any) -> None:
    """y and log dy/dx of what :func:`evaluate` left."""
    half = work.dtype.type(0.5)
    for n in range(m):
        u, e = work[U + n], work[E + n]
        y[n] = u + e if work[UPPER + n] < work[LOWER + n] else -(u + e)
        log_slope[n] = log(work[MASS + n] / work[W + n]) + e * (u + half * e)
