"""Arbitrary precision: mpmath, loaded when first needed, and numbers that are right to as many digits as asked for.

Formulas written straight from the equations lose digits to cancellation. Here they are evaluated at some precision and
again with ten digits more; what the two disagree by is what the first one lost. Until they agree to the wanted number
of digits the precision is doubled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

#: Digits beyond the wanted ones at the first attempt, and those by which the second evaluation exceeds it.
GUARD, MORE = 15, 10
#: Numbers below ten to this power are zero to any float64. A sum that cancels without rest may still be smaller than
#: the precision rather than zero, and is believed only where that many digits were carried.
NOTHING = -330
#: More digits than any difference of float64 numbers and their exponentials here can need.
MOST_DIGITS = 50_000


def mpmath() -> ModuleType:
    """The library. Raises ImportError, in one line, where it is not installed."""
    try:
        import mpmath as library
    except ImportError:
        raise ImportError('the high-precision oracle needs mpmath: pip install "refnaf[verify]"') from None
    return library


#: What stands for mpmath's numbers, within :func:`computing_with`.
_OTHER: ContextVar[Any] = ContextVar("arithmetic", default=None)


def arithmetic() -> Any:
    """What the equations compute with: ``mpmath.mp``, unless :func:`computing_with` says otherwise."""
    other = _OTHER.get()
    return mpmath().mp if other is None else other


@contextlib.contextmanager
def computing_with(other: Any) -> Iterator[None]:
    """Within it :func:`arithmetic` is another one, that has what is used of ``mpmath.mp`` under the same names."""
    token = _OTHER.set(other)
    try:
        yield
    finally:
        _OTHER.reset(token)


def exact(array: Any) -> np.ndarray:
    """Float numbers as mpf, without rounding: an array of objects of the same shape."""
    mp = mpmath().mp
    wide = np.asarray(array, dtype=np.float64)
    out = np.empty(wide.shape, dtype=object)
    with mp.workdps(30):
        out.reshape(-1)[:] = [mp.mpf(value) for value in wide.reshape(-1).tolist()]
    return out


def rounded(array: Any) -> np.ndarray:
    """mpf numbers rounded to float64, an array of the same shape; infinite where they are beyond its range."""
    objects = np.asarray(array, dtype=object)
    return np.array([float(value) for value in objects.reshape(-1)], dtype=np.float64).reshape(objects.shape)


def settled(compute: Callable[[], T], numbers: Callable[[T], Sequence[Any]], digits: int) -> T:
    """What ``compute()`` returns, its ``numbers`` good to ``digits`` significant digits.

    ``compute`` works at the current precision of :func:`arithmetic` and is called at more and more of it. Its numbers
    are compared, but for Python's integers, which are exact. Raises ArithmeticError where that does not end.
    """
    mp = arithmetic()
    precision, enough = digits + GUARD, digits + GUARD - NOTHING
    while precision <= MOST_DIGITS:
        with mp.workdps(precision):
            first = numbers(compute())
        with mp.workdps(precision + MORE):
            result = compute()
        with mp.workdps(20):
            tolerance, nothing = mp.mpf(10) ** -digits, mp.mpf(10) ** NOTHING
            pairs = [pair for pair in zip(first, numbers(result), strict=True) if not isinstance(pair[0], int)]
            open_ = [max(abs(a), abs(b)) for a, b in pairs if b == 0 or not abs(a - b) <= tolerance * abs(b)]
            if not open_ or (precision >= enough and max(open_) < nothing):
                return result
            # what is left may be cancellation without rest, which needs all the digits at once
            vanishing = max(open_) < mp.mpf(10) ** (-precision // 2)
        precision = max(2 * precision, enough) if vanishing else 2 * precision
    raise ArithmeticError(f"no {digits} digits are certain after {MOST_DIGITS} of working precision")
