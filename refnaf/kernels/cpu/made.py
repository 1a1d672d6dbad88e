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

_CODES: dict[str | None, int] = {None: 0, "relu": 1, "elu": 2, "tanh": 3}


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
    _activate(z, plain(bias), _CODES[name])
    return z


def activate_vjp(h: np.ndarray, name: str | None, grad: np.ndarray, grad_bias: np.ndarray) -> None:
    """Multiply grad ``(H, N)`` by the activation's derivative, read off its value h, and sum its rows into grad_bias.

    Sums are accumulated in float64. Without an activation h is not read.
    """
    _activate_vjp(h, _CODES[name], grad, grad_bias)


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


@kernel
def _activate(z: Any, bias: Any, code: int) -> None:
    dtype = z.dtype.type
    zero = dtype(0)
    for i in range(len(z)):
        row, b = z[i], bias[i]
        if code == 2:
            for n in range(len(row)):
                v = row[n] + b
                low = expm1_negative(zero if v > zero else v)
                row[n] = v if v > zero else low
        elif code == 1:
            for n in range(len(row)):
                v = row[n] + b
                row[n] = zero if v < zero else v
        elif code == 3:
            for n in range(len(row)):
                row[n] = tanh(row[n] + b)
        else:
            for n in range(len(row)):
                row[n] = row[n] + b


@kernel
def _activate_vjp(h: Any, code: int, grad: Any, grad_bias: Any) -> None:
    dtype = grad.dtype.type
    zero, one = dtype(0), dtype(1)
    for i in range(len(grad)):
        value, row = h[i], grad[i]
        if code == 2:
            for n in range(len(row)):
                row[n] = row[n] * (one + (value[n] if value[n] < zero else zero))
        elif code == 1:
            for n in range(len(row)):
                row[n] = row[n] if value[n] > zero else zero
        elif code == 3:
            for n in range(len(row)):
                row[n] = row[n] * (one - value[n] * value[n])
        grad_bias[i] = total(row)
