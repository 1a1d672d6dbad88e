"""Rows of the plane as the toy targets take them, traced by autograd or not."""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value


def columns(z: Any, count: int = 2, name: str = "z") -> tuple[Any, ...]:
    """The ``count`` columns ``(N,)`` of rows ``(N, count)``; integers become float64, floats keep their dtype.

    Raises ValueError for any other shape and for what is not a real number.
    """
    numbers = numpy.asarray(value(z))
    if numbers.ndim != 2 or numbers.shape[1] != count:
        remedy = f"reshape to {count} column{'s' if count > 1 else ''}, a row a point"
        raise ValueError(f"{name} must have shape (N, {count}), but has {numbers.shape}; {remedy}")
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but has dtype {numbers.dtype}; convert it to float64")
    if z is value(z):
        z = numbers if numbers.dtype.kind == "f" else numbers.astype(numpy.float64)
    return tuple(z[:, k] for k in range(count))


def radius(a: Any, b: Any) -> Any:
    """``sqrt(a^2 + b^2)``, whose gradient at the origin, where it has none, is taken as zero."""
    square = a**2 + b**2
    origin = (value(square) == 0).astype(value(square).dtype)
    return np.sqrt(square + origin) - origin
