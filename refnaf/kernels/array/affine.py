"""Affine transformers (reference: :mod:`refnaf.reference.affine`) with their analytic VJPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.stable import sigmoid_pair, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.affine import affine as reference_affine


def forward(x: np.ndarray, theta: np.ndarray, *, form: str, ws: Workspace) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 2, N)`` (shift or mean, raw scale) to y, log dy/dx and what :func:`vjp` needs."""
    y, log_slope = reference_affine(x, np.moveaxis(theta, 1, 0), form)
    return y, np.broadcast_to(log_slope, y.shape), (x, theta, form)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 2, N)``."""
    x, theta, form = saved
    shift, raw = theta[:, 0], theta[:, 1]
    grad_theta = ws.take(theta.shape, theta.dtype)
    if form == "softplus":
        scale, dscale = slopes(raw, ws)
        grad_theta[:, 0] = grad_y
        grad_theta[:, 1] = (grad_y * x + grad_log_slope / scale) * dscale
        return grad_y * scale, grad_theta, []
    bent = np.tanh(raw * (1 / LOG_SCALE_BOUND))
    dbent = 1 - bent * bent
    bent = LOG_SCALE_BOUND * bent
    if form == "exp":
        scale = np.exp(bent)
        grad_theta[:, 0] = grad_y
        grad_theta[:, 1] = (grad_y * scale * x + grad_log_slope) * dbent
        return grad_y * scale, grad_theta, []
    scale, rest = sigmoid_pair(bent, ws)
    grad_theta[:, 0] = grad_y * rest
    grad_theta[:, 1] = (grad_y * scale * rest * (x - shift) + grad_log_slope * rest) * dbent
    return grad_y * scale, grad_theta, []
