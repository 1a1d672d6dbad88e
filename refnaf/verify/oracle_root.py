"""Roots in arbitrary precision, of rising functions that come with the logarithm of their derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refnaf.verify.precision import mpmath

#: No root takes as many steps, of walking or of Newton's method.
STEPS = 5000

Function = Callable[[Any], tuple[Any, Any]]


def solve(function: Function, y: Any) -> Any:
    """The x with ``f(x) = y`` to the current precision, for a rising f given with the logarithm of its derivative.

    Newton's method inside a bracket: a step that leaves it, or follows one that did not halve the residual, is replaced
    by a bisection. Where f itself is no better known than its cancellation allows, the steps stop shrinking, and that
    is where it ends. Raises ArithmeticError where there is no root to be found.
    """
    mp = mpmath().mp
    spacing, quadratic = mp.mpf(10) ** (1 - mp.dps), mp.mpf(10) ** (-mp.dps // 2)
    low, high = _bracket(function, y)
    x, previous, last = y, mp.inf, mp.inf
    for _ in range(STEPS):
        image, log_slope = function(x)
        off = image - y
        low, high = (x, high) if off < 0 else (low, x)
        newton = x - off / mp.exp(log_slope)
        step = abs(newton - x)
        if step <= spacing * abs(x) or (2 * step >= last and last <= quadratic * (1 + abs(x))):
            return newton
        inside = low < newton < high and 2 * abs(off) <= previous
        previous, last, x = (abs(off), step, newton) if inside else (mp.inf, mp.inf, (low + high) / 2)
    raise ArithmeticError(f"no root was found in {STEPS} steps")


def _bracket(function: Function, y: Any) -> tuple[Any, Any]:
    """Points with ``f(low) <= y <= f(high)``, found by walking outwards from y with growing steps."""
    ends: list[Any] = []
    for sign in (-1, 1):
        x, width = y, 1 + abs(y)
        for _ in range(STEPS):
            if sign * (function(x)[0] - y) >= 0:
                break
            x, width = x + sign * width, 4 * width
        else:
            raise ArithmeticError(f"no root was enclosed in {STEPS} steps: the function does not rise without bound")
        ends.append(x)
    return ends[0], ends[1]
