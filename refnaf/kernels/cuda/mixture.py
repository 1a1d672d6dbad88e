"""Mixture-of-Gaussians conditionals (reference: :mod:`refnaf.reference.mixture`): forward, VJP and inverse, a sample a
thread.

The equations are those of :mod:`refnaf.kernels.cpu.mixture`. Forward keeps y alone: backward takes the components'
numbers from the raw pseudo-parameters again, and needs them in a thread's own memory for its sums. So the tails and the
components' shares in them are always of the same rounding: far out, that of q would grow to a factor between them.
Columns whose sums would underflow, or whose squares would overflow, are for the log domain
(:mod:`refnaf.kernels.mixture_far`).
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from refnaf.kernels import mixture_far as log_domain
from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.cuda.arrays import plain
from refnaf.kernels.cuda.compiler import kernel, part
from refnaf.kernels.cuda.elementary import functions
from refnaf.kernels.cuda.root import solver
from refnaf.kernels.mixture_far import COMPONENT_ROWS, FARTHEST, LOG_SLOPE, RESULTS, Y
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.stable import inverse_softplus

#: Rows of a thread's own numbers of the components: the weight, not normalised; 1 / s; what the raw log-scale became,
#: tanh(raw / 8) or softplus; q; and the weight times E.
WEIGHT, RATE, SHAPE, PLACE, SHARE, COLUMN_ROWS = range(6)


def supports(options: dict[str, Any]) -> bool:
    """Whether :func:`forward` takes these options of :func:`refnaf.reference.mixture.mog`."""
    return options.keys() <= {"floor"}


def forward(
    x: Any, theta: Any, *, ws: Any, floor: float | None = None, keep: bool = True, overwrite: bool = False
) -> tuple[Any, Any, Any]:
    """x ``(D, N)``, theta ``(D, 3 K, N)`` to y ``(D, N)``, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    Nothing is kept for a VJP without ``keep``; theta is read again there, and never overwritten.
    """
    x, theta = plain(x), plain(theta)
    y, log_slope = ws.take(x.shape, x.dtype), ws.take(x.shape, x.dtype)
    _kernels(theta.shape[1], x.dtype, floor).forward.columns(*x.shape, x, theta, y, log_slope, *_constants(floor))
    return y, log_slope, (x, y, theta, floor) if keep else None


def vjp(saved: Any, grad_y: Any, grad_log_slope: Any, ws: Any) -> tuple[Any, Any, list[Any]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x ``(D, N)`` and theta ``(D, 3 K, N)``.

    As those of the CPU's twin, they are right to a few units in the last place of ``(|g| + |l y|) dy``.
    """
    x, y, theta, floor = saved
    grad_x, grad_theta = ws.take(x.shape, x.dtype), ws.take(theta.shape, x.dtype)
    arrays = x, y, theta, plain(grad_y), plain(grad_log_slope), grad_x, grad_theta
    _kernels(theta.shape[1], x.dtype, floor).vjp.columns(*x.shape, *arrays, *_constants(floor))
    return grad_x, grad_theta, []


def inverse(y: Any, theta: Any, *, ws: Any, floor: float | None = None) -> tuple[Any, Any, Any]:
    """y ``(N,)``, theta ``(3 K, N)`` to x, log dx/dy and the residual ``f(x) - y``, each ``(N,)``."""
    y, theta = plain(y), plain(theta)
    found = tuple(np.empty_like(y) for _ in range(3))
    _kernels(len(theta), y.dtype, floor).inverse.columns(1, len(y), y, theta[None], *found, *_constants(floor))
    return found


def _constants(floor: float | None) -> tuple[float, float]:
    """Of scales that are softplus functions: the floor and the offset."""
    return (0.0, 0.0) if floor is None else (float(floor), float(inverse_softplus(1 - floor)))


