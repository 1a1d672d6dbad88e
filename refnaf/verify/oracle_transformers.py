"""The transformers' equations in arbitrary precision, one point at a time, as the paper has them.

Numbers are mpf, or MPFR's, at the current precision of :func:`.precision.arithmetic`; parameters are lists of them.
Every function returns ``y`` and ``log dy/dx``, the latter the logarithm of the derivative as its plain definition gives
it. What cancels costs digits: callers evaluate through :func:`refnaf.verify.precision.settled`. mpf has no smallest and
no largest number, so that nothing here under- or overflows.

    DSF        y = logit( sum_j w_j sigmoid(a_j x + b_j) )                (Huang et al. 2018, eq. 8; slides eq. 28)
    DDSF       h' = logit( w sigmoid(a * (u h) + b) ), layer after layer  (eq. 9; slides eq. 29 and 30)
    affine     y = scale x + shift                                        (slides eq. 13-24)
    mean       y = T^-1( sum_j w_j T(a_j x + b_j) )                       (T: ELU or leaky ReLU, as in Pyro's NAF)
    MoG        y = Phi^-1( sum_k w_k Phi((x - m_k) / s_k) )               (Papamakarios et al. 2017, section 3)
    monotonic  h' = act(|W| h + b), layer after layer, without act at last  (zuko's NAF)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refnaf.reference.affine import LOG_SCALE_BOUND, limits
from refnaf.reference.ddsf import pairs, split
from refnaf.reference.mean import LEAK
from refnaf.reference.stable import SLOPE_FLOOR
from refnaf.verify.oracle_normal import log_density, quantile, tail
from refnaf.verify.precision import arithmetic

Equation = Callable[..., tuple[Any, Any]]


class Shared:
    """A raw matrix that all samples share, and its exponentials, taken once at each precision. A vector is one row."""

    def __init__(self, matrix: Any) -> None:
        self.rows = [list(row) for row in np.atleast_2d(matrix)]
        self.shape = (len(self.rows), len(self.rows[0]))
        self._exp: dict[int, list[list[Any]]] = {}  # all of one arithmetic, that of the matrix

    def softmax_plus(self, row: Sequence[Any]) -> list[list[Any]]:
        """``softmax_j(U_ij + c_j)``, a list a row i."""
        mp = arithmetic()
        if mp.prec not in self._exp:
            self._exp[mp.prec] = [[mp.exp(value) for value in values] for values in self.rows]
        weights = [mp.exp(value) for value in row]
        products = [[a * b for a, b in zip(values, weights, strict=True)] for values in self._exp[mp.prec]]
        return [[value / total for value in values] for values in products for total in [mp.fsum(values)]]


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``."""
    mp = arithmetic()
    return 1 / (1 + mp.exp(-x))


def _both(x: Any) -> tuple[Any, Any]:
    """``sigmoid(x)`` and ``sigmoid(-x)``, of one exponential."""
    e = arithmetic().exp(-x)
    return 1 / (1 + e), e / (1 + e)


@functools.cache
def _offset(floor: float, mp: Any, precision: int) -> Any:
    """``softplus^-1(1 - f)`` at the current precision, in bits, of an arithmetic."""
    return mp.log(mp.expm1(1 - mp.mpf(floor)))


def slopes(raw: Any, floor: float = SLOPE_FLOOR) -> Any:
    """``softplus(raw + softplus^-1(1 - f)) + f``."""
    mp = arithmetic()
    return mp.log(1 + mp.exp(raw + _offset(floor, mp, mp.prec))) + mp.mpf(floor)


def _clipped(y: Any, slope: Any, clip: float) -> tuple[Any, Any]:
    """The NAF authors' ``logit(sigmoid(y) (1 - clip) + clip / 2)``; their derivative is low by ``exp(2 clip)``."""
    if clip == 0:
        return y, slope
    mp = arithmetic()
    c = mp.mpf(clip)
    plus, minus = sigmoid(y), sigmoid(-y)
    high, low = plus * (1 - c) + c / 2, minus * (1 - c) + c / 2
    return mp.log(high / low), slope * (1 - c) * plus * minus / (high * low) * mp.exp(-2 * c)


def _mixture(p: Sequence[Any], dp: Sequence[Any], w: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Any]]:
    """``logit(w sigmoid(p))`` and its tangent for the tangent dp of p: lists over the rows of w.

    ``1 - sigmoid(p)`` is ``sigmoid(-p)``: with unbounded exponents both keep all their digits.
    """
    mp = arithmetic()
    plus, minus = zip(*[_both(value) for value in p], strict=True)
    moving = [a * b * c for a, b, c in zip(plus, minus, dp, strict=True)]
    out, tangent = [], []
    for row in w:
        s_plus, s_minus = mp.fdot(row, plus), mp.fdot(row, minus)
        out.append(mp.log(s_plus / s_minus))
        tangent.append(mp.fdot(row, moving) / (s_plus * s_minus))
    return out, tangent


