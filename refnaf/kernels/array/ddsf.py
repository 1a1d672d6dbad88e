"""Deep dense sigmoidal flow (reference: :mod:`refnaf.reference.ddsf`) in O(d^2) a sample, with its analytic VJP.

With ``E = exp(U - row max)``, once a step, and ``e = exp(c - max)``,
``softmax_j(U_ij + c_j) @ h = (E @ (e h)) / (E @ e)``. The d x d products are plain matrix products over the batch,
stacked side by side along the samples. For the output matrix the normaliser needs no product of its own, since the two
sums A and B over ``s(p)`` and ``s(-p)`` add up to it:

    h_next = log(A / B),        t_next = M (A + B) / (A B),      M over s(p) s(-p) p'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array.rare import SMALLEST, RareColumns
from refnaf.kernels.array.stable import clip_logit_vjp, exp_shifted, sigmoid_pair, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import ddsf as reference
from refnaf.reference.stable import clip_logit


def _shifted(matrix: np.ndarray) -> np.ndarray:
    return np.exp(matrix - np.max(matrix, axis=1, keepdims=True))


def _inner_forward(h: np.ndarray, t: np.ndarray, e_u: np.ndarray, c: np.ndarray, ws: Workspace) -> tuple[Any, ...]:
    """``v = u h`` and ``v' = u t`` with ``u = softmax(U + c)``."""
    dims, size, n = h.shape
    ec = exp_shifted(c, ws)
    stacked = ws.take((dims, size, 3 * n), h.dtype)
    np.multiply(ec, h, out=stacked[..., :n])
    np.multiply(ec, t, out=stacked[..., n : 2 * n])
    stacked[..., 2 * n :] = ec
    sums = ws.take((dims, e_u.shape[0], 3 * n), h.dtype)
    np.matmul(e_u, stacked, out=sums)
    total = sums[..., 2 * n :]
    sums[..., :n] /= total
    sums[..., n : 2 * n] /= total
    return sums[..., :n], sums[..., n : 2 * n], (h, t, ec, stacked, total, e_u)


