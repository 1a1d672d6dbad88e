"""Monotone 1-D roots by Newton's method inside a guaranteed bracket, many at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: After this many steps only bisection is left, which cannot fail; both together stay below the second number.
NEWTON_STEPS, ALL_STEPS = 60, 1200


def widest(dtype: np.dtype) -> float:
    """How far out a root is looked for."""
    return min(float(np.finfo(dtype).max) / 4, 1e300)


def monotone_root(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve ``f_n(x_n) = y_n`` for increasing functions with roots in ``[low_n, high_n]``.

    ``function(x, index)`` returns ``f`` and ``log f'`` of the problems ``index`` at x. A Newton step that leaves the
    bracket, or follows one that did not halve the residual, is replaced by a bisection. Returns x, ``log f'(x)`` and
    the residual ``f(x) - y``, each ``(N,)``; x is as good as the dtype allows: the bracket has closed, or a step has
    become smaller than the spacing of floats.
    """
    eps = np.finfo(y.dtype).eps
    far = widest(y.dtype)
    # an infinite end is that of a function whose image ends before y: the farthest point then stands for the root
    low, high = np.clip(low, -far, far), np.clip(high, -far, far)
    low, high = low - 4 * eps * np.abs(low), high + 4 * eps * np.abs(high)
    x = np.clip(y, low, high)
    log_slope, residual = np.zeros_like(y), np.zeros_like(y)
    best, active, point = x.copy(), np.arange(len(y)), x.copy()
    previous = np.full_like(y, np.inf)
    least = np.full_like(y, np.inf)
    for step in range(ALL_STEPS):
        if not len(active):
            break
        value, slope = function(point, active)
        off = value - y[active]
        better = np.abs(off) <= least[active]
        chosen = active[better]
        best[chosen], log_slope[chosen], residual[chosen] = point[better], slope[better], off[better]
        least[chosen] = np.abs(off[better])
        lo = np.where(off < 0, point, low[active])
        hi = np.where(off > 0, point, high[active])
        low[active], high[active] = lo, hi
        with np.errstate(all="ignore"):
            target = point - off * np.exp(-slope)
        middle = lo + (hi - lo) / 2
        slow = (np.abs(off) > 0.5 * previous[active]) | (step >= NEWTON_STEPS)
        inside = (target > lo) & (target < hi) & ~slow
        # a converged Newton step may land on the bracket's end; it is smaller than the spacing of floats
        spacing = 2 * eps * np.abs(point)
        done = (off == 0) | (np.abs(target - point) <= spacing) | (hi - lo <= spacing) | ~np.isfinite(off)
        previous[active] = np.where(slow, np.inf, np.abs(off))
        point = np.where(inside, target, middle)[~done]
        active = active[~done]
    return best, log_slope, residual
