"""Deep dense sigmoidal flow (reference: :mod:`refnaf.reference.ddsf`): forward, VJP and inverse, a sample a thread.

The equations are those of :mod:`refnaf.kernels.array.ddsf`. Backward evaluates the layers again. The shared matrices'
gradients are sums over all samples of outer products: a block of threads puts both factors into shared memory, where
each thread adds up some entries; blocks write what they have, and a second kernel adds that up. A column whose sums
would underflow is marked, and done in the log domain (:mod:`refnaf.kernels.far`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from refnaf.kernels import far as log_domain
from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.cuda.arrays import plain
from refnaf.kernels.cuda.compiler import THREADS, kernel, part
from refnaf.kernels.cuda.ddsf_column import (
    FIRST,
    IN_DV,
    IN_NORM,
    IN_V,
    KEPT_ROWS,
    LAYER_ROWS,
    MINUS,
    OUT_H,
    OUT_T,
    PLUS,
    SECOND,
    SLOPE,
    SOFT,
    SUM_MASS,
    SUM_MINUS,
    SUM_PLUS,
    THIRD,
    WEIGHT,
    column_functions,
)
from refnaf.kernels.cuda.ddsf_column import UNIT_ROWS as ROWS
from refnaf.kernels.cuda.elementary import functions
from refnaf.kernels.cuda.root import solver
from refnaf.kernels.far import LOG_T, OUTPUT_ROWS, SCRATCH_ROWS, UNIT_ROWS, H
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

_OFFSET = float(inverse_softplus(1 - SLOPE_FLOOR))
#: Blocks of the VJP at most: each keeps its sums while it goes from tile to tile.
_MOST_BLOCKS = 1024
#: Bytes of shared memory that a block may have.
_SHARED = 48 << 10


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.ddsf.ddsf`."""
    return not options


def pack(matrices: Sequence[Any], ws: Any) -> tuple[Any, Any]:
    """``E = exp(W - row max)`` of ``W_1, U_2, W_2, ...`` one after the other, and ``W - row max``."""
    d, size = matrices[0].shape[1], sum(matrix.size for matrix in matrices)
    dtype = matrices[0].dtype
    e, raw = ws.take((size,), dtype), ws.take((size,), dtype)
    start = 0
    for matrix in matrices:
        rows, part_of = len(matrix), slice(start, start + matrix.size)
        shared_kernels(dtype.type).pack.each(rows, plain(matrix), e[part_of], raw[part_of], d)
        start += matrix.size
    return e, raw


def forward(
    x: Any, theta: Any, *matrices: Any, ws: Any, keep: bool = True, overwrite: bool = False
) -> tuple[Any, Any, Any]:
    """x ``(D, N)``, theta ``(D, P, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; theta is read again there, and never overwritten.
    """
    x, theta = plain(x), plain(theta)
    dims, count = x.shape
    e, raw = pack(matrices, ws)
    y, log_slope = ws.take(x.shape, x.dtype), ws.take(x.shape, x.dtype)
    marks = ws.take((dims, count if keep else 0), x.dtype)
    run = _kernels(x.dtype, matrices)
    run.forward.columns(dims, count, x, theta, e, raw, y, log_slope, marks, keep, _OFFSET, SLOPE_FLOOR)
    return y, log_slope, (x, theta, marks, matrices, e, raw) if keep else None