def _kernels(size: int, dtype: Any, floor: float | None) -> SimpleNamespace:
    return kernels(dtype.type, size // 3, floor is None)


@cache
def kernels(dtype: Any, count: int, bent: bool = True) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64 and so many components, whose scales are bent exponentials or not."""
    f = functions(dtype)
    far = log_domain.make(part, dtype, f.mills)
    exp_bounded, exp_negative, expm1_negative = f.exp_bounded, f.exp_negative, f.expm1_negative
    log, mills, softplus, tanh = f.log, f.mills, f.softplus, f.tanh
    excess, far_forward, far_vjp = far.excess, far.forward, far.vjp
    zero, one, half, infinity = dtype(0), dtype(1), dtype(0.5), dtype(math.inf)
    bound, inverse_bound = dtype(LOG_SCALE_BOUND), dtype(1 / LOG_SCALE_BOUND)
    root_2pi = dtype(math.sqrt(2 * math.pi))
    smallest, farthest = dtype(SMALLEST[np.dtype(dtype)]), dtype(FARTHEST[dtype])
    column_shape, notes_shape = (COLUMN_ROWS, count), (COMPONENT_ROWS, count)

    @part
    def load(theta: Any, i: Any, n: Any, floor: Any, offset: Any, column: Any) -> Any:
        """Weights, rates and shapes; the weights' sum."""
        top = theta[i, 0, n]
        for k in range(1, count):
            top = max(top, theta[i, k, n])
        total = zero
        for k in range(count):
            w, raw = exp_negative(theta[i, k, n] - top), theta[i, 2 * count + k, n]
            total += w
            shape = tanh(raw * inverse_bound) if bent else softplus(raw + offset)
            column[WEIGHT, k], column[SHAPE, k] = w, shape
            column[RATE, k] = exp_bounded(-bound * shape) if bent else one / (shape + floor)
        return total

    @part
    def sums_at(x: Any, theta: Any, i: Any, n: Any, column: Any) -> Any:
        """Places and shares; u, the sums of the tails and of the density, and whether these and all squares fit."""
        low, high = infinity, -infinity
        for k in range(count):
            q = (x - theta[i, count + k, n]) * column[RATE, k]
            low, high = min(low, q), max(high, q)
            column[PLACE, k] = q
        u = max(low, -high, zero)
        upper, lower, mass = zero, zero, zero
        for k in range(count):
            q, w = column[PLACE, k], column[WEIGHT, k]
            v = abs(q)
            a = w * exp_negative((u - v) * (v + u) * half)
            column[SHARE, k] = a
            mass += a * column[RATE, k]
            beyond = a * mills(v)
            # on the other side of a component lies all the rest of its mass; u is 0 wherever that is of use
            rest = w - beyond
            upper += beyond if q >= zero else rest
            lower += rest if q >= zero else beyond
        # NaN of any component is one of the density, and does not fit
        inside = -farthest <= low and high <= farthest and mass <= farthest
        return u, upper, lower, mass, inside and upper >= smallest and lower >= smallest and mass >= smallest

    @part
    def evaluate(at: Any, theta: Any, where: Any, total: Any, floor: Any, offset: Any, room: Any) -> Any:
        """y and log dy/dx of the column ``where``."""
        (i, n), (column, notes, out) = where, room
        u, upper, lower, mass, fits = sums_at(at, theta, i, n, column)
        if fits:
            e = excess(u, min(log(min(upper, lower) / (total * mills(u))), zero))
            return u + e if upper < lower else -(u + e), log(mass / total) + e * (u + half * e)
        far_forward(at, theta[i, :, n], bent, floor, offset, notes, out)
        return out[Y], out[LOG_SLOPE]

    @kernel(dtype, "2322ff")
    def forward(x: Any, theta: Any, y: Any, log_slope: Any, floor: Any, offset: Any) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        column, notes = cuda.local.array(column_shape, dtype), cuda.local.array(notes_shape, dtype)
        out = cuda.local.array(RESULTS, dtype)
        total = load(theta, i, n, floor, offset, column)
        room = column, notes, out
        y[i, n], log_slope[i, n] = evaluate(x[i, n], theta, (i, n), total, floor, offset, room)

    @kernel(dtype, "2232223ff")
    def vjp(
        x: Any,
        y: Any,
        theta: Any,
        grad_y: Any,
        grad_log_slope: Any,
        grad_x: Any,
        grad_theta: Any,
        floor: Any,
        offset: Any,
    ) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n >= x.shape[1]:
            return
        column = cuda.local.array(column_shape, dtype)
        g, lam = grad_y[i, n], grad_log_slope[i if grad_log_slope.shape[0] > 1 else 0, n]
        total = load(theta, i, n, floor, offset, column)
        _, upper, lower, mass, fits = sums_at(x[i, n], theta, i, n, column)
        if not fits:
            notes, out = cuda.local.array(notes_shape, dtype), cuda.local.array(RESULTS, dtype)
            far_forward(x[i, n], theta[i, :, n], bent, floor, offset, notes, out)
            grad_x[i, n] = far_vjp(notes, out, g, lam, grad_theta[i, :, n])
            return
        positive = upper < lower
        tail = upper if positive else lower
        on_tail = (g + lam * y[i, n]) * mills(abs(y[i, n]))
        through = on_tail * (root_2pi if positive else -root_2pi)
        on_weight, on_part = (lam - through) / total, through / tail
        on_tail, on_mass = on_tail / tail, lam / mass
        on_x = zero
        for k in range(count):
            w, rate, shape, q, a = (
                column[WEIGHT, k],
                column[RATE, k],
                column[SHAPE, k],
                column[PLACE, k],
                column[SHARE, k],
            )
            beyond = a * mills(abs(q))
            in_tail = beyond if (q >= zero) == positive else w - beyond
            r = a * rate * on_mass
            on_q = a * on_tail - r * q
            dlog = one - shape * shape if bent else -expm1_negative(-shape) * rate
            grad_theta[i, k, n] = r - on_part * in_tail - on_weight * w
            grad_theta[i, count + k, n] = -on_q * rate
            grad_theta[i, 2 * count + k, n] = -(on_q * q + r) * dlog
            on_x += on_q * rate
        grad_x[i, n] = on_x

    solve = solver(dtype, evaluate)

    @kernel(dtype, "13111ff")
    def inverse(y: Any, theta: Any, x: Any, log_slope: Any, residual: Any, floor: Any, offset: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n >= y.shape[0]:
            return
        column, notes = cuda.local.array(column_shape, dtype), cuda.local.array(notes_shape, dtype)
        out = cuda.local.array(RESULTS, dtype)
        total = load(theta, 0, n, floor, offset, column)
        low, high = infinity, -infinity
        # a quantile of a mixture lies between the components' own
        for k in range(count):
            quantile = theta[0, count + k, n] + y[n] / column[RATE, k]
            low, high = min(low, quantile), max(high, quantile)
        room = column, notes, out
        root, slope, off = solve(y[n], low, high, theta, (0, n), total, floor, offset, room)
        x[n], log_slope[n], residual[n] = root, -slope, off

    return SimpleNamespace(forward=forward, vjp=vjp, inverse=inverse)
