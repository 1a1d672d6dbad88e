"""Means of lines under an activation (reference: :mod:`refnaf.reference.mean`) with their analytic VJP.

With ``s = dy/dT(y)``, ``S_j = w_j T(p_j) s`` and ``B_j = w_j T'(p_j) s``, the shares ``R_j`` of the sum
``sum_j w_j a_j T'(p_j)``, and g, l the cotangents of y, log dy/dx, put ``G = g - l`` where T bends at y (the ELU's
negative side, on which ``log s = -y``), else ``G = g``; then

    dp_j = G B_j + l R_j (log T')'(p_j),      da_j = dp_j x + l R_j / a_j,      db_j = dp_j,
    d(raw w)_j = G (S_j - w_j sum_i S_i) + l (R_j - w_j),      dx = sum_j dp_j a_j.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.stable import slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import mean as reference
from refnaf.reference.stable import SLOPE_FLOOR, log_softmax, logsumexp


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *,
    ws: Workspace,
    activation: str = "elu",
    floor: float = SLOPE_FLOOR,
    epsilon: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 3 d, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs."""
    d = theta.shape[1] // 3
    a, da_draw = slopes(theta[:, :d], ws, floor)
    p = a * x[:, None] + theta[:, d : 2 * d]
    log_w = log_softmax(theta[:, 2 * d :], axis=1)
    lines, weights = np.moveaxis(p, 1, 0), np.moveaxis(log_w, 1, 0)
    if activation == "elu":
        y, log_outer, log_inner = reference.elu_mean(lines, weights, epsilon)
    else:
        y, log_outer, log_inner = reference.leaky_mean(lines, weights)
    parts = weights + np.log(np.moveaxis(a, 1, 0) + a.dtype.type(epsilon)) + log_inner
    total = logsumexp(parts)
    shares = np.moveaxis(np.exp(parts - total), 0, 1)
    inner = np.moveaxis(np.exp(weights + log_inner + log_outer), 0, 1)
    return y, total + log_outer, (x, a, da_draw, p, log_w, y, inner, shares, activation, epsilon)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 d, N)``."""
    x, a, da_draw, p, log_w, y, inner, shares, activation, epsilon = saved
    grad_log_slope = np.broadcast_to(grad_log_slope, grad_y.shape)[:, None]
    w, d = np.exp(log_w), a.shape[1]
    if activation == "elu":
        # T + 1 takes the place of T: the weights' cotangents are the same, and nothing cancels where T is near -1
        on_mean = np.where(y < 0, grad_y - grad_log_slope[:, 0], grad_y)[:, None]
        if epsilon:  # y stays at 0 where M is within epsilon of 1
            below = np.sum(w * (np.maximum(p, 0) + np.expm1(np.minimum(p, 0))), axis=1) < 0
            on_mean = np.where(((y == 0) & below)[:, None], 0, on_mean)
        terms = inner * (1 + np.maximum(p, 0))
        bends = (p <= 0).astype(p.dtype)
    else:
        on_mean = grad_y[:, None]
        terms = inner * p
        bends = np.zeros_like(p)
    grad_theta = ws.take((a.shape[0], 3 * d, a.shape[2]), x.dtype)
    on_p = on_mean * inner + grad_log_slope * shares * bends
    grad_theta[:, :d] = (on_p * x[:, None] + grad_log_slope * shares / (a + a.dtype.type(epsilon))) * da_draw
    grad_theta[:, d : 2 * d] = on_p
    total = np.sum(terms, axis=1, keepdims=True)
    grad_theta[:, 2 * d :] = on_mean * (terms - w * total) + grad_log_slope * (shares - w)
    return np.sum(on_p * a, axis=1), grad_theta, []
