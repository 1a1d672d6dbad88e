"""One column of a mixture of Gaussians in the log domain: what the kernels do where sums would underflow.

Written once for every compiler and dtype (:func:`make`). The equations are those of
:func:`refnaf.reference.mixture.mixture_quantile`, and of the VJP in :mod:`refnaf.kernels.array.mixture`. Every quantity
that can overflow is held within :data:`HUGE`, so that differences and products of two are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from refnaf.kernels import far as log_domain
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.normal import STEPS

#: Far below the largest number: a few of these add up to a number, and Mills' ratio there is a normal one.
HUGE = {np.float32: 1e37, np.float64: 1e307}
#: Distances beyond these, whose squares might overflow, are for the log domain; so are densities.
FARTHEST = {np.float32: 1e18, np.float64: 1e150}
#: Beyond this distance the tail of the standard normal is ``exp(-u^2 / 2) / u`` to all digits.
_ASYMPTOTIC = {np.float32: 1e4, np.float64: 1e8}
#: A softplus no larger has lost digits to underflow, and is the exponential.
_SOFTPLUS = {np.float32: float(np.finfo(np.float32).tiny), np.float64: 0.0}
#: Rows of what ``forward`` notes of the components, and what it returns: ``A`` is ``log(w_k E_k)``, ``UPPER``,
#: ``LOWER`` and ``DENSITY`` are the component's parts of the tails and of the density, all logarithms.
LOG_W, Q, LOG_S, DLOG, A, UPPER, LOWER, DENSITY, COMPONENT_ROWS = range(9)
Y, LOG_SLOPE, TAIL, MASS, RESULTS = range(5)


def make(jit: Callable[[Any], Any], dtype: Any, mills: Any) -> SimpleNamespace:
    """The functions for ``dtype`` (np.float32 or np.float64), each passed through ``jit``.

    ``mills`` is the compiler's own of :mod:`refnaf.kernels.scalar`.

    ``excess(u, log_part)``
        :func:`refnaf.reference.normal.excess` of one number
    ``forward(x, raw, bent, floor, offset, notes, out)``
        fills ``notes`` (COMPONENT_ROWS, K) and ``out`` (RESULTS,) for x and raw ``(3 K,)``: ``out[Y]`` and
        ``out[LOG_SLOPE]`` are y and log dy/dx. Scales are ``bent`` exponentials, or softplus functions of raw plus
        ``offset``, plus ``floor``
    ``vjp(notes, out, grad_y, grad_log_slope, grad_raw)``
        cotangents of y and log dy/dx to that of x, which is returned, and of raw

    All arrays are of the dtype.
    """
    far = log_domain.make(jit, dtype)
    log1p_exp, log_sum, largest = far.log1p_exp, far.log_sum, far.top
    zero, one, two, half, infinity = dtype(0), dtype(1), dtype(2), dtype(0.5), dtype(math.inf)
    huge, asymptotic, lost = dtype(HUGE[dtype]), dtype(_ASYMPTOTIC[dtype]), dtype(_SOFTPLUS[dtype])
    # of its exponential; written out, as Python's own raises an error where others overflow
    largest_log = dtype(math.log(np.finfo(dtype).max))
    bound, root_2pi = dtype(LOG_SCALE_BOUND), dtype(math.sqrt(2 * math.pi))
    steps = STEPS[np.dtype(dtype)]

    # by comparisons, which leave NaN: the largest and the least of two numbers are, on a GPU, the one that is not
    @jit
    def held(value: Any) -> Any:
        low = -huge if value < -huge else value
        return huge if low > huge else low

    @jit
    def inverse_exp(x: Any) -> Any:
        return infinity if -x > largest_log else math.exp(-x)

    @jit
    def excess(u: Any, log_part: Any) -> Any:
        if u > asymptotic:
            linear = -log_part / u
            return two * linear / (one + math.sqrt(one + two * linear / u))
        ratio = mills(u)
        linear = -log_part * (ratio * root_2pi)
        e = two * linear / (one + math.sqrt(one + two * linear * (ratio * root_2pi)))
        for _ in range(steps):
            there = mills(u + e)
            newton = (e * (u + half * e) - math.log(there / ratio) + log_part) * (there * root_2pi)
            e -= newton / (one - half * newton * (one / (there * root_2pi) - u - e))
        return e

    @jit
    def forward(x: Any, raw: Any, bent: bool, floor: Any, offset: Any, notes: Any, out: Any) -> None:
        count = len(raw) // 3
        log_w, q, log_s = notes[LOG_W], notes[Q], notes[LOG_S]
        top = largest(raw, 0, count)
        # or the weights would be rounded at the size of what cancels in them
        for k in range(count):
            log_w[k] = raw[k] - top
        total = log_sum(log_w)
        nearest, farthest = infinity, -infinity
        for k in range(count):
            log_w[k] = held(log_w[k] - total)
            scale = raw[2 * count + k]
            if bent:
                t = math.tanh(scale / bound)
                log_s[k], notes[DLOG, k] = bound * t, one - t * t
            else:
                soft = log1p_exp(scale + offset)
                s = soft + floor
                log_s[k] = math.log(s) if s > lost else scale + offset
                notes[DLOG, k] = -math.expm1(-soft) / s if s > lost else one
            gap = x - raw[count + k]
            q[k] = held(gap * inverse_exp(log_s[k])) if gap != zero else zero
            nearest, farthest = min(nearest, q[k]), max(farthest, q[k])
        u = max(nearest, -farthest, zero)
        for k in range(count):
            v = abs(q[k])
            decay = min(half * (v - u) * (v + u), huge) if v > u else zero
            beyond = math.log(mills(v)) - decay
            # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
            rest = math.log1p(-math.exp(beyond))
            notes[A, k] = log_w[k] - decay
            notes[DENSITY, k] = notes[A, k] - log_s[k]
            notes[UPPER, k] = log_w[k] + (beyond if q[k] >= zero else rest)
            notes[LOWER, k] = log_w[k] + (rest if q[k] >= zero else beyond)
        upper, lower = log_sum(notes[UPPER]), log_sum(notes[LOWER])
        out[TAIL], out[MASS] = min(upper, lower), log_sum(notes[DENSITY])
        log_part = out[TAIL] - math.log(mills(u))
        e = excess(u, zero if log_part > zero else log_part)
        out[Y] = u + e if upper < lower else -(u + e)
        out[LOG_SLOPE] = out[MASS] + e * (u + half * e)

    @jit
    def vjp(notes: Any, out: Any, grad_y: Any, grad_log_slope: Any, grad_raw: Any) -> Any:
        count = len(grad_raw) // 3
        whole = grad_y + grad_log_slope * out[Y]
        log_ratio = math.log(mills(abs(out[Y])))
        through_tail = math.copysign(root_2pi, out[Y]) * math.exp(log_ratio) * whole
        parts = notes[UPPER] if math.copysign(one, out[Y]) > zero else notes[LOWER]
        on_x = zero
        for k in range(count):
            log_s, q, w = notes[LOG_S, k], notes[Q, k], math.exp(notes[LOG_W, k])
            r = math.exp(notes[DENSITY, k] - out[MASS])
            p = math.exp(parts[k] - out[TAIL])
            share = math.exp(notes[A, k] + log_ratio - out[TAIL])
            on_q = held(share * whole - grad_log_slope * r * q)
            grad_raw[k] = grad_log_slope * (r - w) - through_tail * (p - w)
            on_place = held(on_q * min(inverse_exp(log_s), huge))
            grad_raw[count + k] = -on_place
            on_x += on_place
            grad_raw[2 * count + k] = -held(on_q * q + grad_log_slope * r) * notes[DLOG, k]
        return on_x

    return SimpleNamespace(excess=excess, forward=forward, vjp=vjp)
