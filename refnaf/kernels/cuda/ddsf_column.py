"""What a thread does with one column of a deep dense sigmoidal flow: everything that its kernels share."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

from refnaf.kernels.cuda.compiler import part
from refnaf.kernels.cuda.elementary import functions

#: Rows of ``units``: shares of s(p), s(-p) and of the density, or ``e^u`` times h and t and alone.
FIRST, SECOND, THIRD, UNIT_ROWS = range(4)
#: Rows of ``layer``: h and t of the outputs, the three sums behind them, v, v' and its normaliser of the units.
OUT_H, OUT_T, SUM_PLUS, SUM_MINUS, SUM_MASS, IN_V, IN_DV, IN_NORM, LAYER_ROWS = range(9)
#: Rows of ``kept``: softplus(a), s(p), s(-p), exp(w - max), p'.
SOFT, PLUS, MINUS, WEIGHT, SLOPE, KEPT_ROWS = range(6)


@cache
def column_functions(dtype: Any, d: int, layers: int) -> SimpleNamespace:
    """Device functions for np.float32 or np.float64, d units and so many layers.

    ``largest(theta, i, row, n)``  of d logits from a row on
    ``mix(theta, i, row, n, layer, k, units)``  ``e^u`` times what layer k reads, into ``units``
    ``unit(theta, i, row, n, j, v, dv, top, offset, floor, kept)``  one unit's numbers, into ``kept``
    ``shares(kept, units)``  what they add to the sums, into ``units``
    ``weighted(e, at, step, count, rows)``  sums of three rows by entries of a matrix, so many of them a step apart
    ``evaluate(x, theta, i, n, e, offset, floor, layer, units, kept)``  all of ``layer``, and the least sum; x's image
        and the tangent are ``layer[layers - 1, OUT_H, 0]`` and ``[..., OUT_T, 0]``
    ``bracket(y, theta, i, n, offset, floor)``  an interval around the root
    """
    f = functions(dtype)
    exp_negative, log, softplus = f.exp_negative, f.log, f.softplus
    zero, one, infinity = dtype(0), dtype(1), dtype(math.inf)

    @part
    def largest(theta: Any, i: Any, row: Any, n: Any) -> Any:
        top = theta[i, row, n]
        for j in range(1, d):
            top = max(top, theta[i, row + j, n])
        return top

    @part
    def mix(theta: Any, i: Any, row: Any, n: Any, layer: Any, k: Any, units: Any) -> None:
        top = largest(theta, i, row, n)
        for j in range(d):
            ec = exp_negative(theta[i, row + j, n] - top)
            units[FIRST, j] = ec * layer[k - 1, OUT_H, j]
            units[SECOND, j] = ec * layer[k - 1, OUT_T, j]
            units[THIRD, j] = ec

    @part
    def unit(
        theta: Any, i: Any, row: Any, n: Any, j: Any, v: Any, dv: Any, top: Any, offset: Any, floor: Any, kept: Any
    ) -> None:
        soft = softplus(theta[i, row + j, n] + offset)
        a = soft + floor
        p = a * v + theta[i, row + d + j, n]
        tail = exp_negative(-abs(p))
        r = one / (one + tail)
        small = tail * r
        kept[SOFT, j], kept[SLOPE, j] = soft, a * dv
        kept[PLUS, j], kept[MINUS, j] = (r, small) if p >= zero else (small, r)
        kept[WEIGHT, j] = exp_negative(theta[i, row + 2 * d + j, n] - top)

    @part
    def shares(kept: Any, units: Any) -> None:
        for j in range(d):
            w, plus, minus = kept[WEIGHT, j], kept[PLUS, j], kept[MINUS, j]
            units[FIRST, j], units[SECOND, j], units[THIRD, j] = (
                w * plus,
                w * minus,
                w * (plus * minus) * kept[SLOPE, j],
            )

    @part
    def weighted(e: Any, at: Any, step: Any, count: Any, rows: Any) -> Any:
        first, second, third = zero, zero, zero
        for m in range(count):
            factor = e[at + m * step]
            first += factor * rows[FIRST, m]
            second += factor * rows[SECOND, m]
            third += factor * rows[THIRD, m]
        return first, second, third

    @part
    def evaluate(
        x: Any, theta: Any, i: Any, n: Any, e: Any, offset: Any, floor: Any, layer: Any, units: Any, kept: Any
    ) -> Any:
        least = one
        at, row = 0, 0
        for k in range(layers):
            if k == 0:
                for j in range(d):
                    layer[k, IN_V, j], layer[k, IN_DV, j] = x, one
            else:
                mix(theta, i, row + 3 * d, n, layer, k, units)
                for j in range(d):
                    on_h, on_t, norm = weighted(e, at + j * d, 1, d, units)
                    inverse = one / norm
                    layer[k, IN_V, j], layer[k, IN_DV, j], layer[k, IN_NORM, j] = on_h * inverse, on_t * inverse, norm
                at += d * d
            top = largest(theta, i, row + 2 * d, n)
            for j in range(d):
                unit(theta, i, row, n, j, layer[k, IN_V, j], layer[k, IN_DV, j], top, offset, floor, kept)
            shares(kept, units)
            outs = 1 if k == layers - 1 else d
            for o in range(outs):
                s_plus, s_minus, mass = weighted(e, at + o * d, 1, d, units)
                layer[k, SUM_PLUS, o], layer[k, SUM_MINUS, o], layer[k, SUM_MASS, o] = s_plus, s_minus, mass
                low = min(s_plus, s_minus, mass)
                # written so that NaN is taken for the least
                least = least if low >= least else low
                # the sums have a common factor, which logarithms taken one by one would turn into a cancellation
                layer[k, OUT_H, o] = log(s_plus / s_minus)
                layer[k, OUT_T, o] = (mass / s_plus) * ((s_plus + s_minus) / s_minus)
            at += outs * d
            row += 4 * d if k > 0 else 3 * d
        return least

    @part
    def bracket(y: Any, theta: Any, i: Any, n: Any, offset: Any, floor: Any) -> Any:
        low, high = y, y
        row = (4 * layers - 1) * d
        for k in range(layers - 1, -1, -1):
            row -= 4 * d if k > 0 else 3 * d
            least, most = infinity, -infinity
            for j in range(d):
                a, b = softplus(theta[i, row + j, n] + offset) + floor, theta[i, row + d + j, n]
                least, most = min(least, (low - b) / a), max(most, (high - b) / a)
            low, high = least, most
        return low, high

    names = {"largest": largest, "mix": mix, "unit": unit, "shares": shares, "weighted": weighted}
    return SimpleNamespace(**names, evaluate=evaluate, bracket=bracket)
