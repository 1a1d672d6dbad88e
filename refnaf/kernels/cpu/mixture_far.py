"""One column of a mixture of Gaussians in the log domain and in float64, where the kernels' sums would underflow.

The equations are those of :func:`refnaf.reference.mixture.mixture_quantile`, and of the VJP in
:mod:`refnaf.kernels.array.mixture`. Every quantity that can overflow is held within :data:`HUGE`, so that
differences and products of two are numbers.
"""

from __future__ import annotations

import math
from typing import Any

from refnaf.kernels.cpu.compiler import part
from refnaf.kernels.cpu.elementary import mills
from refnaf.kernels.cpu.far import log1p_exp, log_sum
from refnaf.kernels.cpu.far import top as largest
from refnaf.reference.affine import LOG_SCALE_BOUND

HUGE = 1e307
#: Beyond this distance the tail of the standard normal is ``exp(-u^2 / 2) / u`` to all digits.
_ASYMPTOTIC = 1e8
#: Rows of what :func:`mixture_far` notes of the components, and what it returns: ``A`` is ``log(w_k E_k)``, ``UPPER``,
#: ``LOWER`` and ``DENSITY`` are the component's parts of the tails and of the density, all logarithms.
LOG_W, Q, LOG_S, DLOG, A, UPPER, LOWER, DENSITY, COMPONENT_ROWS = range(9)
Y, LOG_SLOPE, TAIL, MASS, RESULTS = range(5)
_ROOT = math.sqrt(2 * math.pi)


@part
def _held(value: float) -> float:
    """The value within :data:`HUGE`."""
    return min(max(value, -HUGE), HUGE)


@part
def _far_excess(u: float, log_part: float) -> float:
    """:func:`refnaf.reference.normal.excess` of one number."""
    if u > _ASYMPTOTIC:
        linear = -log_part / u
        return 2 * linear / (1 + math.sqrt(1 + 2 * linear / u))
    ratio = mills(u)
    linear = -log_part * (ratio * _ROOT)
    e = 2 * linear / (1 + math.sqrt(1 + 2 * linear * (ratio * _ROOT)))
    for _ in range(3):
        there = mills(u + e)
        newton = (e * (u + 0.5 * e) - math.log(there / ratio) + log_part) * (there * _ROOT)
        e -= newton / (1 - 0.5 * newton * (1 / (there * _ROOT) - u - e))
    return e


@part
def mixture_far(x: float, raw: Any, bent: bool, floor: float, offset: float, notes: Any, out: Any) -> None:
    """Fill ``notes`` (COMPONENT_ROWS, K) and ``out`` (RESULTS,) for x and raw ``(3 K,)``, all float64."""
    count = len(raw) // 3
    log_w, q, log_s = notes[LOG_W], notes[Q], notes[LOG_S]
    top = largest(raw, 0, count)
    # or the weights would be rounded at the size of what cancels in them
    for k in range(count):
        log_w[k] = raw[k] - top
    total = log_sum(log_w)
    nearest, farthest = math.inf, -math.inf
    for k in range(count):
        log_w[k] = max(log_w[k] - total, -HUGE)
        scale = raw[2 * count + k]
        if bent:
            t = math.tanh(scale / LOG_SCALE_BOUND)
            log_s[k], notes[DLOG, k] = LOG_SCALE_BOUND * t, 1 - t * t
        else:
            soft = log1p_exp(scale + offset)
            s = soft + floor
            # a softplus that underflows is the exponential
            log_s[k] = math.log(s) if s > 0 else scale + offset
            notes[DLOG, k] = -math.expm1(-soft) / s if s > 0 else 1.0
        gap = x - raw[count + k]
        q[k] = _held(gap * math.exp(-log_s[k])) if gap != 0 else 0.0
        nearest, farthest = min(nearest, q[k]), max(farthest, q[k])
    u = max(nearest, -farthest, 0.0)
    for k in range(count):
        v = abs(q[k])
        decay = min(0.5 * (v - u) * (v + u), HUGE) if v > u else 0.0
        beyond = math.log(mills(v)) - decay
        # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
        rest = math.log1p(-math.exp(beyond))
        notes[A, k] = log_w[k] - decay
        notes[DENSITY, k] = notes[A, k] - log_s[k]
        notes[UPPER, k] = log_w[k] + (beyond if q[k] >= 0 else rest)
        notes[LOWER, k] = log_w[k] + (rest if q[k] >= 0 else beyond)
    upper, lower = log_sum(notes[UPPER]), log_sum(notes[LOWER])
    out[TAIL], out[MASS] = min(upper, lower), log_sum(notes[DENSITY])
    e = _far_excess(u, min(out[TAIL] - math.log(mills(u)), 0.0))
    out[Y] = u + e if upper < lower else -(u + e)
    out[LOG_SLOPE] = out[MASS] + e * (u + 0.5 * e)


@part
def mixture_far_vjp(notes: Any, out: Any, grad_y: float, grad_log_slope: float, grad_raw: Any) -> float:
    """Cotangents of y and log dy/dx to that of x, which is returned, and of raw."""
    count = len(grad_raw) // 3
    whole = grad_y + grad_log_slope * out[Y]
    log_ratio = math.log(mills(abs(out[Y])))
    through_tail = math.copysign(_ROOT, out[Y]) * math.exp(log_ratio) * whole
    parts = notes[UPPER] if math.copysign(1.0, out[Y]) > 0 else notes[LOWER]
    on_x = 0.0
    for k in range(count):
        log_s, q, w = notes[LOG_S, k], notes[Q, k], math.exp(notes[LOG_W, k])
        r = math.exp(notes[DENSITY, k] - out[MASS])
        p = math.exp(parts[k] - out[TAIL])
        share = math.exp(notes[A, k] + log_ratio - out[TAIL])
        on_q = _held(share * whole - grad_log_slope * r * q)
        grad_raw[k] = grad_log_slope * (r - w) - through_tail * (p - w)
        on_place = _held(on_q * min(math.exp(-log_s), HUGE))
        grad_raw[count + k] = -on_place
        on_x += on_place
        grad_raw[2 * count + k] = -_held(on_q * q + grad_log_slope * r) * notes[DLOG, k]
    return on_x
