"""Deep sigmoidal flow (reference: :mod:`refnaf.reference.dsf`): forward, VJP and inverse, compiled.

The equations are those of :mod:`refnaf.kernels.array.dsf`, a block of samples at a time, whose scratch stays in the
first-level cache. What the VJP needs may overwrite the raw pseudo-parameters: for each unit softplus(a), ``exp(-|p|)``
with the sign of p, and ``exp(w - max)``, from which backward has everything with one exponential a unit. A column whose
sums would underflow keeps its raw numbers and is done by :mod:`.far`.

A loop that a compiler is to make vector instructions of may write through few pointers; hence one scratch array with
rows at fixed offsets, and copies out of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import SMALLEST, plain, widest
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.elementary import exp_negative, expm1_negative, log, softplus
from refnaf.kernels.cpu.far import LOG_T, H, far_forward, far_vjp
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: Samples a block, and offsets of the scratch's rows.
BLOCK = 64
#: In place of S+: the column is one for the log domain.
FAR = -1.0
_B2, _B3, _B4, _B5 = (k * BLOCK for k in range(2, 6))


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.dsf.dsf`."""
    return options.keys() <= {"floor"}


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *,
    ws: Workspace,
    floor: float = SLOPE_FLOOR,
    keep: bool = True,
    overwrite: bool = False,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 3 d, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; with ``overwrite`` it is kept in theta itself.
    """
    x, theta = plain(x), plain(theta)
    y, log_slope = np.empty_like(x), np.empty_like(x)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)
    sums = ws.take((3, *x.shape) if keep else (3, 0, 0), x.dtype)
    _forward(x, theta, y, log_slope, kept, sums, keep, inverse_softplus(1 - floor), floor, SMALLEST[x.dtype])
    return y, log_slope, (x, kept, sums, floor) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 d, N)``."""
    x, kept, sums, floor = saved
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    grads = plain(grad_y), plain(grad_log_slope), grad_x, grad_theta
    _vjp(x, kept, sums, *grads, inverse_softplus(1 - floor), floor)
    return grad_x, grad_theta, []


