"""Mixture-of-Gaussians conditionals as a transformer (MADE-MoG and MAF-MoG, Papamakarios et al. 2017, section 3).

    y = Phi^-1( F(x) ),    F(x) = sum_k w_k Phi(q_k),    q_k = (x - m_k) / s_k,    w_k > 0,  sum_k w_k = 1

Under a standard normal base the density of x is the mixture itself: ``log phi(y) + log dy/dx = log f(x)`` with
``f = F'``. Far out y follows the component whose tail is heaviest, and both ``F`` and the squares in ``log phi`` leave
the range of floats; so everything is measured from ``u``, the distance ``|q_k|`` of the nearest component where all lie
on one side of x, and 0 where they do not:

    E_k = exp((u^2 - q_k^2) / 2),    exp(u^2 / 2) Phi(-|q_k|) = E_k R(|q_k|)        (R: see :mod:`.normal`)

The tail of the mixture in these units is a sum of positive terms, and ``|y| = u + e`` where the tail of the standard
normal is the same (:func:`.normal.excess`). Then ``log dy/dx = log sum_k w_k E_k / s_k + e (u + e / 2)``.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.affine import bend
from refnaf.reference.normal import excess, mills
from refnaf.reference.stable import log_softmax, logsumexp, slopes


def constrain(theta: Any, floor: float | None = None) -> tuple[Any, Any, Any]:
    """Raw pseudo-parameters ``(3 K, ...)`` in the order logits, means, log-scales to ``log w``, ``m`` and ``log s``.

    Each is ``(K, ...)``; log-scales are bent to within 8 (:func:`.affine.bend`). With a ``floor`` the scales are
    softplus functions of the raw numbers instead, and no less than it (:func:`.stable.slopes`).
    """
    k = theta.shape[0] // 3
    raw = theta[2 * k :]
    return log_softmax(theta[:k]), theta[k : 2 * k], bend(raw) if floor is None else np.log(slopes(raw, floor))


def mixture_quantile(x: Any, log_w: Any, mean: Any, log_scale: Any) -> tuple[Any, Any]:
    """``y = Phi^-1(F(x))`` and ``log dy/dx``, both ``(...)``, for x ``(...)`` and K components ``(K, ...)``."""
    q = (x - mean) * np.exp(-log_scale)
    dtype = value(q).dtype
    right = value(q) >= 0
    v = q * numpy.where(right, 1, -1).astype(dtype)
    one_sided = right.all(axis=0) | ~right.any(axis=0)
    units = numpy.arange(len(right)).reshape(-1, *(1,) * one_sided.ndim)
    nearest = one_sided & (units == numpy.argmin(value(v), axis=0))
    u = np.sum(v * nearest.astype(dtype), axis=0)
    decay = _half_difference_of_squares(v, u)
    log_beyond = np.log(mills(v)) - decay
    # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
    log_rest = np.log1p(-np.exp(log_beyond))
    here, there = right.astype(dtype), (~right).astype(dtype)
    upper = logsumexp(log_w + here * log_beyond + there * log_rest)
    lower = logsumexp(log_w + there * log_beyond + here * log_rest)
    positive = (value(upper) < value(lower)).astype(dtype)
    e = excess(u, positive * upper + (1 - positive) * lower - np.log(mills(u)))
    return (2 * positive - 1) * (u + e), logsumexp(log_w - log_scale - decay) + e * (u + 0.5 * e)


def _half_difference_of_squares(v: Any, u: Any) -> Any:
    """``(v^2 - u^2) / 2`` for v >= u >= 0, and a quarter of the largest number where that is larger."""
    largest = numpy.finfo(value(v).dtype).max / 4
    with numpy.errstate(over="ignore"):
        fits = (0.5 * (value(v) - value(u)) * (value(v) + value(u)) < largest).astype(value(v).dtype)
    return 0.5 * ((v - u) * fits) * (v + u) + (1 - fits) * largest


def mog(x: Any, theta: Any, floor: float | None = None) -> tuple[Any, Any]:
    """The transformer on raw pseudo-parameters ``(3 K, ...)``: ``y`` and ``log dy/dx``, each ``(...)``, in nats.

    ``floor``: see :func:`constrain`.
    """
    return mixture_quantile(x, *constrain(theta, floor))


def bracket(y: Any, theta: Any, floor: float | None = None) -> tuple[Any, Any]:
    """An interval that holds the x with ``mog(x) = y``.

    A quantile of a mixture lies between the components' own, ``m_k + s_k y``.
    """
    _, mean, log_scale = constrain(theta, floor)
    quantiles = mean + np.exp(log_scale) * y
    return np.min(quantiles, axis=0), np.max(quantiles, axis=0)