def vjp(saved: Any, grad_y: Any, grad_log_slope: Any, ws: Any) -> tuple[Any, Any, list[Any]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x, theta and the shared matrices."""
    x, theta, marks, matrices, e, raw = saved
    dims, count = x.shape
    grad_x, grad_theta = ws.take(x.shape, x.dtype), ws.take(theta.shape, x.dtype)
    threads = _threads(x.dtype.type, matrices[0].shape[1])
    blocks = min(dims * -(-count // threads), _MOST_BLOCKS)
    on_e, on_raw = ws.take((max(blocks, 1), len(e)), x.dtype), ws.take((max(blocks, 1), len(e)), x.dtype)
    on_e.fill(0)
    on_raw.fill(0)
    grads = plain(grad_y), plain(grad_log_slope), grad_x, grad_theta, on_e, on_raw
    run = _kernels(x.dtype, matrices)
    run.vjp((blocks,), x, theta, marks, e, raw, *grads, _OFFSET, SLOPE_FLOOR, threads=threads)
    grad = ws.take((len(e),), x.dtype)
    shared_kernels(x.dtype.type).collect((len(e),), on_e, on_raw, e, grad)
    grads_of, start = [], 0
    for matrix in matrices:
        grads_of.append(grad[start : start + matrix.size].reshape(matrix.shape))
        start += matrix.size
    return grad_x, grad_theta, grads_of


def inverse(y: Any, theta: Any, *matrices: Any, ws: Any) -> tuple[Any, Any, Any]:
    """y ``(N,)``, theta ``(P, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    e, raw = pack(matrices, ws)
    found = tuple(np.empty_like(y) for _ in range(3))
    _kernels(y.dtype, matrices).inverse.columns(1, len(y), y, theta[None], e, raw, *found, _OFFSET, SLOPE_FLOOR)
    return found


def _kernels(dtype: Any, matrices: Sequence[Any]) -> SimpleNamespace:
    return kernels(dtype.type, matrices[0].shape[1], (len(matrices) + 1) // 2)


def _threads(dtype: Any, d: int) -> int:
    """Of a block of the VJP: so many that both factors of its outer products find room. Raises ValueError."""
    for threads in (THREADS, THREADS // 2, THREADS // 4):
        if 2 * d * (threads + 1) * np.dtype(dtype).itemsize <= _SHARED:
            return threads
    raise ValueError(f"backend 'cuda' has no room for a DDSF of {d} units; use fewer, or backend 'numba'")


@cache
def shared_kernels(dtype: Any) -> SimpleNamespace:
    """The kernels that work on shared matrices alone."""
    exp_negative = functions(dtype).exp_negative
    zero = dtype(0)

    @kernel(dtype, "211i")
    def pack(matrix: Any, e: Any, raw: Any, d: int) -> None:
        i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if i >= matrix.shape[0]:
            return
        top = matrix[i, 0]
        for j in range(1, d):
            top = max(top, matrix[i, j])
        for j in range(d):
            low = matrix[i, j] - top
            raw[i * d + j], e[i * d + j] = low, exp_negative(low)

    @kernel(dtype, "2211")
    def collect(on_e: Any, on_raw: Any, e: Any, grad: Any) -> None:
        entry, t = cuda.blockIdx.x, cuda.threadIdx.x
        sums = cuda.shared.array(THREADS, dtype)
        total = zero
        for b in range(t, on_e.shape[0], THREADS):
            total += on_e[b, entry] * e[entry] + on_raw[b, entry]
        sums[t] = total
        cuda.syncthreads()
        width = THREADS // 2
        while width > 0:
            if t < width:
                sums[t] += sums[t + width]
            cuda.syncthreads()
            width //= 2
        if t == 0:
            grad[entry] = sums[0]

    return SimpleNamespace(pack=pack, collect=collect)


@cache
def kernels(dtype: Any, d: int, layers: int) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64, d units and so many layers. Raises ValueError for too many units."""
    f, far, column = functions(dtype), log_domain.make(part, dtype), column_functions(dtype, d, layers)
    log, expm1_negative = f.log, f.expm1_negative
    far_forward, far_vjp = far.forward, far.vjp
    largest, mix, unit, shares, evaluate = column.largest, column.mix, column.unit, column.shares, column.evaluate
    weighted, bracket = column.weighted, column.bracket
    zero, one = dtype(0), dtype(1)
    smallest = dtype(SMALLEST[np.dtype(dtype)])
    threads = _threads(dtype, d)
    size = (2 * layers - 2) * d * d + d
    slots, stride, last = -(-size // threads), threads + 1, layers - 1
    room, units_shape, outputs_shape, scratch_shape = (
        d * stride,
        (layers, UNIT_ROWS, d),
        (layers, OUTPUT_ROWS, d),
        (SCRATCH_ROWS, d),
    )
    layer_shape, rows_shape, kept_shape = (layers, LAYER_ROWS, d), (ROWS, d), (KEPT_ROWS, d)

    @kernel(dtype, "2311222bff")
    def forward(
        x: Any,
        theta: Any,
        e: Any,
        raw: Any,
        y: Any,
        log_slope: Any,
        marks: Any,
        keep: bool,
        offset: Any,
        floor: Any,
    ) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        layer, units = cuda.local.array(layer_shape, dtype), cuda.local.array(rows_shape, dtype)
        kept = cuda.local.array(kept_shape, dtype)
        least = evaluate(x[i, n], theta, i, n, e, offset, floor, layer, units, kept)
        if least >= smallest:
            y[i, n], log_slope[i, n] = layer[last, OUT_H, 0], log(layer[last, OUT_T, 0])
        else:
            notes, outputs = cuda.local.array(units_shape, dtype), cuda.local.array(outputs_shape, dtype)
            scratch = cuda.local.array(scratch_shape, dtype)
            far_forward(x[i, n], theta[i, :, n], raw, d, layers, offset, floor, notes, outputs, scratch)
            y[i, n], log_slope[i, n] = outputs[last, H, 0], outputs[last, LOG_T, 0]
        if keep:
            marks[i, n] = one if least >= smallest else zero

    @part
    def gather(left: Any, rows: Any, right: Any, at: Any, here: Any, there: Any, sums: Any) -> None:
        """Add the block's outer products of left (3, rows) and right (3, d) to the entries this thread has."""
        t = cuda.threadIdx.x
        for c in range(ROWS):
            for j in range(rows):
                here[j * stride + t] = left[c, j]
            for j in range(d):
                there[j * stride + t] = right[c, j]
            cuda.syncthreads()
            for q in range(at + (t - at) % threads, at + rows * d, threads):
                r, j = ((q - at) // d) * stride, ((q - at) % d) * stride
                total = zero
                for m in range(threads):
                    total += here[r + m] * there[j + m]
                sums[q // threads] += total
            cuda.syncthreads()

    @kernel(dtype, "23211222322ff")
    def vjp(
        x: Any,
        theta: Any,
        marks: Any,
        e: Any,
        raw: Any,
        grad_y: Any,
        grad_log_slope: Any,
        grad_x: Any,
        grad_theta: Any,
        on_e: Any,
        on_raw: Any,
        offset: Any,
        floor: Any,
    ) -> None:
        # on two lines: the simulator knows a shared array by its line
        here = cuda.shared.array(room, dtype)
        there = cuda.shared.array(room, dtype)
        layer, right = cuda.local.array(layer_shape, dtype), cuda.local.array(rows_shape, dtype)
        kept, left = cuda.local.array(kept_shape, dtype), cuda.local.array(rows_shape, dtype)
        on_h, on_t, sums = cuda.local.array(d, dtype), cuda.local.array(d, dtype), cuda.local.array(slots, dtype)
        t = cuda.threadIdx.x
        for q in range(slots):
            sums[q] = zero
        dims, count = x.shape
        across = (count + threads - 1) // threads
        for tile in range(cuda.blockIdx.x, dims * across, cuda.gridDim.x):
            i, n = tile // across, (tile % across) * threads + t
            inside = n < count
            good = inside and marks[i, n if inside else 0] > zero
            g, lam = zero, zero
            if inside:
                g, lam = grad_y[i, n], grad_log_slope[i if grad_log_slope.shape[0] > 1 else 0, n]
            if good:
                evaluate(x[i, n], theta, i, n, e, offset, floor, layer, right, kept)
            elif inside:
                notes, outputs = cuda.local.array(units_shape, dtype), cuda.local.array(outputs_shape, dtype)
                scratch, own = cuda.local.array(scratch_shape, dtype), cuda.local.array(size, dtype)
                for q in range(size):
                    own[q] = zero
                far_forward(x[i, n], theta[i, :, n], raw, d, layers, offset, floor, notes, outputs, scratch)
                pulled = grad_theta[i, :, n]
                grad_x[i, n] = far_vjp(
                    theta[i, :, n], raw, size, d, layers, offset, notes, outputs, scratch, g, lam, pulled, own
                )
                for q in range(size):
                    cuda.atomic.add(on_raw, (cuda.blockIdx.x, q), own[q])
            if not good:
                # what this thread adds to the block's sums is nothing
                for c in range(ROWS):
                    for j in range(d):
                        left[c, j], right[c, j] = zero, zero
            on_h[0], on_t[0] = g, lam
            at, row = size, (4 * layers - 1) * d
            on_x = zero
            for k in range(layers - 1, -1, -1):
                row -= 4 * d if k > 0 else 3 * d
                outs = 1 if k == layers - 1 else d
                at -= outs * d
                if good:
                    for o in range(outs):
                        s_plus, s_minus = layer[k, SUM_PLUS, o], layer[k, SUM_MINUS, o]
                        both = on_t[o] / (s_plus + s_minus)
                        left[FIRST, o] = (on_h[o] - on_t[o]) / s_plus + both
                        left[SECOND, o] = both - (on_h[o] + on_t[o]) / s_minus
                        left[THIRD, o] = on_t[o] / layer[k, SUM_MASS, o]
                    top = largest(theta, i, row + 2 * d, n)
                    for j in range(d):
                        unit(theta, i, row, n, j, layer[k, IN_V, j], layer[k, IN_DV, j], top, offset, floor, kept)
                    shares(kept, right)
                gather(left, outs, right, at, here, there, sums)
                if good:
                    for j in range(d):
                        on_plus, on_minus, on_mass = weighted(e, at + j, d, outs, left)
                        soft, plus, minus = kept[SOFT, j], kept[PLUS, j], kept[MINUS, j]
                        w, dp, a = kept[WEIGHT, j], kept[SLOPE, j], kept[SOFT, j] + floor
                        wq = w * (plus * minus)
                        on_p = ((minus - plus) * on_mass * dp + (on_plus - on_minus)) * wq
                        on_dp = on_mass * wq
                        rise = on_p * layer[k, IN_V, j] + on_dp * layer[k, IN_DV, j]
                        grad_theta[i, row + j, n] = rise * -expm1_negative(-soft)
                        grad_theta[i, row + d + j, n] = on_p
                        grad_theta[i, row + 2 * d + j, n] = (on_plus * plus + on_minus * minus) * w + on_dp * dp
                        on_x += on_p * a if k == 0 else zero
                        # of v and v', in the place of what has been read
                        kept[PLUS, j], kept[MINUS, j] = on_p * a, on_dp * a
                if k > 0:
                    at -= d * d
                    if good:
                        for j in range(d):
                            inverse = one / layer[k, IN_NORM, j]
                            on_v, on_dv = kept[PLUS, j] * inverse, kept[MINUS, j] * inverse
                            left[FIRST, j], left[SECOND, j] = on_v, on_dv
                            left[THIRD, j] = -(on_v * layer[k, IN_V, j] + on_dv * layer[k, IN_DV, j])
                        mix(theta, i, row + 3 * d, n, layer, k, right)
                    gather(left, d, right, at, here, there, sums)
                    if good:
                        for j in range(d):
                            through_h, through_t, through_one = weighted(e, at + j, d, d, left)
                            h, slope, ec = layer[k - 1, OUT_H, j], layer[k - 1, OUT_T, j], right[THIRD, j]
                            grad_theta[i, row + 3 * d + j, n] = (through_h * h + through_t * slope + through_one) * ec
                            on_h[j], on_t[j] = through_h * ec, through_t * ec * slope
            if good:
                grad_x[i, n] = on_x
        for q in range(t, size, threads):
            on_e[cuda.blockIdx.x, q] = sums[q // threads]

    @part
    def value_at(at: Any, theta: Any, n: Any, e: Any, offset: Any, floor: Any, own: Any) -> Any:
        layer, units, kept, raw, notes, outputs, scratch = own
        if evaluate(at, theta, 0, n, e, offset, floor, layer, units, kept) >= smallest:
            return layer[last, OUT_H, 0], log(layer[last, OUT_T, 0])
        far_forward(at, theta[0, :, n], raw, d, layers, offset, floor, notes, outputs, scratch)
        return outputs[last, H, 0], outputs[last, LOG_T, 0]

    solve = solver(dtype, value_at)

    @kernel(dtype, "1311111ff")
    def inverse(
        y: Any, theta: Any, e: Any, raw: Any, x: Any, log_slope: Any, residual: Any, offset: Any, floor: Any
    ) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n >= y.shape[0]:
            return
        layer, units = cuda.local.array(layer_shape, dtype), cuda.local.array(rows_shape, dtype)
        kept, scratch = cuda.local.array(kept_shape, dtype), cuda.local.array(scratch_shape, dtype)
        notes, outputs = cuda.local.array(units_shape, dtype), cuda.local.array(outputs_shape, dtype)
        low, high = bracket(y[n], theta, 0, n, offset, floor)
        own = layer, units, kept, raw, notes, outputs, scratch
        root, slope, off = solve(y[n], low, high, theta, n, e, offset, floor, own)
        x[n], log_slope[n], residual[n] = root, -slope, off

    return SimpleNamespace(forward=forward, vjp=vjp, inverse=inverse)
