"""Elementary functions that neither overflow nor cancel.

Every function works elementwise on float arrays of any shape and dtype, and returns the same shape.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value


def softplus(x: Any, less: Any = 0) -> Any:
    """``log(1 + exp(x)) - less``, as ``max(x, 0) - less + log1p(exp(-|x|))``: exact for any finite x."""
    positive = value(x) > 0
    magnitude = x * numpy.where(positive, 1, -1).astype(value(x).dtype)
    return x * positive.astype(value(x).dtype) - less + np.log1p(np.exp(-magnitude))


def inverse_softplus(y: Any) -> Any:
    """The x with ``softplus(x) = y`` for y > 0: ``y + log(1 - exp(-y))``."""
    return y + np.log(-np.expm1(-y))


#: The smallest slope a transformer's unit can have.
SLOPE_FLOOR = 1e-6


def slopes(raw: Any, floor: float = SLOPE_FLOOR) -> Any:
    """Positive slopes, 1 at ``raw`` = 0: ``softplus(raw + softplus^-1(1 - f)) + f`` with the floor f, usually 1e-6.

    The floor keeps every unit strictly increasing where the softplus underflows; the offset is that of the NAF
    authors' code.
    """
    offset = value(raw).dtype.type(inverse_softplus(1 - floor))
    return softplus(raw + offset) + value(raw).dtype.type(floor)


def log_sigmoid(x: Any) -> Any:
    """``log(1 / (1 + exp(-x))) = -softplus(-x)``."""
    return -softplus(-x)


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``, never overflowing: ``exp(log_sigmoid(x))``."""
    return np.exp(log_sigmoid(x))


def shrink(p: Any, clip: float) -> Any:
    """A probability kept away from 0 and 1: ``p (1 - clip) + clip / 2``."""
    return p if clip == 0 else p * (1 - clip) + clip / 2


def clip_logit(y: Any, clip: float) -> tuple[Any, Any]:
    """What the NAF authors' code makes of a logit y: ``logit(shrink(sigmoid(y)))``, and its log-derivative.

    The image is bounded. Their logarithm of a sigmoid is low by ``clip``, and so is this log-derivative by twice that.
    """
    plus, minus = sigmoid(y), sigmoid(-y)
    clipped = np.log(shrink(plus, clip)), np.log(shrink(minus, clip))
    slope = numpy.log1p(-clip) + log_sigmoid(y) + log_sigmoid(-y) - clipped[0] - clipped[1] - 2 * clip
    return clipped[0] - clipped[1], slope


def unclip_logit(y: Any, clip: float) -> Any:
    """The inverse of :func:`clip_logit`; infinite outside its image."""
    y = numpy.clip(value(y), -1e4, 1e4)  # farther out the sigmoid is 0 or 1, and y may be infinite
    plus, minus = ((sigmoid(s * y) - clip / 2) / (1 - clip) for s in (1, -1))
    with numpy.errstate(divide="ignore"):
        return np.log(np.maximum(plus, 0)) - np.log(np.maximum(minus, 0))


def logit(p: Any) -> Any:
    """``log(p) - log(1 - p)``, the inverse of the sigmoid, for 0 < p < 1."""
    return np.log(p) - np.log1p(-p)


def logsumexp(x: Any, axis: int = 0) -> Any:
    """``log(sum(exp(x)))`` along an axis, shifted by the maximum."""
    top = numpy.max(value(x), axis=axis, keepdims=True)
    return np.log(np.sum(np.exp(x - top), axis=axis)) + numpy.squeeze(top, axis=axis)


def log_softmax(x: Any, axis: int = 0) -> Any:
    """``x - logsumexp(x)``: logarithms of weights that sum to one along an axis."""
    shifted = x - numpy.max(value(x), axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Any, axis: int = 0) -> Any:
    """Weights that sum to one along an axis."""
    return np.exp(log_softmax(x, axis))


def squash(x: Any, bound: float) -> Any:
    """``x / (1 + |x| / bound)``: the identity near zero, within ``(-bound, bound)`` everywhere.

    What a conditioner reads passes through it, so that pseudo-parameters stay bounded however far out a point lies.
    The transformer still sees x itself: the flow stays a bijection of the whole line.
    """
    sign = numpy.where(value(x) < 0, -1, 1).astype(value(x).dtype)
    return x / (1 + x * sign * (1 / bound))
