"""Mixture-of-Gaussians conditionals (reference: :mod:`refnaf.reference.mixture`): forward, VJP and inverse, compiled.

The equations are those of :mod:`refnaf.kernels.array.mixture`, with weights that are not normalised: only their own
gradient needs their sum. What the VJP needs takes the place of the raw pseudo-parameters: of each component
``exp(w - max)``, q, and what the raw log-scale became, tanh(raw / 8) or softplus. Columns whose sums would underflow,
or whose squares would overflow, keep their raw numbers and are done by :mod:`.mixture_far`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.array.root import widest
from refnaf.kernels.array.workspace import Workspace, split
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.elementary import exp_bounded, exp_negative, expm1_negative, mills
from refnaf.kernels.cpu.mixture_block import (
    BLOCK,
    LOWER,
    MASS,
    MEAN,
    RATE,
    ROOT_2PI,
    ROWS,
    SHAPE,
    SLOT,
    UPPER,
    WEIGHT,
    U,
    W,
    X,
    evaluate,
    is_far,
    load,
    results,
)
from refnaf.kernels.cpu.mixture_far import COMPONENT_ROWS, LOG_SLOPE, RESULTS, Y, mixture_far, mixture_far_vjp
from refnaf.kernels.mixture_far import FARTHEST
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.normal import STEPS
from refnaf.reference.stable import inverse_softplus

#: In place of the weights' sum: the column is one for the log domain.
FAR = -1.0
#: Rows of the VJP's scratch: factors of the tail's share in q and in the logits, of the density's, of the weights'; u,
#: the side of y, and the cotangent of x.
_ON_TAIL, _ON_PART, _ON_MASS, _ON_WEIGHT, _DISTANCE, _SIDE, _ON_X, _VJP_ROWS = (k * BLOCK for k in range(8))
#: Rows of a component's scratch there: first 1 / s, then the mean's cotangent; a and the logit's; the log-scale's.
_A, _SLOPE, _VJP_SLOT = (k * BLOCK for k in range(1, 4))
#: Exponents below these give 0.
_LOWEST = {np.dtype(np.float32): -87.0, np.dtype(np.float64): -708.0}


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.mixture.mog`."""
    return options.keys() <= {"floor"}


