"""What surrounds the matrix products of the masked network (:mod:`refnaf.kernels.array.made`), on a device."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from refnaf.kernels.cuda.arrays import plain
from refnaf.kernels.cuda.compiler import THREADS, kernel, part
from refnaf.kernels.cuda.elementary import functions


def squash(x: Any, bound: float | None) -> Any:
    """What the network reads: ``x / (1 + |x| / bound)``, or x itself without a bound."""
    if bound is None:
        return x
    x = plain(x)
    out = np.empty_like(x)
    shared_kernels(x.dtype.type).squash.each(x.size, x.reshape(-1), 1 / bound, out.reshape(-1))
    return out


def squash_vjp(x: Any, bound: float | None, grad: Any) -> Any:
    """Cotangent of :func:`squash` to that of x."""
    if bound is None:
        return grad
    x, grad = plain(x), plain(grad)
    out = np.empty_like(x)
    flat = x.reshape(-1), 1 / bound, grad.reshape(-1), out.reshape(-1)
    shared_kernels(x.dtype.type).squash_vjp.each(x.size, *flat)
    return out


def activate(z: Any, bias: Any, name: str | None) -> Any:
    """Add bias ``(H,)`` to z ``(H, N)`` and apply the activation ("elu", "relu", "tanh", or None), all in place."""
    rows, count = z.shape
    kernels(z.dtype.type, name).activate.columns(rows, count, z, plain(bias))
    return z


def activate_vjp(h: Any, name: str | None, grad: Any, grad_bias: Any) -> None:
    """Multiply grad ``(H, N)`` by the activation's derivative, read off its value h, and sum its rows into grad_bias.

    Without an activation h is not read.
    """
    kernels(grad.dtype.type, name).activate_vjp((len(grad),), h, grad, grad_bias)


@cache
def shared_kernels(dtype: Any) -> SimpleNamespace:
    """The kernels of any activation."""
    one = dtype(1)

    @kernel(dtype, "1f1")
    def squash(x: Any, inverse: Any, out: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n < x.shape[0]:
            out[n] = x[n] / (one + abs(x[n]) * inverse)

    @kernel(dtype, "1f11")
    def squash_vjp(x: Any, inverse: Any, grad: Any, out: Any) -> None:
        n = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if n < x.shape[0]:
            # its square would overflow where this does not
            below = one / (one + abs(x[n]) * inverse)
            out[n] = grad[n] * below * below

    return SimpleNamespace(squash=squash, squash_vjp=squash_vjp)


@cache
def kernels(dtype: Any, name: str | None) -> SimpleNamespace:
    """The kernels for np.float32 or np.float64 and an activation."""
    f = functions(dtype)
    expm1_negative, tanh = f.expm1_negative, f.tanh
    zero, one = dtype(0), dtype(1)

    @part
    def bend(v: Any) -> Any:
        if name == "elu":
            return v if v > zero else expm1_negative(v)
        if name == "relu":
            return max(v, zero)
        if name == "tanh":
            return tanh(v)
        return v

    @part
    def slope(h: Any) -> Any:
        if name == "elu":
            return one + min(h, zero)
        if name == "relu":
            return one if h > zero else zero
        if name == "tanh":
            return one - h * h
        return one

    @kernel(dtype, "21")
    def activate(z: Any, bias: Any) -> None:
        n, i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if n < z.shape[1]:
            z[i, n] = bend(z[i, n] + bias[i])

    @kernel(dtype, "221")
    def activate_vjp(h: Any, grad: Any, grad_bias: Any) -> None:
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        sums = cuda.shared.array(THREADS, dtype)
        total = zero
        for n in range(t, grad.shape[1], THREADS):
            value = grad[i, n]
            if name is not None:
                value *= slope(h[i, n])
                grad[i, n] = value
            total += value
        sums[t] = total
        cuda.syncthreads()
        width = THREADS // 2
        while width > 0:
            if t < width:
                sums[t] += sums[t + width]
            cuda.syncthreads()
            width //= 2
        if t == 0:
            grad_bias[i] = sums[0]

    return SimpleNamespace(activate=activate, activate_vjp=activate_vjp)
