"""Planar flows (slides eq. 8-9, Rezende and Mohamed 2015).

    f(z) = z + u^ tanh(w'z + b),    log|det df/dz| = log|1 + u^' psi(z)|,    psi(z) = (1 - tanh^2(w'z + b)) w

f is a bijection where ``w'u^ > -1``. As in the paper's appendix, any u is moved along w until that holds:
``u^ = u + (m(w'u) - w'u) w / |w|^2``, with m increasing from -1 to infinity. Here ``1 + m`` is :func:`.stable.slopes`,
the paper's softplus with an offset, so that m(0) = 0 (u = 0 is the identity), and a floor, so that f is nowhere flat.

Arrays are feature-major: z ``(D, N)``; u and w ``(D, N)``, or ``(D, 1)`` for all samples; b ``(N,)`` or ``(1,)``.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.stable import log_sigmoid, slopes


def constrain(u: Any, w: Any) -> tuple[Any, Any]:
    """``u^`` ``(D, N)`` and the slope ``1 + w'u^ > 0`` ``(N,)`` of f along w where tanh is steepest."""
    along = np.sum(w * u, axis=0)
    slope = slopes(along)
    square = np.sum(w * w, axis=0)
    # where w vanishes, so does w'u, and so does f's dependence on u^
    square = square + (value(square) == 0).astype(value(square).dtype)
    return u + ((slope - 1 - along) / square) * w, slope


def tanh(p: Any) -> Any:
    """``tanh p``; from 20 on it is 1 to the last digit, and autograd's derivative of it would overflow."""
    dtype = value(p).dtype
    within = (abs(value(p)) < 20).astype(dtype)
    return np.tanh(p * within) + numpy.sign(value(p)) * (1 - within)


def log_slope(p: Any, slope: Any) -> Any:
    """``log(1 + u^' psi)`` at ``p = w'z + b``, as ``log(tanh^2 p + slope (1 - tanh^2 p))``: a sum of positive terms."""
    sech_squared = 4 * np.exp(log_sigmoid(2 * p) + log_sigmoid(-2 * p))
    return np.log(tanh(p) ** 2 + slope * sech_squared)


def planar(z: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any]:
    """Equations 8 and 9: ``f(z)`` ``(D, N)`` and its log-determinant ``(N,)``, in nats."""
    u_hat, slope = constrain(u, w)
    p = np.sum(w * z, axis=0) + b
    return z + u_hat * tanh(p), log_slope(p, slope)


def bracket(target: Any, slope: Any) -> tuple[Any, Any]:
    """An interval that holds the p with ``p + w'u^ tanh p = target``, ``w'u^`` being ``slope - 1``."""
    reach = numpy.abs(slope - 1)
    return target - reach, target + reach


def inverse_from(z: Any, f: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any]:
    """One Newton step from the plain numbers z, at or near the inverse image of f: z and ``-log|det df/dz|``.

    From the inverse image itself the step changes no number, and gives autograd its derivative.
    """
    u_hat, slope = constrain(u, w)
    p = np.sum(w * z, axis=0) + b
    off = p + (slope - 1) * tanh(p) - np.sum(w * f, axis=0) - b
    p = p - off * np.exp(-log_slope(p, slope))
    return f - u_hat * tanh(p), -log_slope(p, slope)
