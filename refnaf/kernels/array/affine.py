"""Affine transformers (reference: :mod:`refnaf.reference.affine`) with their analytic VJPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.stable import sigmoid_pair, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.affine import LOG_SCALE_BOUND, Limit, limits
from refnaf.reference.affine import affine as reference_affine
from refnaf.reference.stable import SLOPE_FLOOR


def forward(x: np.ndarray, theta: np.ndarray, *, ws: Workspace, **options: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 2, N)`` (shift or mean, raw scale) to y, log dy/dx and what :func:`vjp` needs."""
    y, log_slope = reference_affine(x, np.moveaxis(theta, 1, 0), **options)
    return y, np.broadcast_to(log_slope, y.shape), (x, theta, options)


def bend_slope(raw: np.ndarray, how: str, limit: Limit) -> tuple[np.ndarray, np.ndarray | float]:
    """:func:`refnaf.reference.affine.bend` and its derivative."""
    if how == "tanh":
        bent = np.tanh(raw * (1 / limit))
        return limit * bent, 1 - bent * bent
    if how == "squash":
        inside = 1 / (1 + np.abs(raw) * (1 / limit))
        return raw * inside, inside * inside
    if how == "clamp":
        low, high = limits(limit)
        return np.clip(raw, low, high), ((raw >= low) & (raw <= high)).astype(raw.dtype)
    return raw, 1.0


def _scale(
    raw: np.ndarray,
    ws: Workspace,
    form: str = "exp",
    how: str = "tanh",
    limit: Limit = LOG_SCALE_BOUND,
    floor: float = SLOPE_FLOOR,
    clip: float = 0.0,
) -> tuple[np.ndarray, Any, Any]:
    """The scale, its derivative by the raw scale, and that of its logarithm."""
    if form == "softplus":
        scale, dscale = slopes(raw, ws, floor)
        return scale, dscale, dscale / scale
    if form == "sigmoid":
        plus, minus = sigmoid_pair(raw, ws)
        scale = plus + raw.dtype.type(floor)
        return scale, plus * minus, plus * minus / scale
    bent, slope = bend_slope(raw, how, limit)
    if form == "exp":
        scale = np.exp(bent)
        return scale, scale * slope, slope
    plus, minus = sigmoid_pair(bent, ws)
    if clip == 0:
        return plus, plus * minus * slope, minus * slope
    scale, dscale = plus * (1 - clip) + clip / 2, plus * minus * slope * (1 - clip)
    return scale, dscale, dscale / scale


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 2, N)``."""
    x, theta, options = saved
    scale, dscale, dlog = _scale(theta[:, 1], ws, **options)
    grad_theta = ws.take(theta.shape, theta.dtype)
    if options["form"] == "gated":
        grad_theta[:, 0] = grad_y * (1 - scale)
        x = x - theta[:, 0]
    else:
        grad_theta[:, 0] = grad_y
    grad_theta[:, 1] = grad_y * x * dscale + grad_log_slope * dlog
    return grad_y * scale, grad_theta, []
