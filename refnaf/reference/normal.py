"""The tail of the standard normal distribution, without loss however far out.

    R(u) = Phi(-u) exp(u^2 / 2),    u >= 0

is Mills' ratio over ``sqrt(2 pi)``, or ``erfcx(u / sqrt 2) / 2``. It falls like ``1 / u``: sums and quotients of tails
are taken with the exponentials in front of it treated apart. Its derivative is ``u R - 1 / sqrt(2 pi)``.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value

#: ``R(u) / v`` as a rational function of ``v = 2 / (2 + u)``, which maps the half-line to (0, 1]: numerator and
#: denominator from the constant up. Fitted by Remez's exchange in 60 digits for the least relative error, which is
#: 1.4e-16 and 4.3e-8.
MILLS: dict[Any, tuple[tuple[float, ...], tuple[float, ...]]] = {
    numpy.dtype(numpy.float64): (
        (
            0.19947114020071632,
            0.5979434591853323,
            2.4850654895564013,
            5.155172134318271,
            10.29647990852661,
            14.397683406223958,
            16.928098826213954,
            14.761172016095035,
            9.377507641952409,
            3.4264704892749878,
            0.01414211656440309,
        ),
        (
            1.0,
            1.9976439628490672,
            9.710626878053514,
            14.385340611362993,
            29.763673729672835,
            30.385704203963005,
            32.890305400161665,
            20.509189021969277,
            10.994288583170286,
            3.1362096695522275,
            0.5054311954692693,
        ),
    ),
    numpy.dtype(numpy.float32): (
        (0.199471149, 0.0907845347, 0.392391594, 0.235203118, 0.183266996),
        (1.0, -0.544863833, 1.76163903, -0.418293525, 0.425844003, -0.0220909882),
    ),
}


def _rise(numerator: tuple[float, ...], denominator: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``(Q - 2 v P) / (1 - v)`` and ``2 P`` for ``R / v = P / Q``: of Q - 2 v P, 1 is a root, since R(0) = 1 / 2."""
    difference = numpy.array([*denominator, *[0.0] * (1 + len(numerator) - len(denominator))])
    difference[1 : 1 + len(numerator)] -= 2 * numpy.array(numerator)
    return tuple(numpy.cumsum(difference)[:-1].tolist()), tuple(2 * a for a in numerator)


#: ``S = (1 / R - 2) / u``, which rises from 1.6 to 2.5, as a rational function of v, made of the one above. Where u is
#: small, and quantiles are, the rounding of S hardly counts in ``2 + u S``, and that of P / Q does in R.
RISE = {dtype: _rise(*coefficients) for dtype, coefficients in MILLS.items()}

#: ``phi(0)``.
_DENSITY = float(1 / numpy.sqrt(2 * numpy.pi))

#: Halley steps of :func:`excess` from its starting point: after them the error is below the rounding.
STEPS = {numpy.dtype(numpy.float64): 3, numpy.dtype(numpy.float32): 2}


def polynomial(v: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's rule; coefficients from the constant up."""
    out = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        out = out * v + coefficient
    return out


def mills(u: Any) -> Any:
    """``R(u) = Phi(-u) exp(u^2 / 2)`` for u >= 0, to 3 units in the last place, up to a third of the largest float."""
    numerator, denominator = RISE[value(u).dtype]
    v = 2 / (2 + u)
    return 1 / (2 + u * (polynomial(v, numerator) / polynomial(v, denominator)))


def hazard(u: Any) -> Any:
    """``phi(u) / Phi(-u) = 1 / (sqrt(2 pi) R(u))``, for u >= 0."""
    return _DENSITY / mills(u)


def excess(u: Any, log_part: Any) -> Any:
    """How much farther than u the quantile of a part of u's tail lies: ``Phi(-(u + e)) = part Phi(-u)``.

    ``u >= 0`` and ``log_part <= 0`` to e >= 0, all of one shape; the squares of u and u + e never appear. The start
    takes the hazard at u for the slope of ``-log Phi(-u - e)`` and 1 for its curvature, which lies in (0, 1): exact at
    both ends. Halley's steps do the rest. A traced argument is differentiated through two Newton steps from the root:
    right up to second derivatives.
    """
    plain_u, plain = value(u), value(log_part)
    ratio = mills(plain_u)
    linear = -plain * (ratio / _DENSITY)
    with numpy.errstate(all="ignore"):
        e = 2 * linear / (1 + numpy.sqrt(1 + 2 * linear * (ratio / _DENSITY)))
        for _ in range(STEPS[plain.dtype]):
            newton, rate = _newton(e, plain_u, ratio, plain)
            e = e - newton / (1 - 0.5 * newton * (rate - plain_u - e))
    if plain_u is not u or plain is not log_part:
        for _ in range(2):
            e = e - _newton(e, u, mills(u), log_part)[0]
    return e


def _newton(e: Any, u: Any, ratio: Any, log_part: Any) -> tuple[Any, Any]:
    """The Newton step of ``log part = log (Phi(-u - e) / Phi(-u))`` from e, and the hazard there; ``ratio`` is R(u).

    Derivatives of a quotient square its denominator, which far out would underflow: it is brought to 1 before.
    """
    there, size = mills(u + e), 1 / value(ratio)
    quotient = (there * size) / (ratio * size)
    return (e * (u + 0.5 * e) - np.log(quotient) + log_part) * there / _DENSITY, _DENSITY / value(there)
