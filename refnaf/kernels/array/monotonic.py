"""The monotone network of zuko's NAF (reference: :mod:`refnaf.reference.monotonic`) with its analytic VJP.

With p, h and their tangents p', h' of a layer, e the activation's derivative and bars for cotangents,

    W' : Wbar = pbar h^T + p'bar h'^T,      bbar = pbar,      hbar = W^T pbar,      h'bar = W^T p'bar
    act: p'bar = e h'bar,      pbar = e hbar + e' p' h'bar,      e' = +-e where the unit bends, 0 elsewhere.

Tangents are kept divided by exp(c), one c a sample and layer, and their cotangents multiplied by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.monotonic import signs


def forward(x: np.ndarray, theta: np.ndarray, *numbers: Any, ws: Workspace) -> tuple[np.ndarray, np.ndarray, Any]:
    """x ``(D, N)``, theta ``(D, S, N)`` and the numbers to y, log dy/dx ``(D, N)`` and what :func:`vjp` needs.

    The numbers, those of the reference, may lack the axis D where it is 1.
    """
    with np.errstate(all="ignore"):
        return _forward(x, theta, numbers, ws)


def _forward(
    x: np.ndarray, theta: np.ndarray, numbers: Sequence[np.ndarray], ws: Workspace
) -> tuple[np.ndarray, np.ndarray, Any]:
    weights, biases = [np.abs(w) for w in numbers[::2]], [b[..., None] for b in numbers[1::2]]
    inputs = ws.take((x.shape[0], theta.shape[1] + 1, x.shape[1]), x.dtype)
    inputs[:, 0], inputs[:, 1:] = x, theta
    p = _affine(weights[0], inputs, biases[0], ws)
    tangent = np.broadcast_to(weights[0][..., :1], p.shape)
    log_scale = np.zeros((x.shape[0], 1, x.shape[1]), x.dtype)
    layers = []
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        h, low, bent, top = _activate(p, ws)
        log_scale += top
        low -= top
        slope = np.exp(low, out=low)
        steep = ws.take(p.shape, p.dtype)
        np.multiply(slope, tangent, out=steep)
        layers.append((h, slope, bent, top, steep))
        p = _affine(weight, h, bias, ws)
        tangent = ws.take(p.shape, p.dtype)
        np.matmul(weight, steep, out=tangent)
    log_slope = (np.log(tangent) + log_scale)[:, 0]
    return p[:, 0], log_slope, (inputs, numbers, weights, layers, tangent)


def _affine(weight: np.ndarray, h: np.ndarray, bias: np.ndarray, ws: Workspace) -> np.ndarray:
    p = ws.take((h.shape[0], weight.shape[-2], h.shape[2]), h.dtype)
    np.matmul(weight, h, out=p)
    p += bias
    return p


def _activate(p: np.ndarray, ws: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two-way ELU, the logarithm of its derivative, the sign of its bend (or 0), and the largest logarithm."""
    sign = signs(p.shape[1]).astype(p.dtype)
    h, low, bent = (ws.take(p.shape, p.dtype) for _ in range(3))
    np.multiply(sign, p, out=low)
    np.maximum(low, 0, out=h)
    np.minimum(low, 0, out=low)
    np.expm1(low, out=bent)
    h += bent
    h *= sign
    np.less(low, 0, out=bent, casting="unsafe")
    bent *= sign
    return h, low, bent, np.max(low, axis=1, keepdims=True)


def vjp(
    saved: Any, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Cotangents of y ``(D, N)`` and log dy/dx ``(1 or D, N)`` to those of x, theta and each of the numbers."""
    inputs, numbers, weights, layers, tangent = saved
    grads: list[np.ndarray] = [np.zeros(0)] * len(numbers)
    on_p = grad_y[:, None]
    on_tangent = grad_log_slope[:, None] / tangent
    for k in range(len(layers), 0, -1):
        h, slope, bent, top, steep = layers[k - 1]
        on_weight = np.matmul(on_p, h.transpose(0, 2, 1))
        on_weight += np.matmul(on_tangent, steep.transpose(0, 2, 1))
        grads[2 * k] = np.sign(numbers[2 * k]) * on_weight
        grads[2 * k + 1] = np.sum(on_p, axis=2)
        back = weights[k].swapaxes(-1, -2)
        on_h, on_steep = (ws.take(h.shape, h.dtype) for _ in range(2))
        np.matmul(back, on_p, out=on_h)
        np.matmul(back, on_tangent, out=on_steep)
        on_h *= slope
        on_h *= np.exp(top)
        curved = ws.take(h.shape, h.dtype)
        np.multiply(bent, steep, out=curved)
        curved *= on_steep
        on_h += curved
        on_steep *= slope
        on_p, on_tangent = on_h, on_steep
    on_weight = np.matmul(on_p, inputs.transpose(0, 2, 1))
    on_weight[:, :, 0] += np.sum(np.broadcast_to(on_tangent, on_p.shape), axis=2)
    grads[0], grads[1] = np.sign(numbers[0]) * on_weight, np.sum(on_p, axis=2)
    on_inputs = ws.take(inputs.shape, inputs.dtype)
    np.matmul(weights[0].swapaxes(-1, -2), on_p, out=on_inputs)
    return on_inputs[:, 0], np.ascontiguousarray(on_inputs[:, 1:]), grads
