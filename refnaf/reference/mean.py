"""A mean of increasing lines, taken under an activation T: the family that the deep sigmoidal flow belongs to.

    y = T^-1( sum_j w_j T(a_j x + b_j) ),    a_j > 0,  w_j > 0,  sum_j w_j = 1

With T the sigmoid this is DSF (Huang et al. 2018, eq. 8; :mod:`.dsf`, which has the hyperbolic tangent too). Here T is

- "elu": ``T(p) = p`` for p >= 0, ``exp(p) - 1`` below. Let ``m(p) = T(p) + 1 > 0`` and ``M = sum_j w_j m(p_j)``, a sum
  of positive terms: then ``y = log M`` below 0, where no digits are lost however close M is to 0, and ``M - 1`` above.
- "leakyrelu": ``T(p) = p`` for p >= 0, ``p / 100`` below.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.dsf import constrain
from refnaf.reference.stable import SLOPE_FLOOR, logsumexp

ACTIVATIONS = ("elu", "leakyrelu")

#: The slope of leakyrelu below 0.
LEAK = 0.01


def elu_mean(p: Any, log_w: Any, epsilon: float = 0.0) -> tuple[Any, Any, Any]:
    """For lines p and log-weights ``(d, ...)``: y, ``log dy/dT(y)``, both ``(...)``, and ``log T'(p)`` ``(d, ...)``.

    The two logarithms are of use as a sum: far out they are huge, and what they have in common is left out of both.
    ``epsilon`` is added to M where y is negative (so that y is above ``log epsilon``, and 0 already where M is within
    epsilon of 1), as in Pyro's inverse of the ELU.
    """
    dtype = value(p).dtype
    up = (value(p) > 0).astype(dtype)
    above, below = p * up, p * (1 - up)
    mean = np.sum(np.exp(log_w) * (above + np.expm1(below)), axis=0)
    common = numpy.minimum(numpy.max(value(p), axis=0), 0)
    from_common = logsumexp(log_w + ((below - common) + np.log1p(above)))
    if epsilon:
        low = np.log(np.exp(from_common + common) + epsilon)
        from_common = low - common
    else:
        low = from_common + common
    down = value(mean) < 0
    low_part = (down & (value(low) < 0)).astype(dtype)
    y = mean * (~down).astype(dtype) + low * low_part
    return y, -from_common * low_part + common * (1 - low_part), below - common


def leaky_mean(p: Any, log_w: Any) -> tuple[Any, Any, Any]:
    """As :func:`elu_mean`, for leakyrelu."""
    dtype = value(p).dtype
    leaks = (value(p) < 0).astype(dtype)
    mean = np.sum(np.exp(log_w) * p * (1 - leaks * (1 - LEAK)), axis=0)
    down = (value(mean) < 0).astype(dtype)
    return mean * (1 + down * (1 / LEAK - 1)), -numpy.log(LEAK) * down, numpy.log(LEAK) * leaks


def mean(
    x: Any, theta: Any, activation: str = "elu", floor: float = SLOPE_FLOOR, epsilon: float = 0.0
) -> tuple[Any, Any]:
    """The transformer on raw pseudo-parameters ``(3 d, ...)``, in DSF's order: y and ``log dy/dx``, ``(...)``, in nats.

    ``floor`` is that of the slopes a. ``epsilon`` is added to them in the logarithm of the derivative, and to M (see
    :func:`elu_mean`), as Pyro does it. Raises ValueError for an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    a, b, log_w = constrain(theta, floor)
    p = a * x + b
    y, log_outer, log_inner = elu_mean(p, log_w, epsilon) if activation == "elu" else leaky_mean(p, log_w)
    return y, logsumexp(log_w + np.log(a + epsilon) + log_inner) + log_outer


def bracket(
    y: Any, theta: Any, activation: str = "elu", floor: float = SLOPE_FLOOR, epsilon: float = 0.0
) -> tuple[Any, Any]:
    """An interval that holds the x with ``mean(x) = y``: y is between the least and the greatest of the lines."""
    a, b, _ = constrain(theta, floor)
    if epsilon and activation == "elu":
        with numpy.errstate(divide="ignore"):
            low = np.log(np.maximum(np.exp(np.minimum(y, 0)) - epsilon, 0))
        y = np.maximum(y, 0) + low * (value(y) < 0)
    roots = (y - b) / a
    return np.min(roots, axis=0), np.max(roots, axis=0)
