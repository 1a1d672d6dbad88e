"""One column of a DSF or DDSF in the log domain and in float64: what the kernels do where sums would underflow.

The equations are those of :func:`refnaf.reference.dsf.logit_of_mixture` and :func:`refnaf.reference.ddsf.layer`; a DSF
is one layer whose matrix adds nothing. Shared matrices come with largest entries of 0 in each row, one after the other
in one vector (:func:`refnaf.kernels.cpu.ddsf.pack`). With

    A_oj = w_oj s(p_j) / S+_o,   B_oj = w_oj s(-p_j) / S-_o,   M_oj = w_oj p_j' s(p_j) s(-p_j) / (sum over j of it)

every one of them a share in [0, 1], and g, l the cotangents of a layer's h and of the logarithm of its tangent,

    dp_j = sum_o (g - l) A s(-p) + (g + l) B s(p) + l M (s(-p) - s(p)),      d(log p')_j = sum_o l M,
    d(raw w)_oj = (g - l) A - (g + l) B + l (M + w),
    d(raw u)_ij = u_ij dv_i (h_j - v_i) + d(log v')_i (T_ij - u_ij),      T_ij = u_ij t_j / v'_i.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.cpu.compiler import kernel, part

#: Rows of what :func:`far_forward` notes of a layer's units and outputs.
V, LOG_DV, P, SLOPE = 0, 1, 2, 3
S_PLUS, S_MINUS, LINK, TOP, H, LOG_T, ABOVE, BELOW, TOTAL = 0, 1, 2, 3, 4, 5, 6, 7, 8


@part
def _log1p_exp(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@part
def _log_sum(logs: Any) -> float:
    """``log(sum(exp(logs)))``; -inf for nothing but -inf."""
    top = -math.inf
    for value in logs:
        top = max(top, value)
    if not top > -math.inf:
        return top
    total = 0.0
    for value in logs:
        total += math.exp(value - top)
    return top + math.log(total)


@part
def _top(raw: Any, start: int, d: int) -> float:
    """The largest of d numbers: taken away first, or a softmax would be rounded at the size of what cancels in it."""
    top = raw[start]
    for j in range(1, d):
        top = max(top, raw[start + j])
    return top


@part
def far_forward(
    x: float, raw: Any, matrices: Any, d: int, layers: int, offset: float, floor: float, units: Any, outputs: Any
) -> None:
    """Fill ``units`` (layers, 4, d) and ``outputs`` (layers, 9, d) for x, raw ``(P,)`` and matrices, all float64.

    The last layer's ``outputs[layers - 1, H, 0]`` and ``[..., LOG_T, 0]`` are y and log dy/dx.
    """
    logs = np.empty(d)
    at, start = 0, 0
    for k in range(layers):
        top_w, top_u = _top(raw, start + 2 * d, d), _top(raw, start + 3 * d, d) if k > 0 else 0.0
        for i in range(d):
            if k == 0:
                units[k, V, i], units[k, LOG_DV, i] = x, 0.0
            else:
                for j in range(d):
                    logs[j] = matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u)
                top = _top(logs, 0, d)
                for j in range(d):
                    logs[j] -= top
                total = _log_sum(logs)
                v = 0.0
                for j in range(d):
                    logs[j] -= total
                    v += math.exp(logs[j]) * outputs[k - 1, H, j]
                    logs[j] += outputs[k - 1, LOG_T, j]
                units[k, V, i], units[k, LOG_DV, i] = v, _log_sum(logs)
            a = _log1p_exp(raw[start + i] + offset) + floor
            units[k, SLOPE, i] = a
            units[k, P, i] = a * units[k, V, i] + raw[start + d + i]
        at += d * d if k > 0 else 0
        # what the units have in common is taken out of the logarithms: far out these are huge, their difference is not
        above, below = math.inf, math.inf
        for j in range(d):
            above, below = min(above, units[k, P, j]), min(below, -units[k, P, j])
        above, below = max(above, 0.0), max(below, 0.0)
        outs = 1 if k == layers - 1 else d
        for o in range(outs):
            for j in range(d):
                logs[j] = matrices[at + o * d + j] + (raw[start + 2 * d + j] - top_w)
            top = _top(logs, 0, d)
            for j in range(d):
                logs[j] -= top
            total = _log_sum(logs)
            outputs[k, TOP, o], outputs[k, TOTAL, o] = top, total
            for sign in range(3):
                for j in range(d):
                    p = units[k, P, j]
                    tail = math.log1p(math.exp(-abs(p)))
                    log_plus, log_minus = -(max(-p, 0.0) - below + tail), -(max(p, 0.0) - above + tail)
                    logs[j] = matrices[at + o * d + j] + (raw[start + 2 * d + j] - top_w) - top - total
                    if sign == 0:
                        logs[j] += log_plus
                    elif sign == 1:
                        logs[j] += log_minus
                    else:
                        logs[j] += log_plus + log_minus + math.log(units[k, SLOPE, j]) + units[k, LOG_DV, j]
                outputs[k, sign, o] = _log_sum(logs)
            s_plus, s_minus = outputs[k, S_PLUS, o], outputs[k, S_MINUS, o]
            outputs[k, H, o] = s_plus - s_minus + (above - below)
            outputs[k, LOG_T, o] = outputs[k, LINK, o] - s_plus - s_minus
            outputs[k, ABOVE, o], outputs[k, BELOW, o] = above, below
        at += outs * d
        start += 4 * d if k > 0 else 3 * d


@part
def far_vjp(
    raw: Any,
    matrices: Any,
    d: int,
    layers: int,
    offset: float,
    units: Any,
    outputs: Any,
    grad_y: float,
    grad_log_slope: float,
    grad_raw: Any,
    grad_matrices: Any,
) -> float:
    """Cotangents of y and log dy/dx to that of x, which is returned, and of raw; those of the matrices are added."""
    on_h, on_t = np.zeros(d), np.zeros(d)
    on_p, on_log_dp = np.zeros(d), np.zeros(d)
    on_h[0], on_t[0] = grad_y, grad_log_slope
    at = len(matrices)
    start = len(raw)
    on_x = 0.0
    for k in range(layers - 1, -1, -1):
        start -= 4 * d if k > 0 else 3 * d
        outs = 1 if k == layers - 1 else d
        at -= outs * d
        top_w, top_u = _top(raw, start + 2 * d, d), _top(raw, start + 3 * d, d) if k > 0 else 0.0
        on_p[:], on_log_dp[:] = 0.0, 0.0
        grad_raw[start + 2 * d : start + 3 * d] = 0.0
        for o in range(outs):
            g, lam = on_h[o], on_t[o]
            for j in range(d):
                p = units[k, P, j]
                tail = math.log1p(math.exp(-abs(p)))
                plus, minus = math.exp(-(max(-p, 0.0) + tail)), math.exp(-(max(p, 0.0) + tail))
                log_plus = -(max(-p, 0.0) - outputs[k, BELOW, o] + tail)
                log_minus = -(max(p, 0.0) - outputs[k, ABOVE, o] + tail)
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
        on_h[:], on_t[:] = 0.0, 0.0
        if k > 0:
            at -= d * d
            grad_raw[start + 3 * d : start + 4 * d] = 0.0
        for i in range(d):
            a = units[k, SLOPE, i]
            slope = -math.expm1(-_log1p_exp(raw[start + i] + offset))
            grad_raw[start + i] = (on_p[i] * units[k, V, i] + on_log_dp[i] / a) * slope
            grad_raw[start + d + i] = on_p[i]
            on_v = on_p[i] * a
            if k == 0:
                on_x += on_v
                continue
            top = -math.inf
            for j in range(d):
                top = max(top, matrices[at + i * d + j] + (raw[start + 3 * d + j] - top_u))
            norm = 0.0
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


def far_scratch(size: int, layers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column of raw numbers, and what :func:`far_forward` notes."""
    d = (size + layers - 1) // (4 * layers - 1)
    return np.empty(size), np.empty((layers, 4, d)), np.empty((layers, 9, d))


