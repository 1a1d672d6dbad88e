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

from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.array.root import widest
from refnaf.kernels.array.workspace import Workspace, split
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.ddsf_block import BLOCK, block_room, brackets, evaluate, prepare, pull_back, pull_room
from refnaf.kernels.cpu.far import far_columns, far_columns_vjp, far_forward, far_scratch
from refnaf.kernels.far import LOG_T, H
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

_OFFSET = float(inverse_softplus(1 - SLOPE_FLOOR))
_U = np.uint64


def _less_largest(matrix: np.ndarray) -> np.ndarray:
    return matrix - np.max(matrix, axis=1, keepdims=True)


def pack(matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """``E = exp(W - row max)`` of ``W_1, U_2, W_2, ...`` one after the other, and the transposes of these."""
    e = [np.exp(_less_largest(matrix)) for matrix in matrices]
    return np.concatenate([part.ravel() for part in e]), np.concatenate([part.T.ravel() for part in e])


def raw_matrices(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The matrices less their rows' largest entries, one after the other, float64: as :mod:`.far` takes them."""
    return np.concatenate([_less_largest(matrix.astype(np.float64)).ravel() for matrix in matrices])


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
    sizes = _sizes(theta, matrices)
    e, e_t = pack(matrices)
    y, log_slope, far = np.empty_like(x), np.empty_like(x), np.zeros(x.shape, np.bool_)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)

    def run(ws: Workspace, part: slice) -> bool:
        flat = [a[part].reshape(-1) for a in (x, theta, y, log_slope, kept, far)]
        room = ws.own(("ddsf", x.dtype, *sizes[2:]), lambda: block_room(x.dtype, *sizes[2:]))
        return _forward(
            *flat, e, *room, keep, part.stop - part.start, *sizes[1:], _OFFSET, SLOPE_FLOOR, SMALLEST[x.dtype]
        )

    if any(ws.share(run, *split(len(x)), theta.size)):
        rare = far_scratch(theta.shape[1], sizes[3])
        far_columns(x, kept, raw_matrices(matrices), far, y, log_slope, *sizes[2:], _OFFSET, SLOPE_FLOOR, *rare)
    return y, log_slope, (x, kept, far, matrices, e, e_t) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x, theta and the shared matrices."""
    x, kept, far, matrices, e, e_t = saved
    sizes = _sizes(kept, matrices)
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    grad_raw = np.zeros(len(e))
    gy, gl = plain(grad_y), plain(np.broadcast_to(grad_log_slope, x.shape))

    def run(ws: Workspace, part: slice) -> np.ndarray:
        flat = [a[part].reshape(-1) for a in (x, kept, far, gy, gl, grad_x, grad_theta)]
        room = ws.own(("ddsf", x.dtype, *sizes[2:]), lambda: block_room(x.dtype, *sizes[2:]))
        back = ws.own(("ddsf back", x.dtype, sizes[2]), lambda: pull_room(x.dtype, sizes[2]))
        grad_e = np.zeros(len(e))
        _vjp(*flat, e, e_t, grad_e, *room, *back, part.stop - part.start, *sizes[1:], SLOPE_FLOOR)
        return grad_e

    grad_e = sum(ws.share(run, *split(len(x)), kept.size, always=True))
    if far.any():
        grads = gy, gl, grad_x, grad_theta, grad_raw
        rare = far_scratch(kept.shape[1], sizes[3])
        far_columns_vjp(x, kept, raw_matrices(matrices), far, *grads, *sizes[2:], _OFFSET, SLOPE_FLOOR, *rare)
    grad_raw += grad_e * e
    grads_of, start = [], 0
    for matrix in matrices:
        part = grad_raw[start : start + matrix.size].reshape(matrix.shape)
        grads_of.append(part.astype(matrix.dtype))
        start += matrix.size
    return grad_x, grad_theta, grads_of


def inverse(y: np.ndarray, theta: np.ndarray, *matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y ``(N,)``, theta ``(P, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    sizes = _sizes(theta[None], matrices)[1:]
    raw, (e, _) = raw_matrices(matrices), pack(matrices)
    found = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    state = np.zeros((root.ROWS, BLOCK), y.dtype)
    limits = SMALLEST[y.dtype], float(np.finfo(y.dtype).eps), widest(y.dtype)
    room, rare = block_room(y.dtype, *sizes[1:]), far_scratch(len(theta), sizes[2])
    _inverse(y, theta.reshape(-1), raw, e, *found, state, *room, *sizes, _OFFSET, SLOPE_FLOOR, *limits, *rare)
    return found


def _sizes(theta: np.ndarray, matrices: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """D, N, d and the number of layers."""
    return len(theta), theta.shape[2], matrices[0].shape[1], (len(matrices) + 1) // 2


@kernel
def _forward(
    x: Any,
    theta: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    far: Any,
    e: Any,
    slots: Any,
    scratch: Any,
    rows: Any,
    keep: bool,
    dims: int,
    count: int,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    smallest: float,
) -> bool:
    """Fills y, log_slope, kept and far; whether any column is far. Arrays are flat."""
    dtype = x.dtype.type
    step = _U(count)
    size = (4 * layers - 1) * d
    point, values, slopes, least = rows[0], rows[1], rows[2], rows[3]
    some = False
    for i in range(dims):
        for start in range(0, count, BLOCK):
            m = _U(min(BLOCK, count - start))
            here, raw = _U(i * count + start), _U(i * size * count + start)
            prepare(theta, raw, step, m, slots, least, d, layers, dtype(offset))
            for n in range(m):
                point[n] = x[here + n]
            evaluate(point, slots, e, scratch, values, slopes, least, d, layers, dtype(floor))
            for n in range(m):
                y[here + n] = values[n]
                log_slope[here + n] = slopes[n]
            for n in range(m):
                if not least[n] >= dtype(smallest):
                    far[here + n] = some = True
                    for j in range(size):
                        slots[_U(j * BLOCK) + n] = theta[raw + _U(j) * step + n]
            if keep:
                for j in range(size):
                    out, row = raw + _U(j) * step, _U(j * BLOCK)
                    for n in range(m):
                        kept[out + n] = slots[row + n]
    return some


@kernel
def _vjp(
    x: Any,
    kept: Any,
    far: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    e: Any,
    e_t: Any,
    grad_e: Any,
    slots: Any,
    scratch: Any,
    rows: Any,
    down: Any,
    on_sums: Any,
    back: Any,
    own: Any,
    dims: int,
    count: int,
    d: int,
    layers: int,
    floor: float,
) -> None:
    """Fills grad_x and grad_theta and adds to grad_e. Arrays are flat; a column that is far gets zeros."""
    dtype = x.dtype.type
    zero, one = dtype(0), dtype(1)
    step, lanes = _U(count), _U(BLOCK)
    size = (4 * layers - 1) * d
    point, values, slopes, least = rows[0], rows[1], rows[2], rows[3]
    for i in range(dims):
        for start in range(0, count, BLOCK):
            m = _U(min(BLOCK, count - start))
            here, raw = _U(i * count + start), _U(i * size * count + start)
            if m < lanes:
                # the padding: any finite numbers, and cotangents of zero
                slots[:] = one
                on_sums[:] = zero
                point[:] = zero
            for j in range(size):
                out, row = raw + _U(j) * step, _U(j * BLOCK)
                for n in range(m):
                    slots[row + n] = kept[out + n]
            for n in range(lanes):
                down[n] = zero
                down[lanes + n] = zero
            for n in range(m):
                point[n] = x[here + n]
                down[n] = grad_y[here + n]
                down[lanes + n] = grad_log_slope[here + n]
            for n in range(m):
                if far[here + n]:
                    # harmless numbers: their cotangents are zero, and must not become 0 * inf
                    point[n] = down[n] = down[lanes + n] = zero
                    for j in range(size):
                        slots[_U(j * BLOCK) + n] = one
            evaluate(point, slots, e, scratch, values, slopes, least, d, layers, dtype(floor))
            pull_back(slots, e_t, scratch, down, values, grad_e, on_sums, back, own, m, d, layers, dtype(floor))
            for n in range(m):
                grad_x[here + n] = values[n]
            for j in range(size):
                out, row = raw + _U(j) * step, _U(j * BLOCK)
                for n in range(m):
                    grad_theta[out + n] = slots[row + n]


@kernel
def _inverse(
    y: Any,
    theta: Any,
    raw: Any,
    e: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    state: Any,
    slots: Any,
    scratch: Any,
    rows: Any,
    count: int,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    smallest: float,
    eps: float,
    widest: float,
    column: Any,
    units: Any,
    outputs: Any,
    notes: Any,
) -> None:
    dtype = y.dtype.type
    step = _U(count)
    values, slopes, least = rows[1], rows[2], rows[3]
    for start in range(0, count, BLOCK):
        m = min(BLOCK, count - start)
        ys, here = y[start : start + m], _U(start)
        prepare(theta, here, step, _U(m), slots, least, d, layers, dtype(offset))
        brackets(ys, m, slots, state[root.LOW], state[root.HIGH], d, layers, dtype(floor))
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, steps = m, 0
        while left > 0 and steps < root.ALL_STEPS:
            evaluate(state[root.POINT], slots, e, scratch, values, slopes, least, d, layers, dtype(floor))
            for n in range(m):
                if state[root.DONE, n] == 0 and not least[n] >= dtype(smallest):
                    for j in range(len(column)):
                        column[j] = theta[here + _U(j) * step + _U(n)]
                    at = np.float64(state[root.POINT, n])
                    far_forward(at, column, raw, d, layers, offset, floor, units, outputs, notes)
                    values[n], slopes[n] = outputs[layers - 1, H, 0], outputs[layers - 1, LOG_T, 0]
            left = root.advance(state, ys, values, slopes, m, steps, dtype(eps))
            steps += 1
        root.finish(state, start, m, x, log_slope, residual)
