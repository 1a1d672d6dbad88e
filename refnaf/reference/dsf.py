"""Deep sigmoidal flow: one hidden layer of sigmoids between the line and itself (slides eq. 28, Huang et al. 2018).

    y = logit( sum_j w_j sigmoid(a_j x + b_j) ),    a_j > 0,  w_j > 0,  sum_j w_j = 1

Since ``sigmoid(p) + sigmoid(-p) = 1``, the logit is ``log S+ - log S-`` with ``S+- = sum_j w_j sigmoid(+-p_j)``: sums of
positive terms, exact in both tails, with nothing to clip.
"""

from __future__ import annotations

from typing import Any

from refnaf.reference._numpy import np
from refnaf.reference.stable import log_sigmoid, log_softmax, logsumexp, slopes


def sigmoid_mixture(x: Any, a: Any, b: Any, log_w: Any) -> tuple[Any, Any]:
    """Equation 28 and its log-derivative, in the log domain.

    ``x`` is ``(...)``; ``a > 0``, ``b`` and ``log_w`` are ``(d, ...)``. Returns ``y`` and ``log dy/dx``, both ``(...)``:

        dy/dx = sum_j w_j a_j s(p_j) s(-p_j) / (S+ S-)
    """
    p = a * x + b
    above, below = log_sigmoid(p), log_sigmoid(-p)
    s_plus, s_minus = logsumexp(log_w + above), logsumexp(log_w + below)
    return s_plus - s_minus, logsumexp(log_w + np.log(a) + above + below) - s_plus - s_minus


def constrain(theta: Any) -> tuple[Any, Any, Any]:
    """Raw pseudo-parameters ``(3 d, ...)`` in the order a, b, w to ``a = slopes``, ``b`` and ``log w = log_softmax``."""
    d = theta.shape[0] // 3
    return slopes(theta[:d]), theta[d : 2 * d], log_softmax(theta[2 * d :])


def dsf(x: Any, theta: Any) -> tuple[Any, Any]:
    """The transformer on raw pseudo-parameters ``(3 d, ...)``: ``y`` and ``log dy/dx``, each ``(...)``, in nats."""
    a, b, log_w = constrain(theta)
    return sigmoid_mixture(x, a, b, log_w)


def bracket(y: Any, theta: Any) -> tuple[Any, Any]:
    """An interval that holds the x with ``dsf(x) = y``.

    y is a generalised mean of the ``p_j = a_j x + b_j``, so that ``min_j p_j <= y <= max_j p_j`` at the root.
    """
    a, b, _ = constrain(theta)
    roots = (y - b) / a
    return np.min(roots, axis=0), np.max(roots, axis=0)
