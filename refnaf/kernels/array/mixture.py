"""Mixture-of-Gaussians conditionals (reference: :mod:`refnaf.reference.mixture`) with their analytic VJP.

With ``a_k = w_k E_k``, the tail ``T`` of the mixture on the side of y (sign ``o``), its density
``M = sum_k a_k / s_k``, its responsibilities ``r_k = a_k / (s_k M)`` and those of the tail ``p_k``, g and l the
cotangents of y and log dy/dx, and ``G = g + l y``:

    dq_k = a_k R(|y|) G / T - l r_k q_k,      dm_k = -dq_k / s_k,      d(log s)_k = -dq_k q_k - l r_k,
    d(logit)_k = l (r_k - w_k) - o sqrt(2 pi) R(|y|) G (p_k - w_k),      dx = sum_k dq_k / s_k.

Under a standard normal base ``g = -l y``: G is 0, and what is left is the gradient of ``log f``.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from refnaf.kernels.array.rare import SMALLEST, RareColumns
from refnaf.kernels.array.stable import exp_shifted, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import mixture as reference
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.normal import RISE, excess
from refnaf.reference.normal import mills as small_mills

_ROOT = float(np.sqrt(2 * np.pi))


def mills(u: np.ndarray, ws: Workspace) -> np.ndarray:
    """:func:`refnaf.reference.normal.mills` in reused buffers."""
    v = ws.take(u.shape, u.dtype)
    np.add(u, 2, out=v)
    np.divide(2, v, out=v)
    parts = []
    for coefficients in RISE[u.dtype]:
        out = ws.take(u.shape, u.dtype)
        out[...] = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            out *= v
            out += u.dtype.type(coefficient)
        parts.append(out)
    numerator, denominator = parts
    numerator /= denominator
    numerator *= u
    numerator += 2
    return np.divide(1, numerator, out=numerator)


def _rates(raw: np.ndarray, floor: float | None, ws: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """``1 / s`` and ``d log s / draw`` for raw log-scales ``(D, K, N)``."""
    if floor is not None:
        rate, dlog = slopes(raw, ws, floor)
        np.divide(1, rate, out=rate)
        dlog *= rate
        return rate, dlog
    dlog, rate = ws.take(raw.shape, raw.dtype), ws.take(raw.shape, raw.dtype)
    np.multiply(raw, raw.dtype.type(1 / LOG_SCALE_BOUND), out=dlog)
    np.tanh(dlog, out=dlog)
    np.multiply(dlog, raw.dtype.type(-LOG_SCALE_BOUND), out=rate)
    np.exp(rate, out=rate)
    np.multiply(dlog, dlog, out=dlog)
    np.subtract(1, dlog, out=dlog)
    return rate, dlog


def forward(
    x: np.ndarray, theta: np.ndarray, *, ws: Workspace, floor: float | None = None
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 3 K, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs."""
    k = theta.shape[1] // 3
    dtype = x.dtype
    shape = (x.shape[0], k, x.shape[1])
    with np.errstate(all="ignore"):
        w = exp_shifted(theta[:, :k], ws)
        w /= np.sum(w, axis=1, keepdims=True)
        rate, dlog = _rates(theta[:, 2 * k :], floor, ws)
        q = ws.take(shape, dtype)
        np.subtract(x[:, None], theta[:, k : 2 * k], out=q)
        q *= rate
        u = np.maximum(np.maximum(np.min(q, axis=1), -np.max(q, axis=1)), 0)
        v = ws.take(shape, dtype)
        np.abs(q, out=v)
        beyond = mills(v, ws)
        a = ws.take(shape, dtype)
        np.subtract(v, u[:, None], out=a)
        v += u[:, None]
        a *= v
        a *= dtype.type(-0.5)
        np.exp(a, out=a)
        a *= w
        beyond *= a
        # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
        rest = v
        np.subtract(w, beyond, out=rest)
        right, upper, lower = (ws.take(shape, dtype) for _ in range(3))
        np.greater_equal(q, 0, out=right, casting="unsafe")
        np.multiply(right, beyond, out=upper)
        np.subtract(beyond, upper, out=lower)
        right *= rest
        lower += right
        np.subtract(rest, right, out=right)
        upper += right
        s_upper, s_lower = np.sum(upper, axis=1), np.sum(lower, axis=1)
        positive = (s_upper < s_lower).astype(dtype)
        sign = 2 * positive - 1
        tail = np.minimum(s_upper, s_lower)
        upper *= positive[:, None]
        lower *= (1 - positive)[:, None]
        upper += lower
        np.multiply(a, rate, out=rest)
        mass = np.sum(rest, axis=1)
        e = excess(u, np.log(tail / small_mills(u)))
        y = sign * (u + e)
        log_slope = np.log(mass) + e * (u + dtype.type(0.5) * e)
        least = np.minimum(tail, mass)
    rare = None
    where = ~(least >= SMALLEST[dtype])
    if where.any():
        rare = RareColumns(functools.partial(reference.mog, floor=floor), where, x, theta)
        rare.patch(y, log_slope)
    return y, log_slope, (w, dlog, rate, q, a, upper, tail, mass, sign, y, rare)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 K, N)``.

    They are right to a few units in the last place of ``(|g| + |l y|) dy``: y and the q in l's part nearly cancel far
    out, unless G is 0.
    """
    w, dlog, rate, q, a, part, tail, mass, sign, y, rare = saved
    dims, k, n = q.shape
    grad_theta = ws.take((dims, 3 * k, n), y.dtype)
    g_logits, g_mean, g_raw = grad_theta[:, :k], grad_theta[:, k : 2 * k], grad_theta[:, 2 * k :]
    t = ws.take(q.shape, y.dtype)
    with np.errstate(all="ignore"):
        whole = grad_y + grad_log_slope * y
        ratio = small_mills(np.abs(y))
        # l r_k, then q
        np.multiply(a, rate, out=t)
        t *= (grad_log_slope / mass)[:, None]
        np.multiply(t, q, out=g_raw)
        np.multiply(a, (whole * ratio / tail)[:, None], out=g_mean)
        g_mean -= g_raw
        # logits: l r_k - o sqrt(2 pi) R G p_k, less w_k times their sum
        through_tail = whole * ratio * sign * y.dtype.type(_ROOT)
        np.multiply(part, (through_tail / tail)[:, None], out=g_logits)
        np.subtract(t, g_logits, out=g_logits)
        g_logits -= w * (grad_log_slope - through_tail)[:, None]
        # log-scales
        np.multiply(g_mean, q, out=g_raw)
        g_raw += t
        np.negative(g_raw, out=g_raw)
        g_raw *= dlog
        # means and x
        g_mean *= rate
        grad_x = np.sum(g_mean, axis=1)
        np.negative(g_mean, out=g_mean)
        if rare is not None:
            rare.patch_vjp(grad_y, grad_log_slope, grad_x, grad_theta)
    return grad_x, grad_theta, []
