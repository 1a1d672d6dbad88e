"""Affine transformers (reference: :mod:`refnaf.reference.affine`): forward, VJP and inverse, a sample a thread.

The forms are those of :mod:`refnaf.kernels.cpu.affine`. Backward reads the raw pseudo-parameters again and bends the
scale anew: forward writes nothing for it.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from refnaf.kernels.cpu.affine import supports
from refnaf.kernels.cuda.arrays import plain
from refnaf.kernels.cuda.compiler import kernel, part
from refnaf.kernels.cuda.elementary import functions
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

__all__ = ["forward", "inverse", "kernels", "supports", "vjp"]


def forward(
    x: Any, theta: Any, *, ws: Any, keep: bool = True, overwrite: bool = False, form: str = "exp", **options: Any
) -> tuple[Any, Any, Any]:
    """x ``(D, N)``, theta ``(D, 2, N)`` (shift or mean, raw scale) to y and log dy/dx ``(D, N)``, and what :func:`vjp`
    needs.

    Nothing is kept for a VJP without ``keep``; theta is read again there, and never overwritten. Raises ValueError for
    options that are not compiled (:func:`supports`).
    """
    if not supports({"form": form, **options}):
        raise ValueError(f"the CUDA affine transformer has no form {form!r} with {options}: use backend='numpy'")
    x, theta = plain(x), plain(theta)
    y, log_slope = ws.take(x.shape, x.dtype), ws.take(x.shape, x.dtype)
    constants = _constants(form, **options)
    kernels(x.dtype.type, form).forward.columns(*x.shape, x, theta, y, log_slope, *constants)
    return y, log_slope, (x, theta, form, constants) if keep else None


def vjp(saved: Any, grad_y: Any, grad_log_slope: Any, ws: Any) -> tuple[Any, Any, list[Any]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 2, N)``."""
    x, theta, form, constants = saved
    grad_x, grad_theta = ws.take(x.shape, x.dtype), ws.take(theta.shape, x.dtype)
    grads = plain(grad_y), plain(grad_log_slope), grad_x, grad_theta
    kernels(x.dtype.type, form).vjp.columns(*x.shape, x, theta, *grads, *constants)
    return grad_x, grad_theta, []


def inverse(y: Any, theta: Any, *, ws: Any, form: str = "exp", **options: Any) -> tuple[Any, Any, Any]:
    """y ``(N,)``, theta ``(2, N)`` to x, log dx/dy and a residual of zero, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    x, log_slope = np.empty_like(y), np.empty_like(y)
    kernels(y.dtype.type, form).inverse.each(len(y), y, theta, x, log_slope, *_constants(form, **options))
    return x, log_slope, np.zeros_like(y)


def _constants(
    form: str, how: str = "tanh", limit: float = LOG_SCALE_BOUND, floor: float = SLOPE_FLOOR, clip: float = 0.0
) -> tuple[float, float]:
    """The offset and the floor of a softplus; of a bent log-scale the bound and its inverse."""
    return (float(inverse_softplus(1 - floor)), float(floor)) if form == "softplus" else (float(limit), 1 / limit)


@cache
def kernels(dtype: Any, form: str) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64 and "exp", "gated" or "softplus"."""
    f = functions(dtype)
    exp_bounded, exp_negative, expm1_negative = f.exp_bounded, f.exp_negative, f.expm1_negative
    log, log1p_unit, softplus, tanh = f.log, f.log1p_unit, f.softplus, f.tanh
    zero, one = dtype(0), dtype(1)

    @part
    def gates(gate: Any) -> Any:
        """s(gate), s(-gate) and ``exp(-|gate|)``."""
        e = exp_negative(-abs(gate))
        r = one / (one + e)
        small = e * r
        return (r, small, e) if gate >= zero else (small, r, e)

    if form == "softplus":

        @part
        def value(at: Any, shift: Any, raw: Any, offset: Any, floor: Any) -> Any:
            scale = softplus(raw + offset) + floor
            return scale * at + shift, log(scale)

        @part
        def solved(y: Any, shift: Any, raw: Any, offset: Any, floor: Any) -> Any:
            scale = softplus(raw + offset) + floor
            return (y - shift) / scale, -log(scale)

        @part
        def pulled(at: Any, shift: Any, raw: Any, g: Any, lam: Any, offset: Any, floor: Any) -> Any:
            soft = softplus(raw + offset)
            scale, slope = soft + floor, -expm1_negative(-soft)
            return g * scale, g, g * slope * at + lam * (slope / scale)

    elif form == "gated":

        @part
        def value(at: Any, mean: Any, raw: Any, bound: Any, rate: Any) -> Any:
            gate = bound * tanh(raw * rate)
            plus, minus, e = gates(gate)
            return plus * at + minus * mean, (zero if gate >= zero else gate) - log1p_unit(e)

        @part
        def solved(y: Any, mean: Any, raw: Any, bound: Any, rate: Any) -> Any:
            gate = bound * tanh(raw * rate)
            plus, minus, e = gates(gate)
            return (y - minus * mean) / plus, log1p_unit(e) - (zero if gate >= zero else gate)

        @part
        def pulled(at: Any, mean: Any, raw: Any, g: Any, lam: Any, bound: Any, rate: Any) -> Any:
            t = tanh(raw * rate)
            plus, minus, _ = gates(bound * t)
            on_x, inside = g * plus, minus * (one - t * t)
            return on_x, g * minus, on_x * inside * (at - mean) + lam * inside

    else:

        @part
        def value(at: Any, shift: Any, raw: Any, bound: Any, rate: Any) -> Any:
            alpha = bound * tanh(raw * rate)
            return exp_bounded(alpha) * at + shift, alpha

        @part
        def solved(y: Any, shift: Any, raw: Any, bound: Any, rate: Any) -> Any:
            alpha = bound * tanh(raw * rate)
            return (y - shift) * exp_bounded(-alpha), -alpha

        @part
        def pulled(at: Any, shift: Any, raw: Any, g: Any, lam: Any, bound: Any, rate: Any) -> Any:
            t = tanh(raw * rate)
            on_x, slope = g * exp_bounded(bound * t), one - t * t
            # where the slope is 0, x times the scale may be infinite
            return on_x, g, on_x * slope * at + lam * slope

    @kernel(dtype, "2322ff")
    def forward(x: Any, theta: Any, y: Any, log_slope: Any, first: Any, second: Any) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        y[i, n], log_slope[i, n] = value(x[i, n], theta[i, 0, n], theta[i, 1, n], first, second)

    @kernel(dtype, "232223ff")
    def vjp(
        x: Any, theta: Any, grad_y: Any, grad_log_slope: Any, grad_x: Any, grad_theta: Any, first: Any, second: Any
    ) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        g, lam = grad_y[i, n], grad_log_slope[i if grad_log_slope.shape[0] > 1 else 0, n]
        on_x, on_first, on_raw = pulled(x[i, n], theta[i, 0, n], theta[i, 1, n], g, lam, first, second)
        grad_x[i, n], grad_theta[i, 0, n], grad_theta[i, 1, n] = on_x, on_first, on_raw

    @kernel(dtype, "1211ff")
    def inverse(y: Any, theta: Any, x: Any, log_slope: Any, first: Any, second: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n < y.shape[0]:
            x[n], log_slope[n] = solved(y[n], theta[0, n], theta[1, n], first, second)

    return SimpleNamespace(forward=forward, vjp=vjp, inverse=inverse)
