"""What a block network does between its matrix products (:mod:`refnaf.kernels.array.block`), compiled: the activation
with its tangent, the two paths to y, and their VJPs. Each reads and writes an array once.

A loop that a compiler is to make vector instructions of may write through few pointers; hence a scratch array with rows
at fixed offsets, and copies out of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.elementary import exp_negative, expm1_negative, log
from refnaf.kernels.cpu.sums import total

#: Samples a block of scratch.
BLOCK = 256
_TWO, _THREE, _FOUR = 2 * BLOCK, 3 * BLOCK, 4 * BLOCK


@part
def activated(z: Any, bias: Any, leak: Any, work: Any) -> None:
    """From sums z and a bias, rows of ``work`` of BLOCK numbers: ``a = tanh + leak z``, ``a'``, and with a leak
    ``tanh tanh' / a'``."""
    one, two, four = work.dtype.type(1), work.dtype.type(2), work.dtype.type(4)
    for n in range(len(z)):
        value = z[n] + bias
        low = -two * abs(value)
        e, less = exp_negative(low), expm1_negative(low)
        inverse = one / (two + less)
        work[n] = math.copysign(less * inverse, value)
        work[BLOCK + n] = four * e * inverse * inverse
    if leak > 0:
        for n in range(len(z)):
            slope = work[BLOCK + n] + leak
            work[_TWO + n] = work[n] * (work[BLOCK + n] / slope)
            work[BLOCK + n] = slope
        for n in range(len(z)):
            work[n] = work[n] + leak * (z[n] + bias)


@kernel
def activate(
    z: Any, bias: Any, tangent: Any, first: Any, leak: float, slopes: Any, curves: Any, begin: bool, keep: bool
) -> None:
    """The activation in place of z ``(units, N)``, and its slope times the tangent in place of that; where it all
    begins, tangents are those of ``first``, a number a unit."""
    dtype = z.dtype.type
    rate = dtype(leak)
    work = np.empty(3 * BLOCK, z.dtype)
    units, count = z.shape
    for r in range(units):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            zs, vs = z[r, start:stop], tangent[r, start:stop]
            activated(zs, bias[r], rate, work)
            if begin:
                for n in range(m):
                    vs[n] = first[r] * work[BLOCK + n]
            else:
                for n in range(m):
                    vs[n] = vs[n] * work[BLOCK + n]
            for n in range(m):
                zs[n] = work[n]
            if keep:
                ss = slopes[r, start:stop]
                for n in range(m):
                    ss[n] = work[BLOCK + n]
                if leak > 0:
                    cs = curves[r, start:stop]
                    for n in range(m):
                        cs[n] = work[_TWO + n]


@kernel
def finish(x: Any, f: Any, bias: Any, tangent: Any, mixed: Any, least: float, y: Any, log_slope: Any, bad: Any) -> None:
    """y and its log-slope from f, to which the bias is added; marks columns where they are not right."""
    dtype = x.dtype.type
    smallest = dtype(least)
    work = np.empty(3 * BLOCK, x.dtype)
    dim, count = x.shape
    for i in range(dim):
        scale, straight = dtype(mixed[0, i]), dtype(mixed[1, i])
        by, plus, b = dtype(mixed[2, i]), dtype(mixed[3, i]), bias[i]
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, fs, vs = x[i, start:stop], f[i, start:stop], tangent[i, start:stop]
            for n in range(m):
                work[n] = fs[n] + b
                work[BLOCK + n] = by * vs[n] + plus
            for n in range(m):
                fs[n] = work[n]
            for n in range(m):
                work[n] = scale * work[n] + straight * xs[n]
                work[_TWO + n] = log(work[BLOCK + n])
            ys, logs = y[i, start:stop], log_slope[i, start:stop]
            for n in range(m):
                ys[n] = work[n]
                logs[n] = work[_TWO + n]
            for n in range(m):
                # written so that NaN is bad
                good = work[BLOCK + n] >= smallest and work[BLOCK + n] < math.inf and abs(work[n]) < math.inf
                if not good:
                    bad[start + n] = True


@kernel
def finish_vjp(
    x: Any,
    f: Any,
    tangent: Any,
    grad_y: Any,
    grad_log_slope: Any,
    mixed: Any,
    grad_f: Any,
    grad_tangent: Any,
    grad_x: Any,
    sums: Any,
) -> None:
    """Cotangents of y and its log-slope to those of f, its tangent, and x as y has it; sums over n of that of f, of
    ``gy f``, ``gy x``, and of the log-slope's cotangents to F and A."""
    dtype = x.dtype.type
    work = np.empty(5 * BLOCK, x.dtype)
    dim, count = x.shape
    for i in range(dim):
        scale, straight = dtype(mixed[0, i]), dtype(mixed[1, i])
        by, plus = dtype(mixed[2, i]), dtype(mixed[3, i])
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            xs, fs, vs = x[i, start:stop], f[i, start:stop], tangent[i, start:stop]
            gs, ls = grad_y[i, start:stop], grad_log_slope[i if len(grad_log_slope) > 1 else 0, start:stop]
            for n in range(m):
                share = ls[n] / (by * vs[n] + plus)
                work[n] = scale * gs[n]
                work[BLOCK + n] = gs[n] * fs[n]
                work[_TWO + n] = gs[n] * xs[n]
                work[_THREE + n] = share * vs[n]
                work[_FOUR + n] = share
            on_f, on_v, on_x = grad_f[i, start:stop], grad_tangent[i, start:stop], grad_x[i, start:stop]
            for n in range(m):
                on_f[n] = work[n]
                on_v[n] = work[_FOUR + n] * by
                on_x[n] = straight * gs[n]
            for k in range(5):
                sums[k, i] += total(work[k * BLOCK : k * BLOCK + m])


@kernel
def activate_vjp(grad_h: Any, grad_t: Any, slopes: Any, curves: Any, tangents: Any, sum_h: Any, sum_t: Any) -> None:
    """Cotangents of the activation and its tangent to those of z and the tangent below, in place; their rows' sums."""
    two = grad_h.dtype.type(2)
    work = np.empty(2 * BLOCK, grad_h.dtype)
    units, count = grad_h.shape
    for r in range(units):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            hs, ts = grad_h[r, start:stop], grad_t[r, start:stop]
            ss, cs, vs = slopes[r, start:stop], curves[r, start:stop], tangents[r, start:stop]
            for n in range(m):
                work[n] = ss[n] * hs[n] - two * cs[n] * (vs[n] * ts[n])
                work[BLOCK + n] = ss[n] * ts[n]
            for n in range(m):
                hs[n] = work[n]
                ts[n] = work[BLOCK + n]
            sum_h[r] += total(work[:m])
            sum_t[r] += total(work[BLOCK : BLOCK + m])
