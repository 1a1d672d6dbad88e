"""Newton's method inside a guaranteed bracket, a block of problems at a time (:mod:`refnaf.kernels.array.root`)."""

from __future__ import annotations

import math
from typing import Any

from refnaf.kernels.array.root import ALL_STEPS, NEWTON_STEPS
from refnaf.kernels.cpu.compiler import part

#: Rows of the state of a block. ``DONE`` is 0 until the root is as good as the dtype allows.
POINT, LOW, HIGH, ROOT, LEAST, PREVIOUS, LOG_SLOPE, RESIDUAL, DONE = range(9)
ROWS = 9

__all__ = ["ALL_STEPS"]


@part
def start(state: Any, y: Any, m: int, eps: Any, widest: Any) -> None:
    """Widen the brackets in rows LOW and HIGH by their rounding, and begin at y, where the identity has its root."""
    for n in range(m):
        # an infinite end is that of a function whose image ends before y: the farthest point then stands for the root
        low = min(max(state[LOW, n], -widest), widest)
        high = min(max(state[HIGH, n], -widest), widest)
        state[LOW, n] = low - 4 * eps * abs(low)
        state[HIGH, n] = high + 4 * eps * abs(high)
        state[POINT, n] = min(max(y[n], state[LOW, n]), state[HIGH, n])
        state[ROOT, n] = state[POINT, n]
        state[LEAST, n] = math.inf
        state[PREVIOUS, n] = math.inf
        state[LOG_SLOPE, n] = 0
        state[RESIDUAL, n] = 0
        state[DONE, n] = 0


@part
def advance(state: Any, y: Any, value: Any, log_slope: Any, m: int, step: int, eps: Any) -> int:
    """One step of every problem that is not done, given the function at POINT; how many are left.

    A Newton step that leaves the bracket, or follows one that did not halve the residual, is replaced by a bisection.
    """
    left = 0
    for n in range(m):
        if state[DONE, n] == 1:
            continue
        point = state[POINT, n]
        off = value[n] - y[n]
        size = abs(off)
        if size <= state[LEAST, n]:
            state[ROOT, n], state[LOG_SLOPE, n], state[RESIDUAL, n] = point, log_slope[n], off
            state[LEAST, n] = size
        if off < 0:
            state[LOW, n] = point
        if off > 0:
            state[HIGH, n] = point
        low, high = state[LOW, n], state[HIGH, n]
        target = point - off * math.exp(-log_slope[n])
        slow = size > 0.5 * state[PREVIOUS, n] or step >= NEWTON_STEPS
        # a converged Newton step may land on the bracket's end; it is smaller than the spacing of floats
        spacing = 2 * eps * abs(point)
        if off == 0 or abs(target - point) <= spacing or high - low <= spacing or not math.isfinite(off):
            state[DONE, n] = 1
            continue
        state[PREVIOUS, n] = math.inf if slow else size
        inside = low < target < high and not slow
        state[POINT, n] = target if inside else low + (high - low) / 2
        left += 1
    return left


@part
def finish(state: Any, start: int, m: int, x: Any, log_slope: Any, residual: Any) -> None:
    """The block's roots, the inverse's log-slopes and the residuals to their places."""
    for n in range(m):
        x[start + n] = state[ROOT, n]
        log_slope[start + n] = -state[LOG_SLOPE, n]
        residual[start + n] = state[RESIDUAL, n]
