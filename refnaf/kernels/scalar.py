"""Elementary functions of one number, written once for every compiler and dtype.

:func:`make` takes the compiler and the dtype and returns the functions. They are free of branches, tables and tuples,
so that a loop over an array becomes vector instructions, and of numbers of any other dtype, so that a float32 kernel
stays float32. ``tests/kernels/test_scalar.py`` holds each to a number of units in the last place over its whole domain.

``expm1(r)`` on ``|r| <= log(2) / 2`` is ``r + r^2 P(r)``, and ``atanh(s) = s + s^3 Q(s^2) / 2``: P and Q are Chebyshev
approximations, whose relative error is below an eighth of a unit (:data:`COEFFICIENTS`). In expm1 and log1p, what the
reduced argument lost to rounding is brought back in at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from refnaf.reference.normal import RISE

#: Of each dtype, by function, from the constant up: ``(expm1(r) - r) / r^2``, and ``(2 atanh(s) - 2 s) / s^3`` as a
#: function of ``s^2`` up to 0.0401 (for log) and up to 1/9 (for log1p on [0, 1]).
COEFFICIENTS: dict[Any, dict[str, tuple[float, ...]]] = {
    np.float32: {
        "expm1": (
            0.500000001346581,
            0.16666666681623232,
            0.041666464925285904,
            0.0083333109254809,
            0.0013933649996309251,
            0.00019890990824673654,
        ),
        "log": (0.6666666627321278, 0.4000031364468307, 0.28532545003481563, 0.23751341765880343),
        "log1p": (0.6666666732052742, 0.3999970633192972, 0.28592357994302836, 0.21706575800880373, 0.2322432922402335),
    },
    np.float64: {
        "expm1": (
            0.5,
            0.1666666666666667,
            0.04166666666666667,
            0.008333333333326136,
            0.0013888888888883748,
            0.00019841269874820627,
            2.4801587325547743e-05,
            2.7557255400206422e-06,
            2.75572736431103e-07,
            2.5105217004720745e-08,
            2.0914686968086876e-09,
        ),
        "log": (
            0.6666666666666666,
            0.4000000000000794,
            0.28571428567275936,
            0.2222222304835159,
            0.18181737626302938,
            0.15388867805613718,
            0.13209708242059462,
            0.13609030262858499,
        ),
        "log1p": (
            0.6666666666666666,
            0.39999999999999525,
            0.285714285716001,
            0.2222222219823677,
            0.18181819897962714,
            0.1538454396486055,
            0.13335178631449257,
            0.11734279061303197,
            0.10845178394880015,
            0.07492143795550767,
            0.1563057780092285,
        ),
    },
}

#: Bits of the mantissa, bias of the exponent, the same-sized integer, and the bits of 2/3 (where log splits octaves).
_LAYOUT: dict[Any, tuple[int, int, Any, int]] = {
    np.float32: (23, 127, np.int32, 0x3F2AAAAB),
    np.float64: (52, 1023, np.int64, 0x3FE5555555555555),
}


def make(jit: Callable[[Any], Any], dtype: Any) -> SimpleNamespace:
    """The functions for ``dtype`` (np.float32 or np.float64), each passed through ``jit``.

    ``exp_negative(x)``   exp(x) for x <= 0; below the smallest normal number 0
    ``exp_bounded(x)``    exp(x) for ``|x|`` up to 87 or 708
    ``expm1_negative(x)`` exp(x) - 1 for x <= 0
    ``log1p_unit(x)``     log(1 + x) for 0 <= x <= 1
    ``log(x)``            for positive normal x, and infinity
    ``softplus(x)``       log(1 + exp(x)) for any x
    ``tanh(x)``           for any x
    ``mills(x)``          R(x) = Phi(-x) exp(x^2 / 2) for x >= 0 (:mod:`refnaf.reference.normal`)

    NaN gives NaN.
    """
    mantissa, bias, integer, two_thirds = _LAYOUT[dtype]
    one, two, half = dtype(1), dtype(2), dtype(0.5)
    zero, infinity = dtype(0), dtype(math.inf)
    # adding this to a small number leaves its nearest integer in the lowest bits
    rounder = dtype(1.5 * 2.0**mantissa)
    to_exponent = integer(bias - int(rounder.view(integer)))
    inverse_log2 = dtype(1 / math.log(2))
    # log 2 in two parts, the first with so few digits that its multiples are exact
    log2_high = dtype(np.float32(0.693359375)) if dtype is np.float32 else dtype(0.6931471803691238)
    log2_low = dtype(-2.12194440e-4) if dtype is np.float32 else dtype(1.9082149292705877e-10)
    lowest = dtype((1 - bias) * math.log(2) + (0.001 if dtype is np.float32 else 1e-6))
    shift, octave = integer(mantissa), integer(two_thirds)

    p_expm1 = _horner(jit, dtype, COEFFICIENTS[dtype]["expm1"])
    p_log = _horner(jit, dtype, COEFFICIENTS[dtype]["log"])
    p_log1p = _horner(jit, dtype, COEFFICIENTS[dtype]["log1p"])
    rise_numerator, rise_denominator = (_horner(jit, dtype, c) for c in RISE[np.dtype(dtype)])

    @jit
    def exp_bounded(x: Any) -> Any:
        shifted = x * inverse_log2 + rounder
        n = shifted - rounder
        r = (x - n * log2_high) - n * log2_low
        scale = integer(integer(dtype(shifted).view(integer) + to_exponent) << shift).view(dtype)
        return scale + scale * (r + r * r * p_expm1(r))

    @jit
    def exp_negative(x: Any) -> Any:
        bounded = exp_bounded(lowest if x < lowest else x)
        return zero if x < lowest else bounded

    @jit
    def expm1_negative(x: Any) -> Any:
        x = lowest if x < lowest else x
        shifted = x * inverse_log2 + rounder
        n = shifted - rounder
        high, low = x - n * log2_high, n * log2_low
        r = high - low
        scale = integer(integer(dtype(shifted).view(integer) + to_exponent) << shift).view(dtype)
        return (scale - one) + scale * (high + (r * r * p_expm1(r) - low))

    @jit
    def log1p_unit(x: Any) -> Any:
        below = two + x
        lost = x - (below - two)
        s = x / below
        z = s * s
        return x - s * (x - (z * p_log1p(z) + lost * s))

    @jit
    def log(x: Any) -> Any:
        bits = dtype(x).view(integer)
        k = integer(integer(bits - octave) >> shift)
        f = integer(bits - integer(k << shift)).view(dtype) - one
        n = dtype(k)
        s = f / (two + f)
        z = s * s
        square = half * f * f
        out = n * log2_high - ((square - (s * (square + z * p_log(z)) + n * log2_low)) - f)
        return out if x < infinity else x

    @jit
    def softplus(x: Any) -> Any:
        low = -x if x > zero else x
        return (x if x > zero else zero) + log1p_unit(exp_negative(low))

    @jit
    def tanh(x: Any) -> Any:
        t = expm1_negative(-two * abs(x))
        return math.copysign(t / (two + t), x)

    @jit
    def mills(x: Any) -> Any:
        v = two / (two + x)
        return one / (two + x * (rise_numerator(v) / rise_denominator(v)))

    return SimpleNamespace(
        exp_bounded=exp_bounded,
        exp_negative=exp_negative,
        expm1_negative=expm1_negative,
        log1p_unit=log1p_unit,
        log=log,
        softplus=softplus,
        tanh=tanh,
        mills=mills,
    )


def _horner(jit: Callable[[Any], Any], dtype: Any, coefficients: tuple[float, ...]) -> Any:
    top = dtype(coefficients[-1])
    rest = tuple(dtype(c) for c in coefficients[-2::-1])

    @jit
    def polynomial(x: Any) -> Any:
        out = top
        for c in rest:
            out = out * x + c
        return out

    return polynomial
