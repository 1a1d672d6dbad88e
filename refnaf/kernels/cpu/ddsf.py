"""Deep dense sigmoidal flow (reference: :mod:`refnaf.reference.ddsf`): forward, VJP and inverse, compiled.

The equations are those of :mod:`refnaf.kernels.array.ddsf`. A block of samples of one dimension goes through all layers
at a time: its scratch stays in the second-level cache, and the d x d products are done there, four rows by four. What
the VJP needs overwrites the raw pseudo-parameters: softplus(a), b, ``exp(w - max)`` and ``exp(u - max)``; it evaluates
the layers again, which costs one exponential a unit. A column whose sums would underflow keeps its raw numbers and is
done by :mod:`.far`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import SMALLEST, plain, widest
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.ddsf_block import BLOCK, brackets, evaluate, prepare, pull_back, scratch
from refnaf.kernels.cpu.far import LOG_T, H, far_forward, far_vjp
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

_OFFSET = float(inverse_softplus(1 - SLOPE_FLOOR))


def pack(matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw matrices ``W_1, U_2, W_2, ...`` one after the other: as they are in float64, then ``E = exp(U - row max)`` in
    their own dtype, and the transposes of these."""
    shifted = [np.exp(matrix - np.max(matrix, axis=1, keepdims=True)) for matrix in matrices]
    raw = np.concatenate([np.ravel(matrix) for matrix in matrices]).astype(np.float64)
    return raw, np.concatenate([e.ravel() for e in shifted]), np.concatenate([e.T.ravel() for e in shifted])


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.ddsf.ddsf`."""
    return not options


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *matrices: np.ndarray,
    ws: Workspace,
    keep: bool = True,
    overwrite: bool = False,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, P, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; with ``overwrite`` it is kept in theta itself.
    """
    x, theta = plain(x), plain(theta)
    d, layers = matrices[0].shape[1], (len(matrices) + 1) // 2
    raw, e, e_t = pack(matrices)
    y, log_slope = np.empty_like(x), np.empty_like(x)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)
    far = np.zeros(x.shape if keep else (1, 1), np.bool_)
    _forward(x, theta, raw, e, y, log_slope, kept, far, keep, d, layers, _OFFSET, SLOPE_FLOOR, SMALLEST[x.dtype])
    return y, log_slope, (x, kept, far, matrices, raw, e, e_t) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x, theta and the shared matrices."""
    x, kept, far, matrices, raw, e, e_t = saved
    d, layers = matrices[0].shape[1], (len(matrices) + 1) // 2
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    grad_e, grad_raw = np.zeros(len(raw)), np.zeros(len(raw))
    gy, gl = plain(grad_y), plain(grad_log_slope)
    _vjp(x, kept, far, raw, e, e_t, gy, gl, grad_x, grad_theta, grad_e, grad_raw, d, layers, _OFFSET, SLOPE_FLOOR)
    grad_raw += grad_e * e
    grads, start = [], 0
    for matrix in matrices:
        part = grad_raw[start : start + matrix.size].reshape(matrix.shape)
        grads.append(part.astype(matrix.dtype))
        start += matrix.size
    return grad_x, grad_theta, grads


def inverse(y: np.ndarray, theta: np.ndarray, *matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y ``(N,)``, theta ``(P, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    d, layers = matrices[0].shape[1], (len(matrices) + 1) // 2
    raw, e, _ = pack(matrices)
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    eps, least = float(np.finfo(y.dtype).eps), SMALLEST[y.dtype]
    far = widest(y.dtype)
    _inverse(y, theta, raw, e, x, log_slope, residual, d, layers, _OFFSET, SLOPE_FLOOR, least, eps, far)
    return x, log_slope, residual


@kernel
def _forward(
    x: Any,
    theta: Any,
    raw: Any,
    e: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    far: Any,
    keep: bool,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    smallest: float,
) -> None:
    dims, size, count = theta.shape
    dtype = x.dtype.type
    slots = np.ones(size * BLOCK, x.dtype)
    layout = scratch(slots, d, layers)
    point, values = np.zeros(BLOCK, x.dtype), np.zeros(BLOCK, x.dtype)
    slopes, least = np.zeros(BLOCK, x.dtype), np.zeros(BLOCK, x.dtype)
    column, units, outputs = np.empty(size), np.empty((layers, 4, d)), np.empty((layers, 8, d))
    for i in range(dims):
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            prepare(theta[i], start, m, slots, least, d, layers, dtype(offset))
            for n in range(m):
                point[n] = x[i, start + n]
            evaluate(point, slots, e, layout, values, slopes, least, d, layers, dtype(floor))
            for n in range(m):
                y[i, start + n], log_slope[i, start + n] = values[n], slopes[n]
                if not least[n] >= dtype(smallest):
                    for j in range(size):
                        column[j] = theta[i, j, start + n]
                        slots[j * BLOCK + n] = theta[i, j, start + n]
                    far_forward(np.float64(point[n]), column, raw, d, layers, offset, floor, units, outputs)
                    y[i, start + n] = outputs[layers - 1, H, 0]
                    log_slope[i, start + n] = outputs[layers - 1, LOG_T, 0]
                    if keep:
                        far[i, start + n] = True
            if keep:
                for j in range(size):
                    row = kept[i, j, start:stop]
                    for n in range(m):
                        row[n] = slots[j * BLOCK + n]


@kernel
def _vjp(
    x: Any,
    kept: Any,
    far: Any,
    raw: Any,
    e: Any,
    e_t: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    grad_e: Any,
    grad_raw: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
) -> None:
    dims, size, count = kept.shape
    dtype = x.dtype.type
    slots = np.ones(size * BLOCK, x.dtype)
    layout = scratch(slots, d, layers)
    down, own = np.zeros(2 * d * BLOCK, x.dtype), np.zeros(5 * d * BLOCK, x.dtype)
    on_sums, back = np.zeros(3 * d * BLOCK, x.dtype), np.zeros(3 * d * BLOCK, x.dtype)
    point, values = np.zeros(BLOCK, x.dtype), np.zeros(BLOCK, x.dtype)
    slopes, least, pulled = np.zeros(BLOCK, x.dtype), np.zeros(BLOCK, x.dtype), np.zeros(BLOCK, x.dtype)
    column, units, outputs = np.empty(size), np.empty((layers, 4, d)), np.empty((layers, 8, d))
    on_column = np.empty(size)
    for i in range(dims):
        gl = grad_log_slope[i if len(grad_log_slope) > 1 else 0]
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            m = stop - start
            if m < BLOCK:
                slots[:] = dtype(1)
                on_sums[:] = dtype(0)
            for j in range(size):
                row = kept[i, j, start:stop]
                for n in range(m):
                    slots[j * BLOCK + n] = row[n]
            down[: 2 * BLOCK] = dtype(0)
            for n in range(m):
                point[n] = x[i, start + n]
                if far[i, start + n]:
                    point[n] = dtype(0)
                    for j in range(size):
                        slots[j * BLOCK + n] = dtype(1)
                else:
                    down[n], down[BLOCK + n] = grad_y[i, start + n], gl[start + n]
            evaluate(point, slots, e, layout, values, slopes, least, d, layers, dtype(floor))
            pull_back(slots, e_t, layout, down, pulled, grad_e, on_sums, back, own, m, d, layers, dtype(floor))
            for n in range(m):
                grad_x[i, start + n] = pulled[n]
                if far[i, start + n]:
                    for j in range(size):
                        column[j] = kept[i, j, start + n]
                    far_forward(np.float64(x[i, start + n]), column, raw, d, layers, offset, floor, units, outputs)
                    g, lam = np.float64(grad_y[i, start + n]), np.float64(gl[start + n])
                    grad_x[i, start + n] = far_vjp(
                        column, raw, d, layers, offset, units, outputs, g, lam, on_column, grad_raw
                    )
                    for j in range(size):
                        slots[j * BLOCK + n] = on_column[j]
            for j in range(size):
                row = grad_theta[i, j, start:stop]
                for n in range(m):
                    row[n] = slots[j * BLOCK + n]


@kernel
def _inverse(
    y: Any,
    theta: Any,
    raw: Any,
    e: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    smallest: float,
    eps: float,
    widest: float,
) -> None:
    size, count = theta.shape
    dtype = y.dtype.type
    slots = np.ones(size * BLOCK, y.dtype)
    layout = scratch(slots, d, layers)
    values, slopes, least = np.zeros(BLOCK, y.dtype), np.zeros(BLOCK, y.dtype), np.zeros(BLOCK, y.dtype)
    state = np.zeros((root.ROWS, BLOCK), y.dtype)
    column, units, outputs = np.empty(size), np.empty((layers, 4, d)), np.empty((layers, 8, d))
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        m = stop - start
        ys = y[start:stop]
        prepare(theta, start, m, slots, least, d, layers, dtype(offset))
        brackets(ys, theta, start, m, slots, state[root.LOW], state[root.HIGH], d, layers, dtype(floor))
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, step = m, 0
        while left > 0 and step < root.ALL_STEPS:
            evaluate(state[root.POINT], slots, e, layout, values, slopes, least, d, layers, dtype(floor))
            for n in range(m):
                if state[root.DONE, n] == 0 and not least[n] >= dtype(smallest):
                    for j in range(size):
                        column[j] = theta[j, start + n]
                    at = np.float64(state[root.POINT, n])
                    far_forward(at, column, raw, d, layers, offset, floor, units, outputs)
                    values[n], slopes[n] = outputs[layers - 1, H, 0], outputs[layers - 1, LOG_T, 0]
            left = root.advance(state, ys, values, slopes, m, step, dtype(eps))
            step += 1
        for n in range(m):
            x[start + n] = state[root.ROOT, n]
            log_slope[start + n] = -state[root.LOG_SLOPE, n]
            residual[start + n] = state[root.RESIDUAL, n]
