"""One column of a DSF or DDSF in the log domain: what the kernels do where sums would underflow.

Written once for every compiler and dtype (:func:`make`). The equations are those of
:func:`refnaf.reference.dsf.logit_of_mixture` and :func:`refnaf.reference.ddsf.layer`; a DSF is one layer whose matrix
adds nothing. Shared matrices come with largest entries of 0 in each row, one after the other in one vector
(:func:`refnaf.kernels.cpu.ddsf.pack`). With

    A_oj = w_oj s(p_j) / S+_o,   B_oj = w_oj s(-p_j) / S-_o,   M_oj = w_oj p_j' s(p_j) s(-p_j) / (sum over j of it)

every one of them a share in [0, 1], and g, l the cotangents of a layer's h and of the logarithm of its tangent,

    dp_j = sum_o (g - l) A s(-p) + (g + l) B s(p) + l M (s(-p) - s(p)),      d(log p')_j = sum_o l M,
    d(raw w)_oj = (g - l) A - (g + l) B + l (M + w),
    d(raw u)_ij = u_ij dv_i (h_j - v_i) + d(log v')_i (T_ij - u_ij),      T_ij = u_ij t_j / v'_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

#: Rows of what ``forward`` notes of a layer's units and outputs, and of the scratch that both functions take.
V, LOG_DV, P, SLOPE, UNIT_ROWS = range(5)
S_PLUS, S_MINUS, LINK, TOP, H, LOG_T, ABOVE, BELOW, TOTAL, OUTPUT_ROWS = range(10)
LOGS, ON_H, ON_T, ON_P, ON_LOG_DP, SCRATCH_ROWS = range(6)


def make(jit: Callable[[Any], Any], dtype: Any) -> SimpleNamespace:
    """The functions for ``dtype`` (np.float32 or np.float64), each passed through ``jit``.

    ``log1p_exp(x)``, ``log_sum(logs)`` (-inf for nothing but -inf), ``top(raw, start, d)`` (the largest of d numbers)
        what the others are made of
    ``forward(x, raw, matrices, d, layers, offset, floor, units, outputs, scratch)``
        fills ``units`` (layers, UNIT_ROWS, d) and ``outputs`` (layers, OUTPUT_ROWS, d) for x and raw ``(P,)``:
        ``outputs[layers - 1, H, 0]`` and ``[..., LOG_T, 0]`` are y and log dy/dx
    ``vjp(raw, matrices, size, d, layers, offset, units, outputs, scratch, grad_y, grad_log_slope, grad_raw,
    grad_matrices)``
        cotangents of y and log dy/dx to that of x, which is returned, and of raw; those of the ``size`` entries of the
        matrices are added

    ``scratch`` is (SCRATCH_ROWS, d). All arrays are of the dtype.
    """
    zero, infinity = dtype(0), dtype(math.inf)

    @jit
    def log1p_exp(x: Any) -> Any:
        return max(x, zero) + math.log1p(math.exp(-abs(x)))

    @jit
    def log_sum(logs: Any) -> Any:
        top = -infinity
        for value in logs:
            top = max(top, value)
        if not top > -infinity:
            return top
        total = zero
        for value in logs:
            total += math.exp(value - top)
        return top + math.log(total)

    # taken away first, or a softmax would be rounded at the size of what cancels in it
    @jit
    def largest(raw: Any, start: int, d: int) -> Any:
        top = raw[start]
        for j in range(1, d):
            top = max(top, raw[start + j])
        return top

    @jit
    def forward(
        x: Any,
        raw: Any,
        matrices: Any,
        d: int,
        layers: int,
        offset: Any,
        floor: Any,
        units: Any,
        outputs: Any,
        scratch: Any,
    ) -> None:
        logs = scratch[LOGS]
        at, start = 0, 0
        for k in range(layers):
            top_w, top_u = largest(raw, start + 2 * d, d), largest(raw, start + 3 * d, d) if k > 0 else zero
            for i in range(d):
                if k == 0:
                    units[k, V, i], units[k, LOG_DV, i] = x, zero
                else:
                    for j in range(d):
                        logs[j] = matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u)
                    top = largest(logs, 0, d)
                    for j in range(d):
                        logs[j] -= top
                    total = log_sum(logs)
                    v = zero
                    for j in range(d):
                        logs[j] -= total
                        v += math.exp(logs[j]) * outputs[k - 1, H, j]
                        logs[j] += outputs[k - 1, LOG_T, j]
                    units[k, V, i], units[k, LOG_DV, i] = v, log_sum(logs)
                a = log1p_exp(raw[start + i] + offset) + floor
                units[k, SLOPE, i] = a
                units[k, P, i] = a * units[k, V, i] + raw[start + d + i]
            at += d * d if k > 0 else 0
            # what the units have in common is taken out of the logarithms: far out these are huge, their difference not
            above, below = infinity, infinity
            for j in range(d):
                above, below = min(above, units[k, P, j]), min(below, -units[k, P, j])
            above, below = max(above, zero), max(below, zero)
            outs = 1 if k == layers - 1 else d
            for o in range(outs):
                for j in range(d):
                    logs[j] = matrices[at + o * d + j] + (raw[start + 2 * d + j] - top_w)
                top = largest(logs, 0, d)
                for j in range(d):
                    logs[j] -= top
                total = log_sum(logs)
                outputs[k, TOP, o], outputs[k, TOTAL, o] = top, total
                for sign in range(3):
                    for j in range(d):
                        p = units[k, P, j]
                        tail = math.log1p(math.exp(-abs(p)))
                        log_plus, log_minus = -(max(-p, zero) - below + tail), -(max(p, zero) - above + tail)
                        logs[j] = matrices[at + o * d + j] + (raw[start + 2 * d + j] - top_w) - top - total
                        if sign == 0:
                            logs[j] += log_plus
                        elif sign == 1:
                            logs[j] += log_minus
                        else:
                            logs[j] += log_plus + log_minus + math.log(units[k, SLOPE, j]) + units[k, LOG_DV, j]
                    outputs[k, sign, o] = log_sum(logs)
                s_plus, s_minus = outputs[k, S_PLUS, o], outputs[k, S_MINUS, o]
                outputs[k, H, o] = s_plus - s_minus + (above - below)
                outputs[k, LOG_T, o] = outputs[k, LINK, o] - s_plus - s_minus
                outputs[k, ABOVE, o], outputs[k, BELOW, o] = above, below
            at += outs * d
            start += 4 * d if k > 0 else 3 * d

    @jit
    def vjp(
        raw: Any,
        matrices: Any,
        size: int,
        d: int,
        layers: int,
        offset: Any,
        units: Any,
        outputs: Any,
        scratch: Any,
        grad_y: Any,
        grad_log_slope: Any,
        grad_raw: Any,
        grad_matrices: Any,
    ) -> Any:
        on_h, on_t, on_p, on_log_dp = scratch[ON_H], scratch[ON_T], scratch[ON_P], scratch[ON_LOG_DP]
        for j in range(d):
            on_h[j], on_t[j] = zero, zero
        on_h[0], on_t[0] = grad_y, grad_log_slope
        at = size
        start = (4 * layers - 1) * d
        on_x = zero
        for k in range(layers - 1, -1, -1):
            start -= 4 * d if k > 0 else 3 * d
            outs = 1 if k == layers - 1 else d
            at -= outs * d
            top_w, top_u = largest(raw, start + 2 * d, d), largest(raw, start + 3 * d, d) if k > 0 else zero
            for j in range(d):
                on_p[j], on_log_dp[j], grad_raw[start + 2 * d + j] = zero, zero, zero
            for o in range(outs):
                g, lam = on_h[o], on_t[o]
                for j in range(d):
                    p = units[k, P, j]
                    tail = math.log1p(math.exp(-abs(p)))
                    plus, minus = math.exp(-(max(-p, zero) + tail)), math.exp(-(max(p, zero) + tail))
                    log_plus = -(max(-p, zero) - outputs[k, BELOW, o] + tail)
                    log_minus = -(max(p, zero) - outputs[k, ABOVE, o] + tail)
                    log_w = matrices[at + o * d + j] + (raw[start + 2 * d + j] - top_w)
                    log_w = log_w - outputs[k, TOP, o] - outputs[k, TOTAL, o]
                    share_plus = math.exp(log_w + log_plus - outputs[k, S_PLUS, o])
                    share_minus = math.exp(log_w + log_minus - outputs[k, S_MINUS, o])
                    log_dp = math.log(units[k, SLOPE, j]) + units[k, LOG_DV, j]
                    share = math.exp(log_w + log_plus + log_minus + log_dp - outputs[k, LINK, o])
                    on_p[j] += (g - lam) * share_plus * minus + (g + lam) * share_minus * plus
                    on_p[j] += lam * share * (minus - plus)
                    on_log_dp[j] += lam * share
                    on_w = (g - lam) * share_plus - (g + lam) * share_minus + lam * (share + math.exp(log_w))
                    grad_raw[start + 2 * d + j] += on_w
                    grad_matrices[at + o * d + j] += on_w
            for j in range(d):
                on_h[j], on_t[j] = zero, zero
            if k > 0:
                at -= d * d
                for j in range(d):
                    grad_raw[start + 3 * d + j] = zero
            for i in range(d):
                a = units[k, SLOPE, i]
                slope = -math.expm1(-log1p_exp(raw[start + i] + offset))
                grad_raw[start + i] = (on_p[i] * units[k, V, i] + on_log_dp[i] / a) * slope
                grad_raw[start + d + i] = on_p[i]
                on_v = on_p[i] * a
                if k == 0:
                    on_x += on_v
                    continue
                top = -infinity
                for j in range(d):
                    top = max(top, matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u))
                norm = zero
                for j in range(d):
                    norm += math.exp(matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u) - top)
                total = math.log(norm)
                for j in range(d):
                    log_u = matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u) - top - total
                    u = math.exp(log_u)
                    share = math.exp(log_u + outputs[k - 1, LOG_T, j] - units[k, LOG_DV, i])
                    on_h[j] += on_v * u
                    on_t[j] += on_log_dp[i] * share
                    on_u = u * on_v * (outputs[k - 1, H, j] - units[k, V, i]) + on_log_dp[i] * (share - u)
                    grad_raw[start + 3 * d + j] += on_u
                    grad_matrices[at + i * d + j] += on_u
        return on_x

    return SimpleNamespace(log1p_exp=log1p_exp, log_sum=log_sum, top=largest, forward=forward, vjp=vjp)
