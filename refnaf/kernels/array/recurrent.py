"""The recurrent transformations of TAN (reference: :mod:`refnaf.reference.tan`), VJP and inverse: one sweep each.

With k the leaky ReLU's slope at ``t_i = s_i x_i + w_i'h_i + b_i`` (1 where there is none), a cotangent g of y gives
``k g`` of t; from there to w, b and s, to x directly, and through the state to the x before. The transposed Jacobian is
triangular: the sweep back through the states solves it as it goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array import states
from refnaf.kernels.array.affine import bend_slope
from refnaf.kernels.array.made import squash
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.stable import sigmoid
from refnaf.reference.tan import Cell, Output, leaky, scales, unleaky


def forward(
    x: np.ndarray,
    context: np.ndarray | None,
    cell: Cell,
    out: Output,
    name: str,
    bound: float | None,
    ws: Workspace,
    pieces: Any,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """y and ``log dy_i/dx_i``, ``(D, N)``, and what :func:`vjp` needs; ``pieces``: see :class:`.states.Steps`."""
    h, saved = states.forward(x, context, cell, name, bound, ws, pieces)
    scale, log_scale = scales(out.log_scale)
    t = np.matmul(out.weight[:, None, :], h.transpose(1, 0, 2))[:, 0]
    t += out.bias[:, None]
    t += scale[:, None] * x
    y, log_slope = (t, np.zeros_like(t)) if out.leak is None else leaky(t, out.leak[:, None])
    return y, log_slope + log_scale[:, None], (saved, out, t, scale, np.exp(log_slope))


def vjp(saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, ws: Workspace) -> dict[str, Any]:
    """Cotangents of y ``(D, N)`` and of the log-determinant ``(N,)`` to those of ``x``, ``context`` and, by name, of
    the numbers of :class:`.Cell` and, under "out", of :class:`.Output`."""
    kept, out, t, scale, slope = saved
    x, h = kept[0], kept[4][0]
    on_t = grad_y * slope
    back = states.Back(kept, ws)
    grad = ws.take(h[:, 0].shape, h.dtype)
    for i in range(len(x) - 1, -1, -1):
        back(i, np.multiply(out.weight[i][:, None], on_t[i], out=grad))
    found = back.totals()
    found["x"] += scale[:, None] * on_t
    bending = bend_slope(out.log_scale, "tanh", LOG_SCALE_BOUND)[1]
    on_leak = None
    if out.leak is not None:
        bent, rising = bend_slope(out.leak, "tanh", LOG_SCALE_BOUND)
        # d alpha = alpha (1 - alpha), d log alpha = 1 - alpha
        negative = t < 0
        through = sigmoid(bent) * np.sum(grad_y * t * negative, axis=1) + np.sum(grad_logdet * negative, axis=1)
        on_leak = through * sigmoid(-bent) * rising
    found["out"] = Output(
        np.matmul(h.transpose(1, 0, 2), on_t[:, :, None])[:, :, 0],
        np.sum(on_t, axis=1),
        (scale * np.sum(on_t * x, axis=1) + np.sum(grad_logdet)) * bending,
        on_leak,
    )
    return found


def inverse(
    y: np.ndarray,
    context: np.ndarray | None,
    cell: Cell,
    out: Output,
    name: str,
    bound: float | None,
    ws: Workspace,
    pieces: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """The x with image y and ``log dx_i/dy_i``, ``(D, N)``."""
    t, log_slope = (y, np.zeros_like(y)) if out.leak is None else unleaky(y, out.leak[:, None])
    scale, log_scale = scales(out.log_scale)
    x = np.empty_like(y)
    mark = ws.mark()
    c = None if context is None else squash(context, bound)
    step = states.Steps(c, cell, name, y.shape[1], ws, pieces)
    for i in range(len(y)):
        h = step(i, squash(x[i - 1], bound) if i else None)
        x[i] = (t[i] - np.matmul(out.weight[i], h) - out.bias[i]) * (1 / scale[i])
    ws.release(mark)
    return x, log_slope - log_scale[:, None]


def solve_transposed(saved: Any, wanted: np.ndarray, ws: Workspace) -> np.ndarray:
    """The v with ``J'v = wanted`` at the saved point."""
    kept, out, _, scale, slope = saved
    found = np.zeros_like(wanted)
    mark = ws.mark()
    back = states.Back(kept, ws)
    grad = ws.take(kept[4][0][:, 0].shape, wanted.dtype)
    for i in range(len(wanted) - 1, -1, -1):
        rest = wanted[i] - back.on_input(i) if i + 1 < len(wanted) else wanted[i]
        found[i] = rest / (scale[i] * slope[i])
        back(i, np.multiply(out.weight[i][:, None], slope[i] * found[i], out=grad))
    ws.release(mark)
    return found