def _inner_vjp(
    saved: Any, v: np.ndarray, dv: np.ndarray, gv: np.ndarray, gdv: np.ndarray, gc: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cotangents of v and v' to those of h, t and U; that of c is written into ``gc``."""
    h, t, ec, stacked, total, e_u = saved
    dims, _, n = h.shape
    g = ws.take((dims, e_u.shape[0], 3 * n), h.dtype)
    np.divide(gv, total, out=g[..., :n])
    np.divide(gdv, total, out=g[..., n : 2 * n])
    last, scratch = g[..., 2 * n :], ws.take(v.shape, h.dtype)
    np.multiply(g[..., :n], v, out=last)
    np.multiply(g[..., n : 2 * n], dv, out=scratch)
    last += scratch
    np.negative(last, out=last)
    back = ws.take(stacked.shape, h.dtype)
    np.matmul(e_u.T, g, out=back)
    gh, gt, ge = back[..., :n], back[..., n : 2 * n], back[..., 2 * n :]
    np.multiply(gh, h, out=gc)
    part = ws.take(h.shape, h.dtype)
    np.multiply(gt, t, out=part)
    gc += part
    gc += ge
    gc *= ec
    gh *= ec
    gt *= ec
    grad_u = np.sum(np.matmul(g, stacked.transpose(0, 2, 1)), axis=0) * e_u
    return gh, gt, grad_u


class _Saved(NamedTuple):
    """What a layer's VJP needs.

    ``sums`` stacks A, B and M along the samples, ``tangent`` is the next t, ``exact`` the next h before clipping.
    """

    a: np.ndarray
    da_draw: np.ndarray
    v: np.ndarray
    dv: np.ndarray | None
    inner: Any
    dp: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    ek: np.ndarray
    qdp: np.ndarray
    stacked: np.ndarray
    sums: np.ndarray
    total: np.ndarray
    tangent: np.ndarray
    e_w: np.ndarray
    exact: np.ndarray
    clip: float


def _layer_forward(
    h: np.ndarray,
    t: np.ndarray | None,
    raw: tuple[Any, ...],
    e_u: np.ndarray | None,
    e_w: np.ndarray,
    clip: float,
    ws: Workspace,
) -> tuple[np.ndarray, np.ndarray, _Saved]:
    """One layer: h and its tangent t ``(D, in, N)`` (t None stands for ones) to those of the next."""
    raw_a, b, raw_w, raw_u = raw
    dims, d, n = raw_a.shape
    a, da_draw = slopes(raw_a, ws)
    inner = None
    if e_u is None or t is None:
        v, dv = h, t
    else:
        v, dv, inner = _inner_forward(h, t, e_u, raw_u, ws)
    p = ws.take(a.shape, a.dtype)
    np.multiply(a, v, out=p)
    p += b
    dp = a
    if dv is not None:
        dp = ws.take(a.shape, a.dtype)
        np.multiply(a, dv, out=dp)
    plus, minus = sigmoid_pair(p, ws)
    ek = exp_shifted(raw_w, ws)
    qdp = p
    np.multiply(plus, minus, out=qdp)
    stacked = ws.take((dims, d, 3 * n), a.dtype)
    np.multiply(ek, plus, out=stacked[..., :n])
    np.multiply(ek, minus, out=stacked[..., n : 2 * n])
    np.multiply(ek, qdp, out=stacked[..., 2 * n :])
    stacked[..., 2 * n :] *= dp
    sums = ws.take((dims, e_w.shape[0], 3 * n), a.dtype)
    np.matmul(e_w, stacked, out=sums)
    s_plus, s_minus, mass = sums[..., :n], sums[..., n : 2 * n], sums[..., 2 * n :]
    out = ws.take(s_plus.shape, a.dtype)
    # the sums have a common factor, which logarithms taken one by one would turn into a cancellation
    np.divide(s_plus, s_minus, out=out)
    np.log(out, out=out)
    total = ws.take(s_plus.shape, a.dtype)
    np.add(s_plus, s_minus, out=total)
    tangent = ws.take(s_plus.shape, a.dtype)
    np.divide(mass, s_plus, out=tangent)
    np.multiply(tangent, total, out=tangent)
    np.divide(tangent, s_minus, out=tangent)
    exact = out
    if clip:
        out, more = clip_logit(out, clip)
        tangent *= np.exp(more)
    kept = _Saved(a, da_draw, v, dv, inner, dp, plus, minus, ek, qdp, stacked, sums, total, tangent, e_w, exact, clip)
    return out, tangent, kept


def _layer_vjp(
    saved: _Saved, grad_h: np.ndarray, weighted_t: np.ndarray, grad_raw: tuple[Any, ...], ws: Workspace
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray]:
    """Cotangent of the next h, and that of its tangent times the tangent, to those of h, t, U and W.

    Cotangents of a, b, w and u are written into ``grad_raw``.
    """
    a, da_draw, v, dv, inner, dp, plus, minus, ek, qdp, stacked, sums, total, _, e_w, exact, clip = saved
    if clip:
        slope, dlog = clip_logit_vjp(exact, clip, ws)
        grad_h = grad_h * slope + weighted_t * dlog
    ga, gb, gw, gu = grad_raw
    n = a.shape[2]
    g = ws.take(sums.shape, a.dtype)
    shared = weighted_t / total
    np.subtract(grad_h, weighted_t, out=g[..., :n])
    g[..., :n] /= sums[..., :n]
    g[..., :n] += shared
    np.add(grad_h, weighted_t, out=g[..., n : 2 * n])
    g[..., n : 2 * n] /= sums[..., n : 2 * n]
    np.subtract(shared, g[..., n : 2 * n], out=g[..., n : 2 * n])
    np.divide(weighted_t, sums[..., 2 * n :], out=g[..., 2 * n :])
    back = ws.take(stacked.shape, a.dtype)
    np.matmul(e_w.T, g, out=back)
    grad_w = np.sum(np.matmul(g, stacked.transpose(0, 2, 1)), axis=0) * e_w
    g_plus, g_minus, g_mass = back[..., :n], back[..., n : 2 * n], back[..., 2 * n :]
    # sigmoids: dp through s(p), s(-p) and q = s(p) s(-p); the raw weights of w collect all three
    t = ws.take(a.shape, a.dtype)
    np.multiply(g_plus, plus, out=gw)
    np.multiply(g_minus, minus, out=t)
    gw += t
    gdp = ws.take(a.shape, a.dtype)
    np.multiply(g_mass, qdp, out=gdp)
    np.multiply(gdp, dp, out=t)
    gw += t
    gw *= ek
    np.subtract(minus, plus, out=gb)
    gb *= g_mass
    gb *= dp
    gb += g_plus
    gb -= g_minus
    gb *= ek
    gb *= qdp
    gdp *= ek
    np.multiply(gb, v, out=ga)
    if dv is None:
        ga += gdp
    else:
        np.multiply(gdp, dv, out=t)
        ga += t
    ga *= da_draw
    np.multiply(gb, a, out=t)
    if inner is None or dv is None:
        return np.sum(t, axis=1, keepdims=True), None, None, grad_w
    gdp *= a
    gh, gt, grad_u = _inner_vjp(inner, v, dv, t, gdp, gu, ws)
    return gh, gt, grad_u, grad_w


def _run(
    x: np.ndarray, theta: np.ndarray, matrices: Sequence[np.ndarray], clip: float, ws: Workspace
) -> tuple[Any, ...]:
    h, t, layers = x[:, None], None, []
    for raw, (u, w) in zip(_parts(theta, matrices), reference.pairs(matrices), strict=True):
        h, t, saved = _layer_forward(h, t, raw, None if u is None else _shifted(u), _shifted(w), clip, ws)
        layers.append(saved)
    return h[:, 0].copy(), np.log(t[:, 0]), layers  # type: ignore[index]


def _parts(theta: np.ndarray, matrices: Sequence[np.ndarray]) -> list[tuple[Any, ...]]:
    """Views of a, b, w and u for each layer, ``(D, ., N)``."""
    split = reference.split(np.moveaxis(theta, 1, 0), matrices[0].shape[1], (len(matrices) + 1) // 2)
    return [tuple(None if part is None else np.moveaxis(part, 0, 1) for part in parts) for parts in split]


def _out_of_range(y: np.ndarray, log_slope: np.ndarray, layers: list[Any]) -> np.ndarray | None:
    """Which columns ``(D, N)`` the fast form got wrong, or None."""
    least = SMALLEST[y.dtype]
    if (
        np.isfinite(y).all()
        and np.isfinite(log_slope).all()
        and all(np.min(saved.sums, initial=1) >= least for saved in layers)
    ):
        return None
    where = ~(np.isfinite(log_slope) & np.isfinite(y))
    for saved in layers:
        sums = saved.sums.reshape(y.shape[0], -1, 3, y.shape[1])
        where |= ~(np.min(sums, axis=(1, 2)) >= least)
    return where


def forward(
    x: np.ndarray, theta: np.ndarray, *matrices: np.ndarray, ws: Workspace, clip: float = 0.0
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, P, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs."""
    rare = None
    with np.errstate(all="ignore"):
        y, log_slope, layers = _run(x, theta, matrices, clip, ws)
        where = _out_of_range(y, log_slope, layers)
        if where is not None:
            rare = RareColumns(partial(reference.ddsf, clip=clip), where, x, theta, matrices)
            # harmless numbers in their place: their gradients below are zero, and must not become 0 * inf
            y, log_slope, layers = _run(np.where(where, 0, x), np.where(where[:, None], 0, theta), matrices, clip, ws)
    if rare is not None:
        rare.patch(y, log_slope)
    return y, log_slope, (theta.shape, layers, matrices, rare)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x, theta and the shared matrices."""
    shape, layers, matrices, rare = saved
    grad_theta = ws.take(shape, grad_y.dtype)
    grad_log_slope = np.broadcast_to(grad_log_slope, grad_y.shape)
    usual = np.ones(grad_y.shape, bool)
    if rare is not None:
        usual[rare.rows, rare.columns] = False
    grad_h = np.where(usual, grad_y, 0)[:, None]
    weighted_t = np.where(usual, grad_log_slope, 0)[:, None]
    grads: list[np.ndarray] = []
    parts = _parts(grad_theta, matrices)
    with np.errstate(all="ignore"):
        for index in range(len(layers) - 1, -1, -1):
            grad_h, grad_t, grad_u, grad_w = _layer_vjp(layers[index], grad_h, weighted_t, parts[index], ws)
            grads = [*(() if grad_u is None else (grad_u,)), grad_w, *grads]
            if index > 0:
                weighted_t = grad_t * layers[index - 1].tangent
    grad_x = grad_h[:, 0].copy()
    if rare is not None:
        extra = rare.patch_vjp(grad_y, grad_log_slope, grad_x, grad_theta)
        grads = [(g + e).astype(g.dtype) for g, e in zip(grads, extra, strict=True)]
    return grad_x, grad_theta, grads
