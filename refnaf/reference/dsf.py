"""Deep sigmoidal flow: one hidden layer of sigmoids between the line and itself (slides eq. 28, Huang et al. 2018).

    y = logit( sum_j w_j sigmoid(a_j x + b_j) ),    a_j > 0,  w_j > 0,  sum_j w_j = 1

Since ``sigmoid(p) + sigmoid(-p) = 1``, the logit is ``log S+ - log S-`` with ``S+- = sum_j w_j sigmoid(+-p_j)``: sums
of positive terms, exact in both tails, with nothing to clip.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.stable import SLOPE_FLOOR, clip_logit, log_softmax, logsumexp, slopes, softplus, unclip_logit


def logit_of_mixture(p: Any, log_dp: Any, log_w: Any) -> tuple[Any, Any]:
    """``y = log S+ - log S-`` and the logarithm of its derivative, in the log domain.

    ``p`` and ``log dp/dx`` are ``(d, ...)``; ``log_w`` is ``(d, ...)``, or ``(out, d, ...)`` for several mixtures
    of the same sigmoids. Returns two arrays ``(...)`` or ``(out, ...)``:

        dy/dx = sum_j w_j p_j' s(p_j) s(-p_j) / (S+ S-)

    Where all p have one sign, their smallest magnitude is taken out of the logarithms first: far out these are huge,
    and their difference is not.
    """
    axis = value(log_w).ndim - value(p).ndim
    above_zero = numpy.maximum(numpy.min(value(p), axis=0), 0)
    below_zero = numpy.maximum(numpy.min(-value(p), axis=0), 0)
    log_plus, log_minus = -softplus(-p, below_zero), -softplus(p, above_zero)
    s_plus, s_minus = logsumexp(log_w + log_plus, axis), logsumexp(log_w + log_minus, axis)
    link = logsumexp(log_w + (log_plus + log_minus + log_dp), axis)
    return s_plus - s_minus + (above_zero - below_zero), link - s_plus - s_minus


def sigmoid_mixture(x: Any, a: Any, b: Any, log_w: Any, epsilon: float = 0.0) -> tuple[Any, Any]:
    """Equation 28 and its log-derivative, for which ``epsilon`` is added to the slopes a.

    ``x`` is ``(...)``; ``a > 0``, ``b`` and ``log_w`` ``(d, ...)``. Returns ``y`` and ``log dy/dx``, both ``(...)``.
    """
    return logit_of_mixture(a * x + b, np.log(a + epsilon), log_w)


def constrain(theta: Any, floor: float = SLOPE_FLOOR) -> tuple[Any, Any, Any]:
    """Raw pseudo-parameters ``(3 d, ...)`` in the order a, b, w to ``a``, ``b`` and ``log w``, each ``(d, ...)``.

    ``floor`` is that of the slopes a (see :func:`.stable.slopes`).
    """
    d = theta.shape[0] // 3
    return slopes(theta[:d], floor), theta[d : 2 * d], log_softmax(theta[2 * d :])


def dsf(
    x: Any,
    theta: Any,
    clip: float = 0.0,
    floor: float = SLOPE_FLOOR,
    steepness: float = 1.0,
    epsilon: float = 0.0,
) -> tuple[Any, Any]:
    """The transformer on raw pseudo-parameters ``(3 d, ...)``: ``y`` and ``log dy/dx``, each ``(...)``, in nats.

    ``clip`` is the delta of the NAF authors' code (see :func:`.stable.clip_logit`); 0 is the equation. ``steepness`` k
    makes the units ``sigmoid(k p)`` and y the k-th part of the logit: with 2, the mixture is that of ``tanh(p)`` under
    its inverse. ``epsilon`` is added to the slopes in the logarithm of the derivative, as Pyro does it.
    """
    a, b, log_w = constrain(theta, floor)
    y, log_slope = sigmoid_mixture(x, steepness * a, steepness * b, log_w, steepness * epsilon)
    return clipped(y * (1 / steepness), log_slope - math.log(steepness), clip)


def clipped(y: Any, log_slope: Any, clip: float) -> tuple[Any, Any]:
    """``y`` and its log-derivative after :func:`.stable.clip_logit`, or as they are where ``clip`` is 0."""
    if clip == 0:
        return y, log_slope
    y, more = clip_logit(y, clip)
    return y, log_slope + more


def bracket(
    y: Any,
    theta: Any,
    clip: float = 0.0,
    floor: float = SLOPE_FLOOR,
    steepness: float = 1.0,
    epsilon: float = 0.0,
) -> tuple[Any, Any]:
    """An interval that holds the x with ``dsf(x) = y``.

    y is a generalised mean of the ``p_j = a_j x + b_j``, so that ``min_j p_j <= y <= max_j p_j`` at the root.
    """
    a, b, _ = constrain(theta, floor)
    roots = ((unclip_logit(y, clip) if clip else y) - b) / a
    return np.min(roots, axis=0), np.max(roots, axis=0)
