"""MPFR's numbers, by gmpy2, in the place of mpmath's: products are ten times as fast, within a range of exponents.

:class:`Mpfr` has what the transformers' equations use of ``mpmath.mp``, under the same names. Whatever leaves the
range, exponents up to 4.6e18 in base 2, or is not a number, raises ArithmeticError: mpmath then has to answer.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Iterator, Sequence
from operator import mul
from types import ModuleType
from typing import Any

import numpy as np

from refnaf.verify.precision import mpmath

_BITS_A_DIGIT = math.log2(10)


@functools.cache
def mpfr() -> Mpfr | None:
    """The arithmetic, or None where gmpy2 is not installed."""
    try:
        return Mpfr(importlib.import_module("gmpy2"))
    except ImportError:
        return None


class Mpfr:
    """Arithmetic at gmpy2's current precision; to be used within :meth:`active`."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self.mpf = library.mpfr
        for name in ("exp", "expm1", "log", "tanh", "sqrt", "erfc"):
            setattr(self, name, getattr(library, name))

    @contextlib.contextmanager
    def active(self) -> Iterator[Mpfr]:
        """The widest range of exponents, and errors for all that is outside it."""
        library = self._library
        traps = {f"trap_{what}": True for what in ("overflow", "underflow", "divzero", "invalid", "erange")}
        with library.context(emax=library.get_emax_max(), emin=library.get_emin_min(), **traps):
            yield self

    def exact(self, array: Any) -> np.ndarray:
        """Float numbers without rounding: an array of objects of the same shape."""
        wide = np.asarray(array, np.float64)
        out = np.empty(wide.shape, dtype=object)
        out.reshape(-1)[:] = [self._library.mpfr(value, 53) for value in wide.reshape(-1).tolist()]
        return out

    @staticmethod
    def to_mpf(x: Any) -> Any:
        """A number as one of mpmath, without rounding; integers too."""
        if isinstance(x, int):
            return mpmath().mp.mpf(x)
        mantissa, exponent = x.as_mantissa_exp()
        library = mpmath().libmp
        return mpmath().mp.make_mpf(library.from_man_exp(int(mantissa), int(exponent)))

    @property
    def prec(self) -> int:
        """Bits of the current precision."""
        return int(self._library.get_context().precision)

    @property
    def eps(self) -> Any:
        """The spacing of numbers at 1."""
        return self.mpf(2) ** (1 - self.prec)

    @property
    def pi(self) -> Any:
        """To the current precision."""
        return self._library.const_pi()

    def workprec(self, bits: int) -> Any:
        """A context manager that sets the precision, in bits."""
        return self._library.context(self._library.get_context(), precision=bits)

    def workdps(self, digits: int) -> Any:
        """A context manager that sets the precision, in decimal digits, to as many bits as mpmath does."""
        return self.workprec(round((digits + 1) * _BITS_A_DIGIT))

    def extraprec(self, bits: int) -> Any:
        """A context manager that adds to the precision."""
        return self.workprec(self.prec + bits)

    def mag(self, x: Any) -> int:
        """The exponent e of ``x = m 2^e`` with m in [1/2, 1); of zero the smallest."""
        return int(self._library.get_exp(x)) if x != 0 else int(self._library.get_emin_min())

    def fsum(self, values: Any) -> Any:
        """The sum, rounded after each term."""
        return sum(values, self.mpf(0))

    def fdot(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """The sum of products, rounded after each."""
        return sum(map(mul, a, b), self.mpf(0))
