"""What surrounds the matrix products of the masked network (:mod:`refnaf.kernels.array.made`), compiled.

Each function reads and writes an array once. Arrays that are changed in place must be C-contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.elementary import expm1_negative, tanh
from refnaf.kernels.cpu.sums import total


def squash(x: np.ndarray, bound: float | None) -> np.ndarray:
    """What the network reads: ``x / (1 + |x| / bound)``, or x itself without a bound."""
    if bound is None:
        return x
    x = plain(x)
    out = np.empty_like(x)
    _squash(x.reshape(-1), 1 / bound, out.reshape(-1))
    return out


def squash_vjp(x: np.ndarray, bound: float | None, grad: np.ndarray) -> np.ndarray:
    """Cotangent of :func:`squash` to that of x."""
    if bound is None:
        return grad
    x, grad = plain(x), plain(grad)
    out = np.empty_like(x)
    _squash_vjp(x.reshape(-1), 1 / bound, grad.reshape(-1), out.reshape(-1))
    return out


def activate(z: np.ndarray, bias: np.ndarray, name: str | None) -> np.ndarray:
    """Add bias ``(H,)`` to z ``(H, N)`` and apply the activation ("elu", "relu", "tanh", or None), all in place."""
    _ACTIVATE[name](z, plain(bias))
    return z


def activate_vjp(h: np.ndarray, name: str | None, grad: np.ndarray, grad_bias: np.ndarray) -> None:
    """Multiply grad ``(H, N)`` by the activation's derivative, read off its value h, and sum its rows into grad_bias.

    Sums are accumulated in float64. Without an activation h is not read.
    """
    _ACTIVATE_VJP[name](h, grad, grad_bias)


@kernel
def _squash(x: Any, inverse: float, out: Any) -> None:
    dtype = x.dtype.type
    one, rate = dtype(1), dtype(inverse)
    for n in range(len(x)):
        out[n] = x[n] / (one + abs(x[n]) * rate)


@kernel
def _squash_vjp(x: Any, inverse: float, grad: Any, out: Any) -> None:
    dtype = x.dtype.type
    one, rate = dtype(1), dtype(inverse)
    for n in range(len(x)):
        # its square would overflow where this does not
        below = one / (one + abs(x[n]) * rate)
        out[n] = grad[n] * below * below


# a kernel an activation, so that only the one in use is compiled


@kernel
def _shift(z: Any, bias: Any) -> None:
    for i in range(len(z)):
        row, b = z[i], bias[i]
        for n in range(len(row)):
            row[n] = row[n] + b


@kernel
def _elu(z: Any, bias: Any) -> None:
    zero = z.dtype.type(0)
    for i in range(len(z)):
        row, b = z[i], bias[i]
        for n in range(len(row)):
            v = row[n] + b
            low = expm1_negative(zero if v > zero else v)
            row[n] = v if v > zero else low


@kernel
def _relu(z: Any, bias: Any) -> None:
    zero = z.dtype.type(0)
    for i in range(len(z)):
        row, b = z[i], bias[i]
        for n in range(len(row)):
            v = row[n] + b
            row[n] = zero if v < zero else v


@kernel
def _tanh(z: Any, bias: Any) -> None:
    for i in range(len(z)):
        row, b = z[i], bias[i]
        for n in range(len(row)):
            row[n] = tanh(row[n] + b)


@kernel
def _sum(h: Any, grad: Any, grad_bias: Any) -> None:
    for i in range(len(grad)):
        grad_bias[i] = total(grad[i])


@kernel
def _elu_vjp(h: Any, grad: Any, grad_bias: Any) -> None:
    zero, one = grad.dtype.type(0), grad.dtype.type(1)
    for i in range(len(grad)):
        value, row = h[i], grad[i]
        for n in range(len(row)):
            row[n] = row[n] * (one + (value[n] if value[n] < zero else zero))
        grad_bias[i] = total(row)


@kernel
def _relu_vjp(h: Any, grad: Any, grad_bias: Any) -> None:
    zero = grad.dtype.type(0)
    for i in range(len(grad)):
        value, row = h[i], grad[i]
        for n in range(len(row)):
            row[n] = row[n] if value[n] > zero else zero
        grad_bias[i] = total(row)


@kernel
def _tanh_vjp(h: Any, grad: Any, grad_bias: Any) -> None:
    one = grad.dtype.type(1)
    for i in range(len(grad)):
        value, row = h[i], grad[i]
        for n in range(len(row)):
            row[n] = row[n] * (one - value[n] * value[n])
        grad_bias[i] = total(row)


_ACTIVATE: dict[str | None, Any] = {None: _shift, "elu": _elu, "relu": _relu, "tanh": _tanh}
_ACTIVATE_VJP: dict[str | None, Any] = {None: _sum, "elu": _elu_vjp, "relu": _relu_vjp, "tanh": _tanh_vjp}