def forward(
    x: np.ndarray,
    theta: np.ndarray,
    *,
    ws: Workspace,
    floor: float | None = None,
    keep: bool = True,
    overwrite: bool = False,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, 3 K, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; with ``overwrite`` it is kept in theta itself.
    """
    x, theta = plain(x), plain(theta)
    y, log_slope = np.empty_like(x), np.empty_like(x)
    kept = theta if overwrite or not keep else ws.take(theta.shape, x.dtype)
    sums = ws.take((len(x) if keep else 0, 4, x.shape[1]), x.dtype)
    scales = _scales(floor)
    arrays = x, theta, y, log_slope, kept, sums

    def run(_: Workspace, part: slice) -> None:
        _forward(*(a[part] for a in arrays), keep, *scales, *_limits(x.dtype))

    ws.share(run, *split(len(x)), theta.size)
    return y, log_slope, (x, y, kept, sums, scales) if keep else None


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 K, N)``.

    As those of the array twin, they are right to a few units in the last place of ``(|g| + |l y|) dy``.
    """
    x, y, kept, sums, scales = saved
    grad_x, grad_theta = np.empty_like(x), ws.take(kept.shape, kept.dtype)
    arrays = x, y, kept, sums, plain(grad_y), plain(grad_log_slope), grad_x, grad_theta

    def run(_: Workspace, part: slice) -> None:
        # one row of cotangents may be that of all
        _vjp(*(a if len(a) == 1 else a[part] for a in arrays), *scales, _LOWEST[x.dtype])

    ws.share(run, *split(len(x)), kept.size)
    return grad_x, grad_theta, []


def inverse(
    y: np.ndarray, theta: np.ndarray, *, floor: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y ``(N,)``, theta ``(3 K, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    eps = float(np.finfo(y.dtype).eps)
    _inverse(y, theta, x, log_slope, residual, eps, widest(y.dtype), *_scales(floor), *_limits(y.dtype))
    return x, log_slope, residual


def _scales(floor: float | None) -> tuple[bool, float, float]:
    """Whether scales are bent exponentials; of the others the floor and the offset."""
    return (True, 0.0, 0.0) if floor is None else (False, float(floor), float(inverse_softplus(1 - floor)))


def _limits(dtype: np.dtype) -> tuple[float, float, float, int]:
    return _LOWEST[dtype], SMALLEST[dtype], FARTHEST[dtype.type], STEPS[dtype]


@kernel
def _forward(
    x: Any,
    theta: Any,
    y: Any,
    log_slope: Any,
    kept: Any,
    sums: Any,
    keep: bool,
    bent: bool,
    floor: float,
    offset: float,
    lowest: float,
    smallest: float,
    farthest: float,
    steps: int,
) -> None:
    dims, size, total = theta.shape
    count = size // 3
    work, slots = np.empty(ROWS, x.dtype), np.empty(count * SLOT, x.dtype)
    raw, notes, out = np.empty(size), np.empty((COMPONENT_ROWS, count)), np.empty(RESULTS)
    for i in range(dims):
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            m = stop - start
            xs, ys, logs = x[i, start:stop], y[i, start:stop], log_slope[i, start:stop]
            for n in range(m):
                work[X + n] = xs[n]
            load(theta[i], start, stop, work, slots, bent, floor, offset, lowest)
            evaluate(work, slots, count, m, lowest, steps)
            results(work, m, ys, logs)
            for k in range(count):
                at = k * SLOT
                for n in range(m):
                    slots[at + MEAN + n] = (work[X + n] - slots[at + MEAN + n]) * slots[at + RATE + n]
            for n in range(m):
                if is_far(work, n, smallest, farthest):
                    for k in range(count):
                        at = k * SLOT + n
                        raw[k], slots[at + WEIGHT] = theta[i, k, start + n], theta[i, k, start + n]
                        mean, shape = theta[i, count + k, start + n], theta[i, 2 * count + k, start + n]
                        raw[count + k], slots[at + MEAN] = mean, mean
                        raw[2 * count + k], slots[at + SHAPE] = shape, shape
                    mixture_far(np.float64(xs[n]), raw, bent, floor, offset, notes, out)
                    ys[n], logs[n] = out[Y], out[LOG_SLOPE]
                    work[W + n] = FAR
            if not keep:
                continue
            weight_sums, distances = sums[i, 0, start:stop], sums[i, 1, start:stop]
            tails, masses = sums[i, 2, start:stop], sums[i, 3, start:stop]
            for n in range(m):
                weight_sums[n] = work[W + n]
                distances[n] = work[U + n]
            for n in range(m):
                upper, lower = work[UPPER + n], work[LOWER + n]
                tails[n] = upper if upper < lower else lower
                masses[n] = work[MASS + n]
            for k in range(count):
                at = k * SLOT
                weights, places, shapes = (
                    kept[i, k, start:stop],
                    kept[i, count + k, start:stop],
                    kept[i, 2 * count + k, start:stop],
                )
                for n in range(m):
                    weights[n] = slots[at + WEIGHT + n]
                    places[n] = slots[at + MEAN + n]
                    shapes[n] = slots[at + SHAPE + n]


@kernel
def _vjp(
    x: Any,
    y: Any,
    kept: Any,
    sums: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    bent: bool,
    floor: float,
    offset: float,
    lowest: float,
) -> None:
    dims, size, total = kept.shape
    count = size // 3
    dtype = x.dtype.type
    one, zero, half, bottom, least = dtype(1), dtype(0), dtype(0.5), dtype(lowest), dtype(floor)
    bound, root_2pi = dtype(LOG_SCALE_BOUND), dtype(ROOT_2PI)
    work, slots = np.empty(_VJP_ROWS, x.dtype), np.empty(_VJP_SLOT, x.dtype)
    raw, notes, out, column = np.empty(size), np.empty((COMPONENT_ROWS, count)), np.empty(RESULTS), np.empty(size)
    for i in range(dims):
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            m = stop - start
            gs, ls = grad_y[i, start:stop], grad_log_slope[i if len(grad_log_slope) > 1 else 0, start:stop]
            ys, weight_sums, distances = y[i, start:stop], sums[i, 0, start:stop], sums[i, 1, start:stop]
            tails, masses = sums[i, 2, start:stop], sums[i, 3, start:stop]
            for n in range(m):
                work[_ON_TAIL + n] = (gs[n] + ls[n] * ys[n]) * mills(abs(ys[n]))
                work[_SIDE + n] = math.copysign(one, ys[n])
                work[_DISTANCE + n] = distances[n]
                work[_ON_X + n] = zero
            for n in range(m):
                through = work[_ON_TAIL + n] * work[_SIDE + n] * root_2pi
                work[_ON_WEIGHT + n] = (ls[n] - through) / weight_sums[n]
                work[_ON_PART + n] = through / tails[n]
                work[_ON_TAIL + n] = work[_ON_TAIL + n] / tails[n]
                work[_ON_MASS + n] = ls[n] / masses[n]
            for k in range(count):
                weights, places, shapes = (
                    kept[i, k, start:stop],
                    kept[i, count + k, start:stop],
                    kept[i, 2 * count + k, start:stop],
                )
                if bent:
                    for n in range(m):
                        slots[n] = exp_bounded(-bound * shapes[n])
                        slots[_SLOPE + n] = one - shapes[n] * shapes[n]
                else:
                    for n in range(m):
                        rate = one / (shapes[n] + least)
                        slots[n] = rate
                        slots[_SLOPE + n] = -expm1_negative(-shapes[n]) * rate
                for n in range(m):
                    u, v = work[_DISTANCE + n], abs(places[n])
                    exponent = (u - v) * (v + u) * half
                    e = exp_negative(exponent)
                    slots[_A + n] = weights[n] * (e if exponent > bottom else zero)
                for n in range(m):
                    q, a = places[n], slots[_A + n]
                    beyond = a * mills(abs(q))
                    in_tail = beyond if (q >= zero) == (work[_SIDE + n] > zero) else weights[n] - beyond
                    r = a * slots[n] * work[_ON_MASS + n]
                    on_q = a * work[_ON_TAIL + n] - r * q
                    slots[_A + n] = r - work[_ON_PART + n] * in_tail - work[_ON_WEIGHT + n] * weights[n]
                    slots[_SLOPE + n] *= -(on_q * q + r)
                    slots[n] *= on_q
                    work[_ON_X + n] += slots[n]
                weights, places, shapes = (
                    grad_theta[i, k, start:stop],
                    grad_theta[i, count + k, start:stop],
                    grad_theta[i, 2 * count + k, start:stop],
                )
                for n in range(m):
                    weights[n] = slots[_A + n]
                    places[n] = -slots[n]
                    shapes[n] = slots[_SLOPE + n]
            on_xs = grad_x[i, start:stop]
            for n in range(m):
                on_xs[n] = work[_ON_X + n]
            for n in range(m):
                if weight_sums[n] == FAR:
                    for j in range(size):
                        raw[j] = kept[i, j, start + n]
                    mixture_far(np.float64(x[i, start + n]), raw, bent, floor, offset, notes, out)
                    on_xs[n] = mixture_far_vjp(notes, out, np.float64(gs[n]), np.float64(ls[n]), column)
                    for j in range(size):
                        grad_theta[i, j, start + n] = column[j]


@kernel
def _inverse(
    y: Any,
    theta: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    eps: float,
    widest: float,
    bent: bool,
    floor: float,
    offset: float,
    lowest: float,
    smallest: float,
    farthest: float,
    steps: int,
) -> None:
    size, total = theta.shape
    count = size // 3
    dtype = y.dtype.type
    work, slots = np.empty(ROWS, y.dtype), np.empty(count * SLOT, y.dtype)
    state = np.empty((root.ROWS, BLOCK), y.dtype)
    values, slopes = np.empty(BLOCK, y.dtype), np.empty(BLOCK, y.dtype)
    raw, notes, out = np.empty(size), np.empty((COMPONENT_ROWS, count)), np.empty(RESULTS)
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        m = stop - start
        ys = y[start:stop]
        load(theta, start, stop, work, slots, bent, floor, offset, lowest)
        state[root.LOW], state[root.HIGH] = math.inf, -math.inf
        # a quantile of a mixture lies between the components' own
        for k in range(count):
            at = k * SLOT
            for n in range(m):
                quantile = slots[at + MEAN + n] + ys[n] / slots[at + RATE + n]
                state[root.LOW, n] = min(state[root.LOW, n], quantile)
                state[root.HIGH, n] = max(state[root.HIGH, n], quantile)
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, step = m, 0
        while left > 0 and step < root.ALL_STEPS:
            for n in range(m):
                work[X + n] = state[root.POINT, n]
            evaluate(work, slots, count, m, lowest, steps)
            results(work, m, values, slopes)
            for n in range(m):
                if state[root.DONE, n] == 0 and is_far(work, n, smallest, farthest):
                    for j in range(size):
                        raw[j] = theta[j, start + n]
                    mixture_far(np.float64(work[X + n]), raw, bent, floor, offset, notes, out)
                    values[n], slopes[n] = out[Y], out[LOG_SLOPE]
            left = root.advance(state, ys, values, slopes, m, step, dtype(eps))
            step += 1
        root.finish(state, start, m, x, log_slope, residual)
