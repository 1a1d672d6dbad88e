"""The functions of :mod:`refnaf.kernels.scalar` by name, for kernels of either dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from refnaf.kernels import scalar
from refnaf.kernels.cpu.compiler import FLAGS

# dispatchers, so that each is compiled once however many kernels and functions call it
_JIT = njit(**FLAGS)
_OF = {types.float32: scalar.make(_JIT, np.float32), types.float64: scalar.make(_JIT, np.float64)}


def exp_negative(x: Any) -> Any:
    """``exp(x)`` for x <= 0."""
    raise NotImplementedError("for compiled kernels only")


def exp_bounded(x: Any) -> Any:
    """``exp(x)`` for x whose exponential is a normal number."""
    raise NotImplementedError("for compiled kernels only")


def expm1_negative(x: Any) -> Any:
    """``exp(x) - 1`` for x <= 0."""
    raise NotImplementedError("for compiled kernels only")


def log1p_unit(x: Any) -> Any:
    """``log(1 + x)`` for 0 <= x <= 1."""
    raise NotImplementedError("for compiled kernels only")


def log(x: Any) -> Any:
    """The logarithm of a positive normal number."""
    raise NotImplementedError("for compiled kernels only")


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``."""
    raise NotImplementedError("for compiled kernels only")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError("for compiled kernels only")


def mills(x: Any) -> Any:
    """``Phi(-x) exp(x^2 / 2)`` for x >= 0."""
    raise NotImplementedError("for compiled kernels only")


def _offer(stub: Any) -> None:
    @overload(stub, inline="always")
    def choose(x: Any) -> Any:
        function = getattr(_OF[x], stub.__name__)

        def call(x: Any) -> Any:
            return function(x)

        return call


for _stub in (exp_negative, exp_bounded, expm1_negative, log1p_unit, log, softplus, tanh, mills):
    _offer(_stub)