def dsf(
    x: Any,
    theta: Sequence[Any],
    shared: Sequence[Shared] = (),
    *,
    clip: float = 0.0,
    floor: float = SLOPE_FLOOR,
    steepness: float = 1.0,
    epsilon: float = 0.0,
) -> tuple[Any, Any]:
    """Deep sigmoidal flow; theta is a, b, w (raw), one after the other. Options as the reference's.

    With a steepness k it is ``logit(sum w sigmoid(k p)) / k``; epsilon is Pyro's, in the derivative only.
    """
    mp = arithmetic()
    d, k = len(theta) // 3, mp.mpf(steepness)
    a = [slopes(value, floor) for value in theta[:d]]
    weights = [mp.exp(value) for value in theta[2 * d :]]
    total = mp.fsum(weights)
    p = [k * (slope * x + b) for slope, b in zip(a, theta[d : 2 * d], strict=True)]
    dp = [slope + mp.mpf(epsilon) for slope in a]
    (y,), (slope,) = _mixture(p, dp, [[value / total for value in weights]])
    y, slope = _clipped(y / k, slope, clip)
    return y, mp.log(slope)


def ddsf(x: Any, theta: Sequence[Any], shared: Sequence[Shared], *, clip: float = 0.0) -> tuple[Any, Any]:
    """Deep dense sigmoidal flow; the chain of Jacobians applied to the tangent 1 of x."""
    mp = arithmetic()
    layers = pairs(shared)
    h, tangent = [x], [mp.mpf(1)]
    for (raw_a, b, w, u), (shared_u, shared_w) in zip(
        split(theta, layers[0][1].shape[1], len(layers)), layers, strict=True
    ):
        if u is None:
            v, dv = h * len(raw_a), tangent * len(raw_a)
        else:
            rows = shared_u.softmax_plus(u)
            v, dv = [mp.fdot(row, h) for row in rows], [mp.fdot(row, tangent) for row in rows]
        a = [slopes(value) for value in raw_a]
        p = [slope * value + offset for slope, value, offset in zip(a, v, b, strict=True)]
        dp = [slope * value for slope, value in zip(a, dv, strict=True)]
        h, tangent = _mixture(p, dp, shared_w.softmax_plus(w))
        both = [_clipped(value, slope, clip) for value, slope in zip(h, tangent, strict=True)]
        h, tangent = [pair[0] for pair in both], [pair[1] for pair in both]
    return h[0], mp.log(tangent[0])


def bent(raw: Any, how: str = "tanh", limit: Any = LOG_SCALE_BOUND) -> Any:
    """A raw log-scale within its limit: see :func:`refnaf.reference.affine.bend`."""
    mp = arithmetic()
    low, bound = (mp.mpf(edge) for edge in limits(limit))
    if how == "tanh":
        return bound * mp.tanh(raw / bound)
    if how == "squash":
        return raw / (1 + abs(raw) / bound)
    return max(low, min(bound, raw)) if how == "clamp" else raw


def affine(
    x: Any, theta: Sequence[Any], shared: Sequence[Shared] = (), *, form: str = "exp", **options: Any
) -> tuple[Any, Any]:
    """``y = scale x + shift``, and for the gated form ``y = s x + (1 - s) mean``."""
    mp = arithmetic()
    shift, raw = theta
    if form == "exp":
        scale = mp.exp(bent(raw, **options))
    elif form == "softplus":
        scale = slopes(raw, **options)
    elif form == "sigmoid":
        scale = sigmoid(raw) + mp.mpf(options.get("floor", SLOPE_FLOOR))
    elif form == "gated":
        clip = mp.mpf(options.pop("clip", 0.0))
        gate = bent(raw, **options)
        scale = sigmoid(gate) * (1 - clip) + clip / 2
        shift = (sigmoid(-gate) * (1 - clip) + clip / 2) * shift
    else:
        raise ValueError(f"the oracle has no equation for an affine transformer of form {form!r}")
    return scale * x + shift, mp.log(scale)


