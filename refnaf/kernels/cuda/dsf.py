"""Deep sigmoidal flow (reference: :mod:`refnaf.reference.dsf`): forward, VJP and inverse, a sample a thread.

The equations are those of :mod:`refnaf.kernels.array.dsf`. Backward reads the raw pseudo-parameters again and evaluates
the units anew: to write what forward found and read it would take longer. What forward keeps is a column's largest
logit and its three sums; a sum of :data:`FAR` marks a column for the log domain (:mod:`refnaf.kernels.far`).
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from refnaf.kernels import far as log_domain
from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.cuda.arrays import plain
from refnaf.kernels.cuda.compiler import kernel, part
from refnaf.kernels.cuda.elementary import functions
from refnaf.kernels.cuda.root import solver
from refnaf.kernels.far import LOG_T, OUTPUT_ROWS, SCRATCH_ROWS, UNIT_ROWS, H
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: In place of the sum S+ of a column that is far.
FAR = -1.0


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.dsf.dsf`."""
    return options.keys() <= {"floor"}


def forward(
    x: Any, theta: Any, *, ws: Any, floor: float = SLOPE_FLOOR, keep: bool = True, overwrite: bool = False
) -> tuple[Any, Any, Any]:
    """x ``(D, N)``, theta ``(D, 3 d, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; theta is read again there, and never overwritten.
    """
    x, theta = plain(x), plain(theta)
    dims, size, count = theta.shape
    y, log_slope = ws.take(x.shape, x.dtype), ws.take(x.shape, x.dtype)
    sums = ws.take((4, dims, count if keep else 0), x.dtype)
    run = kernels(x.dtype.type, size // 3)
    run.forward.columns(dims, count, x, theta, y, log_slope, sums, keep, *_constants(floor))
    return y, log_slope, (x, theta, sums, floor) if keep else None


def vjp(saved: Any, grad_y: Any, grad_log_slope: Any, ws: Any) -> tuple[Any, Any, list[Any]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 d, N)``."""
    x, theta, sums, floor = saved
    dims, size, count = theta.shape
    grad_x, grad_theta = ws.take(x.shape, x.dtype), ws.take(theta.shape, x.dtype)
    grads = plain(grad_y), plain(grad_log_slope), grad_x, grad_theta
    kernels(x.dtype.type, size // 3).vjp.columns(dims, count, x, theta, sums, *grads, *_constants(floor))
    return grad_x, grad_theta, []


def inverse(y: Any, theta: Any, *, ws: Any, floor: float = SLOPE_FLOOR) -> tuple[Any, Any, Any]:
    """y ``(N,)``, theta ``(3 d, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    found = tuple(np.empty_like(y) for _ in range(3))
    kernels(y.dtype.type, len(theta) // 3).inverse.columns(1, len(y), y, theta[None], *found, *_constants(floor))
    return found


def _constants(floor: float) -> tuple[float, float]:
    return float(inverse_softplus(1 - floor)), float(floor)


@cache
def kernels(dtype: Any, d: int) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64 and d units."""
    f, far = functions(dtype), log_domain.make(part, dtype)
    exp_negative, expm1_negative, log, softplus = f.exp_negative, f.expm1_negative, f.log, f.softplus
    far_forward, far_vjp = far.forward, far.vjp
    zero, one, infinity, marked = dtype(0), dtype(1), dtype(math.inf), dtype(FAR)
    least = dtype(SMALLEST[np.dtype(dtype)])

    @part
    def largest(theta: Any, i: Any, n: Any) -> Any:
        top = theta[i, 2 * d, n]
        for j in range(2 * d + 1, 3 * d):
            top = max(top, theta[i, j, n])
        return top

    @part
    def sigmoids(p: Any) -> Any:
        """s(p) and s(-p)."""
        e = exp_negative(-abs(p))
        r = one / (one + e)
        small = e * r
        return (r, small) if p >= zero else (small, r)

    @part
    def sums_at(x: Any, theta: Any, i: Any, n: Any, top: Any, offset: Any, floor: Any) -> Any:
        """S+, S- and M."""
        s_plus, s_minus, mass = zero, zero, zero
        for j in range(d):
            a = softplus(theta[i, j, n] + offset) + floor
            w = exp_negative(theta[i, 2 * d + j, n] - top)
            plus, minus = sigmoids(a * x + theta[i, d + j, n])
            s_plus += w * plus
            s_minus += w * minus
            mass += w * (plus * minus) * a
        return s_plus, s_minus, mass

    @part
    def results(s_plus: Any, s_minus: Any, mass: Any) -> Any:
        return log(s_plus / s_minus), log((mass / s_plus) * ((s_plus + s_minus) / s_minus))

    @kernel(dtype, "23223bff")
    def forward(x: Any, theta: Any, y: Any, log_slope: Any, sums: Any, keep: bool, offset: Any, floor: Any) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        top = largest(theta, i, n)
        s_plus, s_minus, mass = sums_at(x[i, n], theta, i, n, top, offset, floor)
        if min(s_plus, s_minus, mass) >= least:
            y[i, n], log_slope[i, n] = results(s_plus, s_minus, mass)
        else:
            units, outputs = cuda.local.array((1, UNIT_ROWS, d), dtype), cuda.local.array((1, OUTPUT_ROWS, d), dtype)
            scratch, none = cuda.local.array((SCRATCH_ROWS, d), dtype), cuda.local.array(d, dtype)
            for j in range(d):
                none[j] = zero
            far_forward(x[i, n], theta[i, :, n], none, d, 1, offset, floor, units, outputs, scratch)
            y[i, n], log_slope[i, n], s_plus = outputs[0, H, 0], outputs[0, LOG_T, 0], marked
        if keep:
            sums[0, i, n], sums[1, i, n], sums[2, i, n], sums[3, i, n] = top, s_plus, s_minus, mass

    @kernel(dtype, "2332223ff")
    def vjp(
        x: Any,
        theta: Any,
        sums: Any,
        grad_y: Any,
        grad_log_slope: Any,
        grad_x: Any,
        grad_theta: Any,
        offset: Any,
        floor: Any,
    ) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        at, g, lam = x[i, n], grad_y[i, n], grad_log_slope[i if grad_log_slope.shape[0] > 1 else 0, n]
        top, s_plus, s_minus, mass = sums[0, i, n], sums[1, i, n], sums[2, i, n], sums[3, i, n]
        if s_plus == marked:
            units, outputs = cuda.local.array((1, UNIT_ROWS, d), dtype), cuda.local.array((1, OUTPUT_ROWS, d), dtype)
            scratch, none = cuda.local.array((SCRATCH_ROWS, d), dtype), cuda.local.array(d, dtype)
            for j in range(d):
                none[j] = zero
            far_forward(at, theta[i, :, n], none, d, 1, offset, floor, units, outputs, scratch)
            pulled = grad_theta[i, :, n]
            grad_x[i, n] = far_vjp(theta[i, :, n], none, d, d, 1, offset, units, outputs, scratch, g, lam, pulled, none)
            return
        c_plus, c_minus, c_mass, c_weight = (
            (g - lam) / s_plus,
            (g + lam) / s_minus,
            lam / mass,
            lam / (s_plus + s_minus),
        )
        on_x = zero
        for j in range(d):
            soft = softplus(theta[i, j, n] + offset)
            a = soft + floor
            w = exp_negative(theta[i, 2 * d + j, n] - top)
            plus, minus = sigmoids(a * at + theta[i, d + j, n])
            wq = w * (plus * minus)
            on_p = wq * (c_plus + c_minus + c_mass * a * (minus - plus))
            grad_theta[i, j, n] = (on_p * at + wq * c_mass) * -expm1_negative(-soft)
            grad_theta[i, d + j, n] = on_p
            grad_theta[i, 2 * d + j, n] = w * (plus * c_plus - minus * c_minus + c_weight) + wq * a * c_mass
            on_x += on_p * a
        grad_x[i, n] = on_x

    @part
    def evaluate(at: Any, theta: Any, n: Any, top: Any, offset: Any, floor: Any, room: Any) -> Any:
        s_plus, s_minus, mass = sums_at(at, theta, 0, n, top, offset, floor)
        if min(s_plus, s_minus, mass) >= least:
            return results(s_plus, s_minus, mass)
        units, outputs, scratch, none = room
        far_forward(at, theta[0, :, n], none, d, 1, offset, floor, units, outputs, scratch)
        return outputs[0, H, 0], outputs[0, LOG_T, 0]

    solve = solver(dtype, evaluate)

    @kernel(dtype, "13111ff")
    def inverse(y: Any, theta: Any, x: Any, log_slope: Any, residual: Any, offset: Any, floor: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n >= y.shape[0]:
            return
        top = largest(theta, 0, n)
        units, outputs = cuda.local.array((1, UNIT_ROWS, d), dtype), cuda.local.array((1, OUTPUT_ROWS, d), dtype)
        scratch, none = cuda.local.array((SCRATCH_ROWS, d), dtype), cuda.local.array(d, dtype)
        low, high = infinity, -infinity
        # y is a generalised mean of the p_j
        for j in range(d):
            none[j] = zero
            at_root = (y[n] - theta[0, d + j, n]) / (softplus(theta[0, j, n] + offset) + floor)
            low, high = min(low, at_root), max(high, at_root)
        room = units, outputs, scratch, none
        root, slope, off = solve(y[n], low, high, theta, n, top, offset, floor, room)
        x[n], log_slope[n], residual[n] = root, -slope, off

    return SimpleNamespace(forward=forward, vjp=vjp, inverse=inverse)
