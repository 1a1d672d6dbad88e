"""Newton's method inside a guaranteed bracket, a problem a thread (:mod:`refnaf.kernels.array.root`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refnaf.kernels.array.root import ALL_STEPS, NEWTON_STEPS, widest
from refnaf.kernels.cuda.compiler import part


def solver(dtype: Any, evaluate: Callable[..., tuple[Any, Any]]) -> Any:
    """A device function ``solve(y, low, high, *rest) -> (x, log dy/dx, residual)``.

    ``evaluate(x, *rest)`` gives y and log dy/dx; ``rest`` are six arguments. The bracket may be infinite.
    """
    zero, two, four, half = dtype(0), dtype(2), dtype(4), dtype(0.5)
    eps, infinity, farthest = np.finfo(dtype).eps, dtype(math.inf), dtype(widest(np.dtype(dtype)))

    @part
    def solve(y: Any, low: Any, high: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
        # an infinite end is that of a function whose image ends before y: the farthest point then stands for the root
        low = min(max(low, -farthest), farthest)
        high = min(max(high, -farthest), farthest)
        low -= four * eps * abs(low)
        high += four * eps * abs(high)
        point = min(max(y, low), high)
        # of a y that is no number, neither is the residual
        root, log_slope, residual = point, zero, y - y
        least, previous = infinity, infinity
        for step in range(ALL_STEPS):
            value, slope = evaluate(point, a, b, c, d, e, f)
            off = value - y
            size = abs(off)
            if size <= least:
                root, log_slope, residual, least = point, slope, off, size
            low = point if off < zero else low
            high = point if off > zero else high
            target = point - off * math.exp(-slope)
            slow = size > half * previous or step >= NEWTON_STEPS
            # a converged Newton step may land on the bracket's end; it is smaller than the spacing of floats
            spacing = two * eps * abs(point)
            if not (size > zero and abs(target - point) > spacing and high - low > spacing and size < infinity):
                break
            previous = infinity if slow else size
            point = target if low < target < high and not slow else low + (high - low) * half
        return root, log_slope, residual

    return solve
