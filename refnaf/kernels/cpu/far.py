"""The columns of a DSF or DDSF whose sums would underflow: :mod:`refnaf.kernels.far`, compiled, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels import far as shared
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.far import LOG_T, OUTPUT_ROWS, SCRATCH_ROWS, UNIT_ROWS, H

_FAR = shared.make(part, np.float64)
log1p_exp, log_sum, top = _FAR.log1p_exp, _FAR.log_sum, _FAR.top
far_forward, far_vjp = _FAR.forward, _FAR.vjp


def far_scratch(size: int, layers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A column of raw numbers, what :func:`far_forward` notes, and its scratch."""
    d = (size + layers - 1) // (4 * layers - 1)
    return (
        np.empty(size),
        np.empty((layers, UNIT_ROWS, d)),
        np.empty((layers, OUTPUT_ROWS, d)),
        np.empty((SCRATCH_ROWS, d)),
    )


@kernel
def far_columns(
    x: Any,
    theta: Any,
    matrices: Any,
    far: Any,
    y: Any,
    log_slope: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    column: Any,
    units: Any,
    outputs: Any,
    scratch: Any,
) -> None:
    """y and log dy/dx ``(D, N)`` of the columns that are ``far``, of which theta ``(D, P, N)`` is raw."""
    dims, size, count = theta.shape
    for i in range(dims):
        for n in range(count):
            if far[i, n]:
                for j in range(size):
                    column[j] = theta[i, j, n]
                at = np.float64(x[i, n])
                far_forward(at, column, matrices, d, layers, offset, floor, units, outputs, scratch)
                y[i, n], log_slope[i, n] = outputs[layers - 1, H, 0], outputs[layers - 1, LOG_T, 0]


@kernel
def far_columns_vjp(
    x: Any,
    theta: Any,
    matrices: Any,
    far: Any,
    grad_y: Any,
    grad_log_slope: Any,
    grad_x: Any,
    grad_theta: Any,
    grad_matrices: Any,
    d: int,
    layers: int,
    offset: float,
    floor: float,
    column: Any,
    units: Any,
    outputs: Any,
    scratch: Any,
) -> None:
    """Their cotangents ``(D, N)`` to those of x and theta, which are overwritten, and of the matrices, which grow."""
    dims, size, count = theta.shape
    pulled = np.empty(size)
    for i in range(dims):
        for n in range(count):
            if far[i, n]:
                for j in range(size):
                    column[j] = theta[i, j, n]
                at = np.float64(x[i, n])
                far_forward(at, column, matrices, d, layers, offset, floor, units, outputs, scratch)
                g, lam = np.float64(grad_y[i, n]), np.float64(grad_log_slope[i, n])
                whole = len(matrices)
                grad_x[i, n] = far_vjp(
                    column, matrices, whole, d, layers, offset, units, outputs, scratch, g, lam, pulled, grad_matrices
                )
                for j in range(size):
                    grad_theta[i, j, n] = pulled[j]
