"""Points of the plane seen through round Gaussian noise, all of one standard deviation: the densities of toy sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refnaf.datasets.plane import columns, radius
from refnaf.datasets.quadrature import panels
from refnaf.reference._numpy import value
from refnaf.reference.stable import logsumexp

_PANEL = 5.0  # the longest panel of the quadrature along a curve, in standard deviations of the noise
_FEWEST = 20  # panels
_TRIAL = 2001  # points that the fastest move along a curve is found by

Position = Callable[[numpy.ndarray, Any], numpy.ndarray]


def points_log_density(x: Any, centres: numpy.ndarray, log_weights: numpy.ndarray | float, sd: float) -> Any:
    """``log sum_k w_k N(x; c_k, sd^2 I)`` ``(N,)`` for x ``(N, 2)`` and centres c ``(K, 2)``, in nats."""
    x1, x2 = columns(x, name="x")
    first, second = (centres[:, k, None] / sd**2 for k in range(2))
    own = log_weights - 0.5 * ((centres / sd) ** 2).sum(axis=1)
    # |x - c|^2 expanded: what all the centres have in common stays out of the exponentials
    return logsumexp(first * x1 + second * x2 + own[:, None]) - 0.5 * (x1**2 + x2**2) / sd**2 - _log_scale(sd)


def curve_nodes(position: Position, arms: int, power: int, sd: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Centres ``(K, 2)`` and log weights ``(K,)`` that stand for a curve of several arms under noise.

    A point of the curve is ``position(s, arm)``, s in [0, 1] with the density ``power s^(power - 1)``, every arm as
    likely as the others. The nodes are those of a composite Gauss-Legendre rule in s. For the sets of
    :mod:`.samples` the log density is right to 1e-9 nats where |x1| and |x2| are at most 7, to 1e-5 where they are 20.
    """
    s = numpy.linspace(0.0, 1.0, _TRIAL)
    fastest = max(numpy.hypot(*numpy.diff(position(s, arm), axis=0).T).max() for arm in range(arms)) * (_TRIAL - 1)
    count = max(math.ceil(math.pi / 2 * fastest / sd / _PANEL), _FEWEST)
    # crowded at the ends: seen from far out, an end fades along the curve much faster than the noise does
    s, weights = panels((1 - numpy.cos(math.pi * numpy.arange(count + 1) / count)) / 2)
    log_weights = numpy.log(weights * power * s ** (power - 1) / arms)
    return numpy.concatenate([position(s, arm) for arm in range(arms)]), numpy.tile(log_weights, arms)


def circle_log_density(x: Any, circle: float, sd: Any) -> Any:
    """Log density ``(N,)`` of x ``(N, 2)``, points of the circle of radius R about the origin under noise, in nats.

    With r = |x| and I0 the modified Bessel function (a Rice distribution of r),

        p(x) = 1 / (2 pi sd^2) exp(-(r^2 + R^2) / (2 sd^2)) I0(r R / sd^2)

    ``sd`` is a number or an array ``(N,)``: with ``x`` and ``c[:, 0]`` of ``data/context_example.npz`` and R = 2 this
    is the density of x given c.
    """
    r = radius(*columns(x, name="x"))
    # exp(-|q|) I0(q) turns the exponent into a square
    return -0.5 * ((r - circle) / sd) ** 2 + _log_scaled_i0(r * (circle / sd**2)) - _log_scale(sd)


def _log_scale(sd: Any) -> Any:
    return numpy.log(2 * math.pi * sd**2)


def _log_scaled_i0(q: Any) -> Any:
    """``log(exp(-q) I0(q))`` for q >= 0; a traced q is given the first derivative, ``I1(q) / I0(q) - 1``."""
    from scipy.special import i0e, i1e

    numbers = value(q)
    here = i0e(numbers)
    if numbers is q:
        return numpy.log(here)
    return numpy.log(here) + (i1e(numbers) / here - 1) * (q - numbers)
