"""Deep sigmoidal flow (reference: :mod:`refnaf.reference.dsf`): forward, VJP and inverse, compiled.

The equations are those of :mod:`refnaf.kernels.array.dsf`, a block of samples at a time, whose scratch stays in the
first-level cache. What the VJP needs may overwrite the raw pseudo-parameters: for each unit softplus(a), ``exp(-|p|)``
with the sign of p, and ``exp(w - max)``, from which backward has everything with one exponential a unit. A column whose
sums would underflow keeps its raw numbers and is done by :mod:`.far`.

A loop that a compiler is to make vector instructions of may write through few pointers, at unsigned places: hence flat
arrays, and one scratch array with rows at fixed offsets, from which results are copied. Scratch comes from the caller:
to allocate it would take a second to compile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.array.root import widest
from refnaf.kernels.array.workspace import Workspace, split
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.elementary import exp_negative, expm1_negative, log, softplus
from refnaf.kernels.cpu.far import far_columns, far_columns_vjp, far_forward, far_scratch
from refnaf.kernels.far import LOG_T, H
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: Samples a block, and offsets of the scratch's rows.
BLOCK = 128
_U = np.uint64
_R1, _R2, _R3, _R4, _R5 = (_U(k * BLOCK) for k in range(1, 6))


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
    x, theta, floor = plain(x), plain(theta), float(floor)
    dims, size, count = theta.shape
    y, log_slope, far = np.empty_like(x), np.empty_like(x), np.zeros(x.shape, np.bool_)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)
    sums = ws.take((dims if keep else 0, 3, count), x.dtype)
    offset = float(inverse_softplus(1 - floor))

    def run(ws: Workspace, part: slice) -> bool:
        flat = [a[part].reshape(-1) for a in (x, theta, y, log_slope, kept, sums, far)]
        room = ws.own(("dsf", x.dtype, size), lambda: (np.empty(5 * BLOCK, x.dtype), np.empty(size * BLOCK, x.dtype)))
        return _forward(*flat, *room, keep, part.stop - part.start, size // 3, count, offset, floor, SMALLEST[x.dtype])

    if any(ws.share(run, *split(dims), theta.size)):
        far_columns(x, kept, np.zeros(size // 3), far, y, log_slope, size // 3, 1, offset, floor, *far_scratch(size, 1))
    return y, log_slope, (x, kept, sums, far, floor) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 d, N)``."""
    x, kept, sums, far, floor = saved
    dims, size, count = kept.shape
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    gy, gl = plain(grad_y), plain(np.broadcast_to(grad_log_slope, x.shape))

    def run(ws: Workspace, part: slice) -> None:
        flat = [a[part].reshape(-1) for a in (x, kept, sums, gy, gl, grad_x, grad_theta)]
        room = ws.own(("dsf back", x.dtype), lambda: np.empty(9 * BLOCK, x.dtype))
        _vjp(*flat, room, part.stop - part.start, size // 3, count, floor)

    ws.share(run, *split(dims), kept.size)
    if far.any():
        offset, none = float(inverse_softplus(1 - floor)), np.zeros(size // 3)
        grads = gy, gl, grad_x, grad_theta, none.copy()
        far_columns_vjp(x, kept, none, far, *grads, size // 3, 1, offset, floor, *far_scratch(size, 1))
    return grad_x, grad_theta, []


def inverse(
    y: np.ndarray, theta: np.ndarray, *, floor: float = SLOPE_FLOOR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y ``(N,)``, theta ``(3 d, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta, floor = plain(y), plain(theta), float(floor)
    size, count = theta.shape
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    offset, eps = float(inverse_softplus(1 - floor)), float(np.finfo(y.dtype).eps)
    work, slots = np.zeros(6 * BLOCK, y.dtype), np.zeros(size * BLOCK, y.dtype)
    state = np.empty((root.ROWS, BLOCK), y.dtype)
    found = theta.reshape(-1), x, log_slope, residual, work, slots, state
    limits = offset, floor, SMALLEST[y.dtype], eps, widest(y.dtype)
    _inverse(y, *found, np.zeros(size // 3), size // 3, count, *limits, *far_scratch(size, 1))
    return x, log_slope, residual


@part
def _largest(theta: Any, at: Any, rows: int, step: Any, m: Any, work: Any) -> None:
    """The largest of so many rows, a step apart, into the first of ``work``."""
    for j in range(rows):
        raw = at + _U(j) * step
        for n in range(m):
            work[n] = theta[raw + n] if j == 0 or theta[raw + n] > work[n] else work[n]


@part
def _add(work: Any, slots: Any, at: Any, signed: bool, m: Any) -> None:
    """A unit's part of S+, S- and M, for x in the fifth row of ``work`` and softplus + floor, b, w in ``slots``.

    With ``signed``, ``exp(-|p|)`` with the sign of p takes the place of b.
    """
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for n in range(m):
        a, w = slots[at + n], slots[at + _R2 + n]
        p = a * work[_R4 + n] + slots[at + _R1 + n]
        e = exp_negative(-abs(p))
        r = one / (one + e)
        small = e * r
        plus = r if p >= zero else small
        minus = small if p >= zero else r
        work[_R1 + n] += w * plus
        work[_R2 + n] += w * minus
        work[_R3 + n] += w * (plus * minus) * a
        if signed:
            slots[at + _R1 + n] = math.copysign(e, p)


@kernel
def _forward(
    x: Any,
    theta: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    sums: Any,
    far: Any,
    work: Any,
    slots: Any,
    keep: bool,
    dims: int,
    d: int,
    count: int,
    offset: float,
    floor: float,
    smallest: float,
) -> bool:
    """Fills y, log_slope, kept, sums and far; whether any column is far. Arrays are flat."""
    dtype = x.dtype.type
    zero, shift, least_slope, least = dtype(0), dtype(offset), dtype(floor), dtype(smallest)
    units, step = _U(d), _U(count)
    some = False
    # rows of work: max, S+, S-, M, x; of slots, for each unit: softplus, b or signed e, w
    for i in range(dims):
        for start in range(0, count, BLOCK):
            m = _U(min(BLOCK, count - start))
            here = _U(i * count + start)
            raw = _U(3 * i * d * count + start)
            _largest(theta, raw + _U(2) * units * step, d, step, m, work)
            for n in range(m):
                work[_R1 + n] = zero
                work[_R2 + n] = zero
                work[_R3 + n] = zero
                work[_R4 + n] = x[here + n]
            for j in range(d):
                at, a = _U(3 * j * BLOCK), raw + _U(j) * step
                b, w = a + units * step, a + _U(2) * units * step
                # one function a loop: the constants of several fill the registers
                for n in range(m):
                    slots[at + n] = softplus(theta[a + n] + shift) + least_slope
                for n in range(m):
                    slots[at + _R1 + n] = theta[b + n]
                for n in range(m):
                    slots[at + _R2 + n] = exp_negative(theta[w + n] - work[n])
                _add(work, slots, at, True, m)
            for n in range(m):
                s_plus, s_minus, mass = work[_R1 + n], work[_R2 + n], work[_R3 + n]
                y[here + n] = log(s_plus / s_minus)
                log_slope[here + n] = log((mass / s_plus) * ((s_plus + s_minus) / s_minus))
            for n in range(m):
                if not min(work[_R1 + n], work[_R2 + n], work[_R3 + n]) >= least:
                    far[here + n] = some = True
                    for j in range(3 * d):
                        slots[_U((3 * (j % d) + j // d) * BLOCK) + n] = theta[raw + _U(j) * step + n]
            if keep:
                for k in range(3):
                    row, out = _U((k + 1) * BLOCK), _U((3 * i + k) * count + start)
                    for n in range(m):
                        sums[out + n] = work[row + n]
                    for j in range(d):
                        out, row = raw + _U(k * d + j) * step, _U((3 * j + k) * BLOCK)
                        for n in range(m):
                            kept[out + n] = slots[row + n]
    return some


@kernel
def _vjp(
    x: Any,
    kept: Any,
    sums: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    work: Any,
    dims: int,
    d: int,
    count: int,
    floor: float,
) -> None:
    """Fills grad_x and grad_theta. Arrays are flat; of a column that is far the result has no meaning."""
    dtype = x.dtype.type
    one, zero, least_slope = dtype(1), dtype(0), dtype(floor)
    units, step = _U(d), _U(count)
    # rows of work: x, cA, cB, cM, l / W, dx, and the cotangents of a unit's a, b, w
    row_a, row_b, row_w = _U(6 * BLOCK), _U(7 * BLOCK), _U(8 * BLOCK)
    for i in range(dims):
        for start in range(0, count, BLOCK):
            m = _U(min(BLOCK, count - start))
            here, found = _U(i * count + start), _U(3 * i * count + start)
            raw = _U(3 * i * d * count + start)
            for n in range(m):
                s_plus, s_minus, mass = sums[found + n], sums[found + step + n], sums[found + step + step + n]
                g, lam = grad_y[here + n], grad_log_slope[here + n]
                work[n] = x[here + n]
                work[_R1 + n] = (g - lam) / s_plus
                work[_R2 + n] = (g + lam) / s_minus
                work[_R3 + n] = lam / mass
                work[_R4 + n] = lam / (s_plus + s_minus)
                work[_R5 + n] = zero
            for j in range(d):
                ra = raw + _U(j) * step
                rb, rw = ra + units * step, ra + _U(2) * units * step
                for n in range(m):
                    a, w, signed = kept[ra + n], kept[rw + n], kept[rb + n]
                    e = abs(signed)
                    r = one / (one + e)
                    small = e * r
                    above = math.copysign(one, signed) > zero
                    plus = r if above else small
                    minus = small if above else r
                    c_plus, c_minus, c_mass = work[_R1 + n], work[_R2 + n], work[_R3 + n]
                    wq = w * (plus * minus)
                    on_p = wq * (c_plus + c_minus + c_mass * a * (minus - plus))
                    work[row_a + n] = on_p * work[n] + wq * c_mass
                    work[row_b + n] = on_p
                    work[row_w + n] = w * (plus * c_plus - minus * c_minus + work[_R4 + n]) + wq * a * c_mass
                    work[_R5 + n] += on_p * a
                for n in range(m):
                    grad_theta[ra + n] = work[row_a + n] * -expm1_negative(least_slope - kept[ra + n])
                for n in range(m):
                    grad_theta[rb + n] = work[row_b + n]
                for n in range(m):
                    grad_theta[rw + n] = work[row_w + n]
            for n in range(m):
                grad_x[here + n] = work[_R5 + n]


@kernel
def _inverse(
    y: Any,
    theta: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    work: Any,
    slots: Any,
    state: Any,
    matrices: Any,
    d: int,
    count: int,
    offset: float,
    floor: float,
    smallest: float,
    eps: float,
    widest: float,
    column: Any,
    units: Any,
    outputs: Any,
    scratch: Any,
) -> None:
    dtype = y.dtype.type
    zero, shift, least_slope, least = dtype(0), dtype(offset), dtype(floor), dtype(smallest)
    step, lanes = _U(count), _U(BLOCK)
    for start in range(0, count, BLOCK):
        m = min(BLOCK, count - start)
        full, here = _U(m), _U(start)
        ys = y[start : start + m]
        _largest(theta, here + _U(2 * d) * step, d, step, full, work)
        state[root.LOW], state[root.HIGH] = math.inf, -math.inf
        for j in range(d):
            at, a = _U(3 * j * BLOCK), here + _U(j) * step
            b, w = a + _U(d) * step, a + _U(2 * d) * step
            for n in range(full):
                slots[at + n] = softplus(theta[a + n] + shift) + least_slope
                slots[at + _R1 + n] = theta[b + n]
                slots[at + _R2 + n] = exp_negative(theta[w + n] - work[n])
            # y is a generalised mean of the p_j
            for n in range(full):
                at_root = (ys[n] - slots[at + _R1 + n]) / slots[at + n]
                state[root.LOW, n] = min(state[root.LOW, n], at_root)
                state[root.HIGH, n] = max(state[root.HIGH, n], at_root)
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, steps = m, 0
        values, slopes = work[:BLOCK], work[5 * BLOCK :]
        while left > 0 and steps < root.ALL_STEPS:
            for n in range(lanes):
                work[_R4 + n] = state[root.POINT, n]
                work[_R1 + n] = zero
                work[_R2 + n] = zero
                work[_R3 + n] = zero
            for j in range(d):
                _add(work, slots, _U(3 * j * BLOCK), False, lanes)
            for n in range(lanes):
                s_plus, s_minus, mass = work[_R1 + n], work[_R2 + n], work[_R3 + n]
                values[n] = log(s_plus / s_minus)
                slopes[n] = log((mass / s_plus) * ((s_plus + s_minus) / s_minus))
            for n in range(full):
                if state[root.DONE, n] == 0 and not min(work[_R1 + n], work[_R2 + n], work[_R3 + n]) >= least:
                    for j in range(3 * d):
                        column[j] = theta[here + _U(j) * step + n]
                    far_forward(
                        np.float64(work[_R4 + n]), column, matrices, d, 1, offset, floor, units, outputs, scratch
                    )
                    values[n], slopes[n] = outputs[0, H, 0], outputs[0, LOG_T, 0]
            left = root.advance(state, ys, values, slopes, m, steps, dtype(eps))
            steps += 1
        root.finish(state, start, m, x, log_slope, residual)
