"""Affine transformers (reference: :mod:`refnaf.reference.affine`): forward and VJP, compiled, each in one pass.

Compiled are the forms of the default models: "exp" and "gated" with a tanh around the raw log-scale, and "softplus".
For the VJP the bent log-scale or gate, or the softplus, takes the place of the raw scale: one exponential is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace, split
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.elementary import exp_bounded, exp_negative, expm1_negative, log, log1p_unit, softplus, tanh
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: Samples a block of scratch.
BLOCK = 256
_RAW = 2 * BLOCK
EXP, GATED, SOFTPLUS = range(3)
_CODES = {"exp": EXP, "gated": GATED, "softplus": SOFTPLUS}
#: Log-scales may be bent to stay within this: their exponentials are normal numbers of either dtype.
_WIDEST = 80.0


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.affine.affine`."""
    form = options.get("form", "exp")
    if form == "softplus":
        return options.get("floor", SLOPE_FLOOR) > 0
    limit = options.get("limit", LOG_SCALE_BOUND)
    bends = options.get("how", "tanh") == "tanh" and isinstance(limit, (int, float)) and 0 < limit <= _WIDEST
    return form in ("exp", "gated") and bends and options.get("clip", 0.0) == 0


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *,
    ws: Workspace,
    keep: bool = True,
    overwrite: bool = False,
    form: str = "exp",
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 2, N)`` (shift or mean, raw scale) to y and log dy/dx ``(D, N)``, and what :func:`vjp`
    needs.

    Nothing is kept for a VJP without ``keep``; with ``overwrite`` it is kept in theta itself. Raises ValueError for
    options that are not compiled (:func:`supports`).
    """
    if not supports({"form": form, **options}):
        raise ValueError(f"the compiled affine transformer has no form {form!r} with {options}: use backend='numpy'")
    x, theta = plain(x), plain(theta)
    y, log_slope = np.empty_like(x), np.empty_like(x)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)
    code, limit = _CODES[form], float(options.get("limit", LOG_SCALE_BOUND))
    floor = float(options.get("floor", SLOPE_FLOOR))
    offset = float(inverse_softplus(1 - floor))
    arrays = x, theta, y, log_slope, kept

    def run(_: Workspace, part: slice) -> None:
        _forward(*(a[part] for a in arrays), keep, code, limit, floor, offset)

    ws.share(run, *split(len(x)), theta.size)
    return y, log_slope, (x, kept, code, limit, floor) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 2, N)``."""
    x, kept, code, limit, floor = saved
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    arrays = x, kept, plain(grad_y), plain(grad_log_slope), grad_x, grad_theta

    def run(_: Workspace, part: slice) -> None:
        # one row of cotangents may be that of all
        _vjp(*(a if len(a) == 1 else a[part] for a in arrays), code, limit, floor)

    ws.share(run, *split(len(x)), kept.size)
    return grad_x, grad_theta, []


@kernel
def _forward(
    x: Any,
    theta: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    keep: bool,
    code: int,
    limit: float,
    floor: float,
    offset: float,
) -> None:
    dims, count = x.shape
    dtype = x.dtype.type
    one, zero, bound, rate = dtype(1), dtype(0), dtype(limit), dtype(1 / limit)
    least, shift = dtype(floor), dtype(offset)
    # rows: y, log dy/dx, what stands for the raw scale
    work = np.empty(3 * BLOCK, x.dtype)
    for i in range(dims):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, first, raw = x[i, start:stop], theta[i, 0, start:stop], theta[i, 1, start:stop]
            # one function a loop: the constants of two fill the registers
            if code == SOFTPLUS:
                for n in range(m):
                    work[_RAW + n] = softplus(raw[n] + shift)
                for n in range(m):
                    work[n] = (work[_RAW + n] + least) * xs[n] + first[n]
                    work[BLOCK + n] = log(work[_RAW + n] + least)
            else:
                for n in range(m):
                    work[_RAW + n] = bound * tanh(raw[n] * rate)
            if code == EXP:
                for n in range(m):
                    work[n] = exp_bounded(work[_RAW + n]) * xs[n] + first[n]
                    work[BLOCK + n] = work[_RAW + n]
            if code == GATED:
                for n in range(m):
                    gate = work[_RAW + n]
                    e = exp_negative(-abs(gate))
                    r = one / (one + e)
                    small = e * r
                    plus = r if gate >= zero else small
                    minus = small if gate >= zero else r
                    work[n] = plus * xs[n] + minus * first[n]
                    work[BLOCK + n] = (zero if gate >= zero else gate) - log1p_unit(e)
            ys, logs = y[i, start:stop], log_slope[i, start:stop]
            for n in range(m):
                ys[n] = work[n]
                logs[n] = work[BLOCK + n]
            if keep:
                first_kept, scale_kept = kept[i, 0, start:stop], kept[i, 1, start:stop]
                for n in range(m):
                    first_kept[n] = first[n]
                    scale_kept[n] = work[_RAW + n]


@kernel
def _vjp(
    x: Any,
    kept: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    code: int,
    limit: float,
    floor: float,
) -> None:
    dims, count = x.shape
    dtype = x.dtype.type
    one, zero, rate, least = dtype(1), dtype(0), dtype(1 / limit), dtype(floor)
    # rows: the cotangents of x, of shift or mean, and of the raw scale
    work = np.empty(3 * BLOCK, x.dtype)
    for i in range(dims):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, first, scales = x[i, start:stop], kept[i, 0, start:stop], kept[i, 1, start:stop]
            gs, ls = grad_y[i, start:stop], grad_log_slope[i if len(grad_log_slope) > 1 else 0, start:stop]
            if code == EXP:
                for n in range(m):
                    t = scales[n] * rate
                    slope = one - t * t
                    on_x = gs[n] * exp_bounded(scales[n])
                    work[n] = on_x
                    work[BLOCK + n] = gs[n]
                    # where the slope is 0, x times the scale may be infinite
                    work[_RAW + n] = on_x * slope * xs[n] + ls[n] * slope
            elif code == GATED:
                for n in range(m):
                    gate = scales[n]
                    t = gate * rate
                    slope = one - t * t
                    e = exp_negative(-abs(gate))
                    r = one / (one + e)
                    small = e * r
                    plus = r if gate >= zero else small
                    minus = small if gate >= zero else r
                    on_x = gs[n] * plus
                    work[n] = on_x
                    work[BLOCK + n] = gs[n] * minus
                    inside = minus * slope
                    work[_RAW + n] = on_x * inside * (xs[n] - first[n]) + ls[n] * inside
            else:
                for n in range(m):
                    soft = scales[n]
                    scale = soft + least
                    slope = -expm1_negative(-soft)
                    work[n] = gs[n] * scale
                    work[BLOCK + n] = gs[n]
                    work[_RAW + n] = gs[n] * slope * xs[n] + ls[n] * (slope / scale)
            on_xs, on_first, on_raw = grad_x[i, start:stop], grad_theta[i, 0, start:stop], grad_theta[i, 1, start:stop]
            for n in range(m):
                on_xs[n] = work[n]
                on_first[n] = work[BLOCK + n]
                on_raw[n] = work[_RAW + n]
