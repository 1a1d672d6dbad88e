"""Deep sigmoidal flow (reference: :mod:`refnaf.reference.dsf`) with its analytic VJP.

With ``A = S+``, ``B = S-``, ``M = sum_j w_j a_j q_j``, ``q = s(p) s(-p)``, and g, l the cotangents of y, log dy/dx, put
``cA = (g - l) / A``, ``cB = (g + l) / B``, ``cM = l / M``; then

    dp_j = w_j q_j (cA + cB + cM a_j (s(-p_j) - s(p_j))),      da_j = dp_j x + w_j q_j cM,      db_j = dp_j,
    d(raw w)_j = w_j (s(p_j) cA - s(-p_j) cB + cM a_j q_j + l),      dx = sum_j dp_j a_j.

Where an epsilon is added to the slopes in the log-derivative, the a_j in M and beside cM have it too. A steepness k
takes the place of p by k p and that of y by y / k.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from refnaf.kernels.array.rare import SMALLEST, RareColumns
from refnaf.kernels.array.stable import clip_logit_vjp, exp_shifted, sigmoid_pair, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import dsf as reference
from refnaf.reference.stable import SLOPE_FLOOR


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *,
    ws: Workspace,
    clip: float = 0.0,
    floor: float = SLOPE_FLOOR,
    steepness: float = 1.0,
    epsilon: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 3 d, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs."""
    d = theta.shape[1] // 3
    dtype = x.dtype
    with np.errstate(all="ignore"):
        a, da_draw = slopes(theta[:, :d], ws, floor)
        in_mass = a + epsilon if epsilon else a
        w = exp_shifted(theta[:, 2 * d :], ws)
        w /= np.sum(w, axis=1, keepdims=True)
        p = ws.take(a.shape, dtype)
        np.multiply(a, x[:, None], out=p)
        p += theta[:, d : 2 * d]
        if steepness != 1:
            p *= steepness
        plus, minus = sigmoid_pair(p, ws)
        product = p
        np.multiply(w, plus, out=product)
        s_plus = np.sum(product, axis=1)
        wq = ws.take(a.shape, dtype)
        np.multiply(product, minus, out=wq)
        np.multiply(w, minus, out=product)
        s_minus = np.sum(product, axis=1)
        np.multiply(wq, in_mass, out=product)
        mass = np.sum(product, axis=1)
        log_plus, log_minus = np.log(s_plus), np.log(s_minus)
        y = log_plus - log_minus
        if steepness != 1:
            y *= 1 / steepness
        log_slope = np.log(mass) - log_plus - log_minus
        least = np.minimum(np.minimum(s_plus, s_minus), mass)
    rare = None
    where = ~(least >= SMALLEST[dtype])
    if where.any():
        options = {"floor": floor, "steepness": steepness, "epsilon": epsilon}
        rare = RareColumns(functools.partial(reference.dsf, **options), where, x, theta)
        rare.patch(y, log_slope)
    exact = y if clip else None
    y, log_slope = reference.clipped(y, log_slope, clip)
    fixed = (rare, exact, clip, steepness)
    return y, log_slope, (x, a, in_mass, da_draw, w, plus, minus, wq, s_plus, s_minus, mass, *fixed)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 d, N)``."""
    x, a, in_mass, da_draw, w, plus, minus, wq, s_plus, s_minus, mass, rare, exact, clip, steepness = saved
    if exact is not None:
        slope, dlog = clip_logit_vjp(exact, clip, ws)
        grad_y = grad_y * slope + grad_log_slope * dlog
    on_logit = grad_y if steepness == 1 else grad_y * (1 / steepness)
    dims, d, n = a.shape
    grad_theta = ws.take((dims, 3 * d, n), x.dtype)
    ga, gb, gw = grad_theta[:, :d], grad_theta[:, d : 2 * d], grad_theta[:, 2 * d :]
    t = ws.take(a.shape, x.dtype)
    with np.errstate(all="ignore"):
        c_plus = ((on_logit - grad_log_slope) / s_plus)[:, None]
        c_minus = ((on_logit + grad_log_slope) / s_minus)[:, None]
        c_mass = (grad_log_slope / mass)[:, None]
        # raw weights
        np.multiply(plus, c_plus, out=gw)
        np.multiply(minus, c_minus, out=t)
        gw -= t
        gw += np.broadcast_to(grad_log_slope, grad_y.shape)[:, None]
        gw *= w
        np.multiply(wq, in_mass, out=t)
        t *= c_mass
        gw += t
        # p, and through it b, a and x
        np.subtract(minus, plus, out=gb)
        gb *= in_mass
        gb *= c_mass
        gb += c_plus + c_minus
        gb *= wq
        if steepness != 1:
            gb *= steepness
        np.multiply(gb, x[:, None], out=ga)
        np.multiply(wq, c_mass, out=t)
        ga += t
        ga *= da_draw
        np.multiply(gb, a, out=t)
        grad_x = np.sum(t, axis=1)
    if rare is not None:
        rare.patch_vjp(grad_y, grad_log_slope, grad_x, grad_theta)
    return grad_x, grad_theta, []
