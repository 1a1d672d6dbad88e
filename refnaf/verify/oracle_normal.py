"""The standard normal distribution in arbitrary precision: density, tails, and the quantile from either tail."""

from __future__ import annotations

from typing import Any

from refnaf.verify.precision import arithmetic

#: From here on the asymptotic series stands for mpmath's erfc, which fails from 1e154 on. Its terms fall by the square
#: of this, until their index is as large as that: far beyond any precision here.
FAR = 1e8


def log_density(x: Any) -> Any:
    """``log phi(x)``."""
    mp = arithmetic()
    return -x * x / 2 - mp.log(2 * mp.pi) / 2


def tail(x: Any) -> Any:
    """``Phi(-x) = erfc(x / sqrt 2) / 2``, the mass beyond x; ``phi(x) (1/x - 1/x^3 + 3/x^5 - ...)`` far out."""
    mp = arithmetic()
    if x < -FAR:
        return 1 - tail(-x)
    if x <= FAR:
        return mp.erfc(x / mp.sqrt(2)) / 2
    term, total, k = 1 / x, mp.mpf(0), 1
    while total + term != total:
        total += term
        term, k = -term * k / (x * x), k + 2
    return mp.exp(log_density(x)) * total


def quantile(lower: Any, upper: Any) -> Any:
    """The x that has the mass ``lower`` below it and ``upper = 1 - lower`` above it, both positive.

    Newton's method for the logarithm of the smaller one. ``log Phi(-v)`` is concave and falls, and v starts above the
    root, since ``Phi(-v) <= exp(-v^2 / 2) / 2``: in exact arithmetic the steps come down to the root and never pass it.
    """
    mp = arithmetic()
    part = min(lower, upper)
    v = mp.sqrt(max(-2 * mp.log(2 * part), 0))
    while True:
        beyond = tail(v)
        step = mp.log(part / beyond) * beyond / mp.exp(log_density(v))
        # what is not a step down is rounding
        if not step > abs(v) * mp.eps:
            break
        v -= step
    return v if upper <= lower else -v
