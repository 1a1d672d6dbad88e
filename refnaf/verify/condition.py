"""How well conditioned a transformer is at a point: what changes of its numbers by their own rounding do to its value.

Change independently, each by at most ``e`` times what is said: the input x, the raw slopes and the slopes a, and the
offsets b by their own size; each weight w and u, which are exponentials of sums of raw numbers, by
``w (1 + |its raw terms, less the largest|)``; and the output h of each layer below the last by ``max(1, |h|)``. For
``e = eps``, half of the spacing of floats at 1 or the whole of it, that is what rounding does to the best of formulas.
To first order y changes by at most ``e K``, with

    K = |x dy/dx| + sum |raw a dy/draw a| + sum |a dy/da| + sum |b dy/db| + sum (1 + |raw terms|) |dy/dlog w| + ...

and, by the mean value theorem, beyond first order too, if K is the largest in the neighbourhood that the changes reach.
That is sampled at the point itself and at random corners of it. The condition is ``K / max(1, |y|)``, and the same of
``log dy/dx``. Of the affine forms the raw scale, the scale, the gate and its complement stand for a and w; of a mixture
of Gaussians the means for b, and for a its scales, which change like the weights, as exponentials of ``log s``.

Derivatives are autograd's, of the reference in float64: a condition need not be known to more than a few digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refnaf.reference import affine, ddsf, mixture
from refnaf.reference._numpy import np as traced
from refnaf.reference._numpy import value
from refnaf.reference.stable import log_softmax, slopes

#: Corners of the neighbourhood that are tried besides its middle.
CORNERS = 3

#: A transformer as a function of relative changes, and the changes' shapes.
Changed = tuple[Callable[[Any], tuple[Any, Any]], list[tuple[int, ...]]]


def conditions(
    name: str, x: np.ndarray, theta: np.ndarray, matrices: list[np.ndarray], options: dict[str, Any], eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Those of y and of log dy/dx, each ``(n,)``, for x ``(n,)``, raw theta ``(P, n)`` and shared matrices, float64.

    Where derivatives are NaN the condition is 0, the strictest.
    """
    from autograd import make_vjp
    from autograd.builtins import tuple as traced_tuple

    known = {"affine": _affine, "mog": _mixture}
    function, shapes = known.get(name, _sigmoidal)(x, theta, matrices, options)
    rng = np.random.default_rng(0)
    worst = [np.zeros(x.shape), np.zeros(x.shape)]
    with np.errstate(all="ignore"):
        for corner in range(1 + CORNERS):
            at = [min(corner, 1) * eps * rng.choice([-1.0, 1.0], shape) for shape in shapes]
            pull, values = make_vjp(lambda changes: traced_tuple(function(changes)))(at)
            for k in (0, 1):
                seeds = [np.ones(x.shape) if k == j else np.zeros(x.shape) for j in (0, 1)]
                sizes = [np.abs(change).reshape(-1, len(x)) for change in pull(tuple(seeds))]
                total = np.sum(np.concatenate(sizes), axis=0) / np.maximum(1, np.abs(values[k]))
                worst[k] = np.fmax(worst[k], total)
    return worst[0], worst[1]


def _affine(x: Any, theta: Any, matrices: Any, options: dict[str, Any]) -> Changed:
    shift, raw = theta
    gated = options["form"] == "gated"

    def function(changes: Any) -> tuple[Any, Any]:
        e_x, e_shift, e_raw, e_scale, e_rest = changes
        log_scale = affine.affine(0 * x, np.zeros((2, 1)) + traced.stack([shift, raw * (1 + e_raw)]), **options)[1]
        log_scale = log_scale + e_scale * (1 + np.abs(value(log_scale)))
        moved = shift * (1 + e_shift)
        if gated:
            rest = traced.log1p(-traced.exp(log_scale))
            moved = moved * traced.exp(rest + e_rest * (1 + np.abs(value(rest))))
        return traced.exp(log_scale) * x * (1 + e_x) + moved, log_scale

    return function, [x.shape] * 5


def _sigmoidal(x: Any, theta: Any, matrices: Any, options: dict[str, Any]) -> Changed:
    d = len(theta) // 3
    pairs = ddsf.pairs(matrices) if matrices else [(None, np.zeros((1, d)))]
    layers = list(zip(ddsf.split(theta, pairs[0][1].shape[1], len(pairs)), pairs, strict=True))
    shapes = [x.shape]
    for k, ((a, b, _, _), (big_u, big_w)) in enumerate(layers):
        shapes += [a.shape, a.shape, b.shape, (*big_w.shape, len(x))]
        shapes += [] if big_u is None else [(*big_u.shape, len(x))]
        shapes += [] if k == len(layers) - 1 else [(len(big_w), len(x))]

    def function(changes: Any) -> tuple[Any, Any]:
        todo = iter(changes)
        h = (x * (1 + next(todo)))[None]
        log_tangent = 0 * h
        for k, ((a, b, w, u), (big_u, big_w)) in enumerate(layers):
            a = slopes(a * (1 + next(todo))) * (1 + next(todo))
            b = b * (1 + next(todo))
            log_w = _weights(big_w, w, todo)
            log_u = None if big_u is None else _weights(big_u, u, todo)
            h, log_tangent = ddsf.layer(h, log_tangent, a, b, log_w, log_u)
            if k < len(layers) - 1:
                h = h + next(todo) * np.maximum(1, np.abs(value(h)))
        return h[0], log_tangent[0]

    return function, shapes


def _mixture(x: Any, theta: Any, matrices: Any, options: dict[str, Any]) -> Changed:
    raw_w, mean, raw = np.split(theta, 3)
    terms = 1 + np.max(raw_w, axis=0) - raw_w

    def function(changes: Any) -> tuple[Any, Any]:
        e_x, e_mean, e_raw, e_scale, e_w = changes
        _, _, log_scale = mixture.constrain(traced.concatenate([raw_w, mean, raw * (1 + e_raw)]), **options)
        log_scale = log_scale + e_scale * (1 + np.abs(value(log_scale)))
        return mixture.mixture_quantile(x * (1 + e_x), log_softmax(raw_w) + e_w * terms, mean * (1 + e_mean), log_scale)

    return function, [x.shape] + [raw.shape] * 4


def _weights(matrix: Any, row: Any, todo: Iterator[Any]) -> Any:
    """``log softmax(matrix + row)``, changed."""
    terms = np.max(matrix, axis=1, keepdims=True) - matrix
    sizes = 1 + terms[:, :, None] + (np.max(row, axis=0) - row)
    return ddsf.matrix_plus_row(matrix, row) + next(todo) * sizes