def inverse(
    y: np.ndarray, theta: np.ndarray, *, floor: float = SLOPE_FLOOR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y ``(N,)``, theta ``(3 d, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    offset, least = inverse_softplus(1 - floor), SMALLEST[y.dtype]
    eps = float(np.finfo(y.dtype).eps)
    _inverse(y, theta, x, log_slope, residual, offset, floor, least, eps, widest(y.dtype))
    return x, log_slope, residual


@part
def _far(x: Any, raw: Any, offset: float, floor: float, units: Any, outputs: Any) -> None:
    d = len(raw) // 3
    far_forward(np.float64(x), raw, np.zeros(d), d, 1, offset, floor, units, outputs)


@kernel
def _forward(
    x: Any,
    theta: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    sums: Any,
    keep: bool,
    offset: float,
    floor: float,
    smallest: float,
) -> None:
    dims, size, count = theta.shape
    d = size // 3
    dtype = x.dtype.type
    one, zero, shift, least_slope, least = dtype(1), dtype(0), dtype(offset), dtype(floor), dtype(smallest)
    # rows of work: max, S+, S-, M, x; of slots, for each unit: softplus, signed e, w
    work, slots = np.empty(_B5, x.dtype), np.empty(size * BLOCK, x.dtype)
    raw, units, outputs = np.empty(size), np.empty((1, 4, d)), np.empty((1, 8, d))
    for i in range(dims):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, raw_w = x[i, start:stop], theta[i, 2 * d, start:stop]
            for n in range(m):
                work[n] = raw_w[n]
                work[BLOCK + n] = zero
                work[_B2 + n] = zero
                work[_B3 + n] = zero
                work[_B4 + n] = xs[n]
            for j in range(1, d):
                raw_w = theta[i, 2 * d + j, start:stop]
                for n in range(m):
                    work[n] = raw_w[n] if raw_w[n] > work[n] else work[n]
            for j in range(d):
                raw_a, raw_b = theta[i, j, start:stop], theta[i, d + j, start:stop]
                raw_w = theta[i, 2 * d + j, start:stop]
                at = 3 * j * BLOCK
                for n in range(m):
                    soft = softplus(raw_a[n] + shift)
                    a = soft + least_slope
                    w = exp_negative(raw_w[n] - work[n])
                    p = a * work[_B4 + n] + raw_b[n]
                    e = exp_negative(-abs(p))
                    r = one / (one + e)
                    small = e * r
                    plus = r if p >= zero else small
                    minus = small if p >= zero else r
                    work[BLOCK + n] += w * plus
                    work[_B2 + n] += w * minus
                    work[_B3 + n] += w * (plus * minus) * a
                    slots[at + n] = soft
                    slots[at + BLOCK + n] = math.copysign(e, p)
                    slots[at + _B2 + n] = w
            ys, logs = y[i, start:stop], log_slope[i, start:stop]
            for n in range(m):
                s_plus, s_minus, mass = work[BLOCK + n], work[_B2 + n], work[_B3 + n]
                ys[n] = log(s_plus / s_minus)
                logs[n] = log((mass / s_plus) * ((s_plus + s_minus) / s_minus))
            for n in range(m):
                if not min(work[BLOCK + n], work[_B2 + n], work[_B3 + n]) >= least:
                    for j in range(size):
                        raw[j] = theta[i, j, start + n]
                        slots[(3 * (j % d) + j // d) * BLOCK + n] = theta[i, j, start + n]
                    _far(x[i, start + n], raw, offset, floor, units, outputs)
                    ys[n], logs[n] = outputs[0, H, 0], outputs[0, LOG_T, 0]
                    work[BLOCK + n] = FAR
            if keep:
                for k in range(3):
                    row = sums[k, i, start:stop]
                    for n in range(m):
                        row[n] = work[(k + 1) * BLOCK + n]
                    for j in range(d):
                        row, at = kept[i, k * d + j, start:stop], (3 * j + k) * BLOCK
                        for n in range(m):
                            row[n] = slots[at + n]


@kernel
def _vjp(
    x: Any,
    kept: Any,
    sums: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    offset: float,
    floor: float,
) -> None:
    dims, size, count = kept.shape
    d = size // 3
    dtype = x.dtype.type
    one, zero, least_slope = dtype(1), dtype(0), dtype(floor)
    # rows of work: x, cA, cB, cM, l / W, dx; of slots: the cotangents of a unit's a, b, w
    work, slots = np.empty(6 * BLOCK, x.dtype), np.empty(3 * BLOCK, x.dtype)
    raw, units, outputs = np.empty(size), np.empty((1, 4, d)), np.empty((1, 8, d))
    column, none = np.empty(size), np.zeros(d)
    for i in range(dims):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, gs = x[i, start:stop], grad_y[i, start:stop]
            ls = grad_log_slope[i if len(grad_log_slope) > 1 else 0, start:stop]
            s_plus, s_minus, mass = sums[0, i, start:stop], sums[1, i, start:stop], sums[2, i, start:stop]
            for n in range(m):
                work[n] = xs[n]
                work[BLOCK + n] = (gs[n] - ls[n]) / s_plus[n]
                work[_B2 + n] = (gs[n] + ls[n]) / s_minus[n]
                work[_B3 + n] = ls[n] / mass[n]
                work[_B4 + n] = ls[n] / (s_plus[n] + s_minus[n])
                work[_B5 + n] = zero
            for j in range(d):
                softs, signed, weights = (
                    kept[i, j, start:stop],
                    kept[i, d + j, start:stop],
                    kept[i, 2 * d + j, start:stop],
                )
                for n in range(m):
                    a = softs[n] + least_slope
                    w = weights[n]
                    e = abs(signed[n])
                    r = one / (one + e)
                    small = e * r
                    above = math.copysign(one, signed[n]) > zero
                    plus = r if above else small
                    minus = small if above else r
                    c_plus, c_minus, c_mass = work[BLOCK + n], work[_B2 + n], work[_B3 + n]
                    wq = w * (plus * minus)
                    on_p = wq * (c_plus + c_minus + c_mass * a * (minus - plus))
                    slots[n] = (on_p * work[n] + wq * c_mass) * -expm1_negative(-softs[n])
                    slots[BLOCK + n] = on_p
                    slots[_B2 + n] = w * (plus * c_plus - minus * c_minus + work[_B4 + n]) + wq * a * c_mass
                    work[_B5 + n] += on_p * a
                for k in range(3):
                    out = grad_theta[i, k * d + j, start:stop]
                    for n in range(m):
                        out[n] = slots[k * BLOCK + n]
            out = grad_x[i, start:stop]
            for n in range(m):
                out[n] = work[_B5 + n]
            for n in range(m):
                if s_plus[n] == FAR:
                    for j in range(size):
                        raw[j] = kept[i, j, start + n]
                    _far(xs[n], raw, offset, floor, units, outputs)
                    g, lam = np.float64(gs[n]), np.float64(ls[n])
                    out[n] = far_vjp(raw, none, d, 1, offset, units, outputs, g, lam, column, none.copy())
                    for j in range(size):
                        grad_theta[i, j, start + n] = column[j]


@kernel
def _inverse(
    y: Any,
    theta: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    offset: float,
    floor: float,
    smallest: float,
    eps: float,
    widest: float,
) -> None:
    size, count = theta.shape
    d = size // 3
    dtype = y.dtype.type
    one, zero, shift, least_slope, least = dtype(1), dtype(0), dtype(offset), dtype(floor), dtype(smallest)
    # rows of work: max or x, S+, S-, M; of slots, for each unit: a, b, w
    work, slots = np.zeros(_B4, y.dtype), np.zeros(size * BLOCK, y.dtype)
    state = np.empty((root.ROWS, BLOCK), y.dtype)
    values, slopes = np.empty(BLOCK, y.dtype), np.empty(BLOCK, y.dtype)
    raw, units, outputs = np.empty(size), np.empty((1, 4, d)), np.empty((1, 8, d))
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        m = stop - start
        ys = y[start:stop]
        for j in range(d):
            raw_w = theta[2 * d + j, start:stop]
            for n in range(m):
                work[n] = raw_w[n] if j == 0 or raw_w[n] > work[n] else work[n]
        state[root.LOW], state[root.HIGH] = math.inf, -math.inf
        for j in range(d):
            raw_a, raw_b, raw_w = theta[j, start:stop], theta[d + j, start:stop], theta[2 * d + j, start:stop]
            at = 3 * j * BLOCK
            for n in range(m):
                slots[at + n] = softplus(raw_a[n] + shift) + least_slope
                slots[at + BLOCK + n] = raw_b[n]
                slots[at + _B2 + n] = exp_negative(raw_w[n] - work[n])
            # y is a generalised mean of the p_j
            for n in range(m):
                at_root = (ys[n] - raw_b[n]) / slots[at + n]
                state[root.LOW, n] = min(state[root.LOW, n], at_root)
                state[root.HIGH, n] = max(state[root.HIGH, n], at_root)
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, step = m, 0
        while left > 0 and step < root.ALL_STEPS:
            for n in range(BLOCK):
                work[n] = state[root.POINT, n]
                work[BLOCK + n] = zero
                work[_B2 + n] = zero
                work[_B3 + n] = zero
            for j in range(d):
                at = 3 * j * BLOCK
                for n in range(BLOCK):
                    a, w = slots[at + n], slots[at + _B2 + n]
                    p = a * work[n] + slots[at + BLOCK + n]
                    e = exp_negative(-abs(p))
                    r = one / (one + e)
                    small = e * r
                    plus = r if p >= zero else small
                    minus = small if p >= zero else r
                    work[BLOCK + n] += w * plus
                    work[_B2 + n] += w * minus
                    work[_B3 + n] += w * (plus * minus) * a
            for n in range(BLOCK):
                s_plus, s_minus, mass = work[BLOCK + n], work[_B2 + n], work[_B3 + n]
                values[n] = log(s_plus / s_minus)
                slopes[n] = log((mass / s_plus) * ((s_plus + s_minus) / s_minus))
            for n in range(m):
                if state[root.DONE, n] == 0 and not min(work[BLOCK + n], work[_B2 + n], work[_B3 + n]) >= least:
                    for j in range(size):
                        raw[j] = theta[j, start + n]
                    _far(work[n], raw, offset, floor, units, outputs)
                    values[n], slopes[n] = outputs[0, H, 0], outputs[0, LOG_T, 0]
            left = root.advance(state, ys, values, slopes, m, step, dtype(eps))
            step += 1
        for n in range(m):
            x[start + n] = state[root.ROOT, n]
            log_slope[start + n] = -state[root.LOG_SLOPE, n]
            residual[start + n] = state[root.RESIDUAL, n]
