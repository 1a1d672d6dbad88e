"""The lean algebra, written once for any array library: what torch and jax are given to run.

It is that of refnaf's own kernels: a DSF by its two positive sums, a DDSF by a tangent vector and products with
``exp(U - max)``, a masked network whose weights hold zeros outside their masks. Arrays are feature-major: x ``(D, N)``,
pseudo-parameters ``(D, P, N)``. Each transformer returns y and log dy/dx, both ``(D, N)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.ddsf import pairs, split
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

OFFSET = float(inverse_softplus(1 - SLOPE_FLOOR))


@dataclasses.dataclass(frozen=True)
class Library:
    """The functions of an array library, in the form that is quickest there."""

    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    abs: Callable[[Any], Any]
    softplus: Callable[[Any], Any]
    #: ``sigmoid(p), sigmoid(-p)``
    sigmoid_pair: Callable[[Any], tuple[Any, Any]]
    elu: Callable[[Any], Any]
    ndtr: Callable[[Any], Any]
    ndtri: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    #: the sum, and the largest entry with the axis kept, of an array along axis 1
    sum: Callable[[Any], Any]
    top: Callable[[Any], Any]
    softmax: Callable[[Any], Any]
    #: a matrix ``(out, d)`` times each of several arrays ``(D, d, N)``
    mix: Callable[[Any, Sequence[Any]], Sequence[Any]]
    #: ``weight @ h + bias``
    linear: Callable[[Any, Any, Any], Any]
    reverse: Callable[[Any], Any]


def affine(lib: Library, x: Any, theta: Any) -> tuple[Any, Any]:
    """MAF's ``exp(alpha) x + shift``, alpha bent to within 8."""
    alpha = LOG_SCALE_BOUND * lib.tanh(theta[:, 1] * (1 / LOG_SCALE_BOUND))
    return lib.exp(alpha) * x + theta[:, 0], alpha


def mog(lib: Library, x: Any, theta: Any) -> tuple[Any, Any]:
    """The quantile of a mixture of Gaussians, by the smaller of its two tails."""
    k = theta.shape[1] // 3
    w = lib.softmax(theta[:, :k])
    rate = lib.exp(-LOG_SCALE_BOUND * lib.tanh(theta[:, 2 * k :] * (1 / LOG_SCALE_BOUND)))
    q = (x[:, None] - theta[:, k : 2 * k]) * rate
    lower, upper = lib.sum(w * lib.ndtr(q)), lib.sum(w * lib.ndtr(-q))
    left = lower < upper
    quantile = lib.ndtri(lib.where(left, lower, upper))
    y = lib.where(left, quantile, -quantile)
    return y, lib.log(lib.sum(w * rate * lib.exp(-0.5 * q * q))) + 0.5 * y * y


def dsf(lib: Library, x: Any, theta: Any) -> tuple[Any, Any]:
    """``y = log S+ - log S-`` with ``S+- = sum_j w_j s(+-p_j)``."""
    d = theta.shape[1] // 3
    a = lib.softplus(theta[:, :d] + OFFSET) + SLOPE_FLOOR
    plus, minus = lib.sigmoid_pair(a * x[:, None] + theta[:, d : 2 * d])
    w = lib.softmax(theta[:, 2 * d :])
    weighted = w * plus
    log_plus, log_minus = lib.log(lib.sum(weighted)), lib.log(lib.sum(w * minus))
    return log_plus - log_minus, lib.log(lib.sum(weighted * minus * a)) - log_plus - log_minus


def ddsf(lib: Library, x: Any, theta: Any, *matrices: Any) -> tuple[Any, Any]:
    """Layers of sigmoids with the tangent carried along; matrices are products over the whole batch."""
    layers = pairs(matrices)
    parts = split(_Columns(theta), layers[0][1].shape[1], len(layers))
    h, tangent = x[:, None], None
    for (a, b, w, u), (shared_u, shared_w) in zip(parts, layers, strict=True):
        a = lib.softplus(a + OFFSET) + SLOPE_FLOOR
        if u is None:
            v, slope = h, a
        else:
            e = lib.exp(u - lib.top(u))
            v, slope, total = lib.mix(lib.exp(shared_u - lib.top(shared_u)), [e * h, e * tangent, e])
            rest = 1 / total
            v, slope = v * rest, a * slope * rest
        plus, minus = lib.sigmoid_pair(a * v + b)
        e = lib.exp(w - lib.top(w))
        inner = e * plus
        terms = [inner, e * minus, inner * minus * slope]
        s_plus, s_minus, mass = lib.mix(lib.exp(shared_w - lib.top(shared_w)), terms)
        h = lib.log(s_plus) - lib.log(s_minus)
        tangent = mass * (s_plus + s_minus) / (s_plus * s_minus)
    return h[:, 0], lib.log(tangent[:, 0])  # type: ignore[index]


class _Columns:
    """Theta ``(D, P, N)`` whose slices are taken along P."""

    def __init__(self, theta: Any) -> None:
        self.theta = theta

    def __getitem__(self, part: slice) -> Any:
        return self.theta[:, part]


TRANSFORMERS: dict[str, Callable[..., tuple[Any, Any]]] = {"affine": affine, "dsf": dsf, "ddsf": ddsf, "mog": mog}


def flow_layer(lib: Library, name: str, x: Any, numbers: Sequence[Any], weights: int, bound: float) -> tuple[Any, Any]:
    """One autoregressive layer; ``numbers``: that many weights and biases in turn, then what the transformer shares."""
    h = x / (1 + lib.abs(x) * (1 / bound))
    for k in range(weights):
        h = lib.linear(numbers[2 * k], numbers[2 * k + 1], h)
        if k < weights - 1:
            h = lib.elu(h)
    y, log_slope = TRANSFORMERS[name](lib, x, h.reshape(x.shape[0], -1, x.shape[1]), *numbers[2 * weights :])
    return y, log_slope.sum(0)


def log_prob(layer: Callable[..., tuple[Any, Any]], lib: Library, x: Any, layers: Sequence[Sequence[Any]]) -> Any:
    """``log p`` of the columns of x ``(D, N)`` under layers with reversals between, on a standard normal base."""
    logdet: Any = 0.0
    for k, numbers in enumerate(layers):
        x, part = layer(lib.reverse(x) if k else x, numbers)
        logdet = logdet + part
    return logdet - 0.5 * (x * x).sum(0) - 0.5 * x.shape[0] * math.log(2 * math.pi)