@kernel
def far_columns(
    x: Any,
    theta: Any,
    matrices: Any,
    far: Any,
    y: Any,
    log_slope: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    column: Any,
    units: Any,
    outputs: Any,
) -> None:
    """y and log dy/dx ``(D, N)`` of the columns that are ``far``, of which theta ``(D, P, N)`` is raw."""
    dims, size, count = theta.shape
    for i in range(dims):
        for n in range(count):
            if far[i, n]:
                for j in range(size):
                    column[j] = theta[i, j, n]
                far_forward(np.float64(x[i, n]), column, matrices, d, layers, offset, floor, units, outputs)
                y[i, n], log_slope[i, n] = outputs[layers - 1, H, 0], outputs[layers - 1, LOG_T, 0]


@kernel
def far_columns_vjp(
    x: Any,
    theta: Any,
    matrices: Any,
    far: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    grad_matrices: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    column: Any,
    units: Any,
    outputs: Any,
) -> None:
    """Their cotangents ``(D, N)`` to those of x and theta, which are overwritten, and of the matrices, which grow."""
    dims, size, count = theta.shape
    pulled = np.empty(size)
    for i in range(dims):
        for n in range(count):
            if far[i, n]:
                for j in range(size):
                    column[j] = theta[i, j, n]
                far_forward(np.float64(x[i, n]), column, matrices, d, layers, offset, floor, units, outputs)
                g, lam = np.float64(grad_y[i, n]), np.float64(grad_log_slope[i, n])
                grad_x[i, n] = far_vjp(
                    column, matrices, d, layers, offset, units, outputs, g, lam, pulled, grad_matrices
                )
                for j in range(size):
                    grad_theta[i, j, n] = pulled[j]