def mean(
    x: Any,
    theta: Sequence[Any],
    shared: Sequence[Shared] = (),
    *,
    activation: str = "elu",
    floor: float = SLOPE_FLOOR,
    epsilon: float = 0.0,
) -> tuple[Any, Any]:
    """A mean M of lines under T, and T's inverse; theta is a, b, w (raw). Options as the reference's.

    Of the ELU it is ``T + 1`` that is averaged, which keeps its digits where T is close to -1.
    """
    mp = arithmetic()
    if activation not in ("elu", "leakyrelu"):
        raise ValueError(f"the oracle has no equation for a mean under {activation!r}")
    d, eps = len(theta) // 3, mp.mpf(epsilon)
    a = [slopes(value, floor) for value in theta[:d]]
    w = [mp.exp(value) for value in theta[2 * d :]]
    total = mp.fsum(w)
    p = [slope * x + b for slope, b in zip(a, theta[d : 2 * d], strict=True)]
    if activation == "leakyrelu":
        leak = mp.mpf(LEAK)
        rates = [leak if value < 0 else mp.mpf(1) for value in p]
        average = mp.fdot(w, [rate * value for rate, value in zip(rates, p, strict=True)]) / total
        y, outer = (average / leak, 1 / leak) if average < 0 else (average, mp.mpf(1))
    else:
        rates = [mp.exp(value) if value < 0 else mp.mpf(1) for value in p]
        average = mp.fdot(w, [mp.exp(value) if value < 0 else 1 + value for value in p]) / total
        y = max(average - 1, 0) + min(mp.log(average + eps), 0)
        outer = 1 / min(average + eps, 1)
    moving = mp.fdot(w, [rate * (slope + eps) for rate, slope in zip(rates, a, strict=True)]) / total
    return y, mp.log(moving * outer)


def mog(x: Any, theta: Sequence[Any], shared: Sequence[Shared] = (), *, floor: float | None = None) -> tuple[Any, Any]:
    """The quantile under the standard normal; theta is logits, means, log-scales (raw), one after the other.

    With f the mixture's density and phi the standard normal's, ``dy/dx = f(x) / phi(y)``. ``1 - F`` is the same sum of
    the components' other tails.
    """
    mp = arithmetic()
    k = len(theta) // 3
    w = [mp.exp(value) for value in theta[:k]]
    total = mp.fsum(w)
    s = [mp.exp(bent(value)) if floor is None else slopes(value, floor) for value in theta[2 * k :]]
    q = [(x - m) / scale for m, scale in zip(theta[k : 2 * k], s, strict=True)]
    # log f and log phi hold squares, which cancel: as many bits as these have before the point are carried besides
    with mp.extraprec(2 * max(0, mp.mag(min(abs(v) for v in q)))):
        q = [(x - m) / scale for m, scale in zip(theta[k : 2 * k], s, strict=True)]
        lower, upper = (mp.fdot(w, [tail(sign * value) for value in q]) / total for sign in (-1, 1))
        y = quantile(lower, upper)
        density = mp.fdot(w, [mp.exp(log_density(v)) / scale for v, scale in zip(q, s, strict=True)]) / total
        return y, mp.log(density) - log_density(y)


def monotonic(x: Any, theta: Sequence[Any], shared: Sequence[Shared]) -> tuple[Any, Any]:
    """A network of x and the signal theta, of weights |W| and biases, those of one dimension, in turn.

    The first half of a layer's units, with the middle one, are ELUs, the others ``-ELU(-p)``.
    """
    mp = arithmetic()
    h, tangent = [x, *theta], [mp.mpf(1)] + [mp.mpf(0)] * len(theta)
    layers = list(zip(shared[::2], shared[1::2], strict=True))
    for k, (matrix, bias) in enumerate(layers):
        weights = [[abs(value) for value in row] for row in matrix.rows]
        p = [mp.fdot(row, h) + b for row, b in zip(weights, bias.rows[0], strict=True)]
        tangent = [mp.fdot(row, tangent) for row in weights]
        if k == len(layers) - 1:
            break
        signs = [1 if i < (len(p) + 1) // 2 else -1 for i in range(len(p))]
        q = [sign * value for sign, value in zip(signs, p, strict=True)]
        h = [sign * (v if v > 0 else mp.expm1(v)) for sign, v in zip(signs, q, strict=True)]
        tangent = [t if v > 0 else t * mp.exp(v) for t, v in zip(tangent, q, strict=True)]
    return p[0], mp.log(tangent[0])


#: Transformers by name, each called as ``equation(x, theta, shared, **options)``.
TRANSFORMERS: dict[str, Equation] = {
    "affine": affine,
    "dsf": dsf,
    "ddsf": ddsf,
    "mean": mean,
    "mog": mog,
    "monotonic": monotonic,
}
