"""The masked network (reference: :mod:`refnaf.reference.made`) with its analytic VJP.

Weights come with their masks folded in (zeros outside), so that a layer is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.made import sources


def squash(x: np.ndarray, bound: float | None) -> np.ndarray:
    """What the network reads: ``x / (1 + |x| / bound)``."""
    return x if bound is None else x / (1 + np.abs(x) * x.dtype.type(1 / bound))


def squash_vjp(x: np.ndarray, bound: float | None, grad: np.ndarray) -> np.ndarray:
    """Cotangent of :func:`squash` to that of x."""
    return grad if bound is None else grad / (1 + np.abs(x) * x.dtype.type(1 / bound)) ** 2


def activate(z: np.ndarray, name: str, ws: Workspace) -> np.ndarray:
    """The activation, in place of its argument."""
    if name == "tanh":
        return np.tanh(z, out=z)
    if name == "elu":
        low = ws.take(z.shape, z.dtype)
        np.minimum(z, 0, out=low)
        np.expm1(low, out=low)
        np.maximum(z, 0, out=z)
        z += low
        return z
    return np.maximum(z, 0, out=z)


def activate_vjp(h: np.ndarray, name: str, grad: np.ndarray, ws: Workspace) -> None:
    """Multiply ``grad`` by the activation's derivative, read off its value h."""
    slope = ws.take(h.shape, h.dtype)
    if name == "tanh":
        np.multiply(h, h, out=slope)
        np.subtract(1, slope, out=slope)
    elif name == "elu":
        np.minimum(h, 0, out=slope)
        slope += 1
    else:
        np.greater(h, 0, out=slope, casting="unsafe")
    grad *= slope


def forward(
    x: np.ndarray,
    context: np.ndarray | None,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    context_weights: Sequence[np.ndarray],
    activation: str,
    bound: float | None,
    gains: Sequence[tuple[np.ndarray, np.ndarray]],
    skips: Sequence[tuple[int, int]],
    linear: Sequence[int],
    ws: Workspace,
) -> tuple[np.ndarray, Any]:
    """x ``(D, N)`` and context ``(C, N)`` to ``(D * outputs, N)``, and what :func:`vjp` needs."""
    c = None if context is None else squash(context, bound)
    hidden = [squash(x, bound)]
    gained: list[tuple[np.ndarray, np.ndarray]] = []
    active = [layer for layer in range(len(weights) - 1) if layer not in linear]
    skipping = {source for _, source in skips}
    kept: dict[int, np.ndarray] = {}
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        z = ws.take((weight.shape[0], x.shape[1]), x.dtype)
        np.dot(weight, hidden[-1], out=z)
        if gains and c is not None:
            gain, product = ws.take(z.shape, z.dtype), ws.take(z.shape, z.dtype)
            np.dot(gains[layer][0], c, out=gain)
            gain += gains[layer][1][:, None]
            np.copyto(product, z)
            z *= gain
            gained.append((gain, product))
        z += bias[:, None]
        if c is not None:
            part = ws.take(z.shape, z.dtype)
            z += np.dot(context_weights[layer], c, out=part)
        for source in sources(skips, layer):
            z += kept[source]
        if layer in skipping:
            kept[layer] = z
            if layer in active:  # which is done in place
                kept[layer] = ws.take(z.shape, z.dtype)
                np.copyto(kept[layer], z)
        hidden.append(activate(z, activation, ws) if layer in active else z)
    out = hidden.pop()
    return out, (x, context, c, hidden, weights, context_weights, activation, bound, gains, gained, skips, active)


def vjp(saved: Any, grad: np.ndarray, masks: Sequence[np.ndarray], ws: Workspace) -> dict[str, Any]:
    """Cotangent of the output to those of ``x``, ``context`` and, by the forward's names, the parameters."""
    x, context, c, hidden, weights, context_weights, activation, bound, gains, gained, skips, active = saved
    layers = range(len(weights) - 1, -1, -1)
    out: dict[str, Any] = {"weights": [None] * len(weights), "biases": [None] * len(weights), "context": None}
    out["context_weights"], out["gains"] = [None] * len(context_weights), [None] * len(gains)
    grad_c = None
    skipped: dict[int, np.ndarray] = {}
    for layer in layers:
        if layer in skipped:
            grad += skipped[layer]
        for source in sources(skips, layer):
            skipped[source] = skipped[source] + grad if source in skipped else grad
        out["biases"][layer] = np.sum(grad, axis=1)
        if c is not None:
            out["context_weights"][layer] = np.dot(grad, c.T)
            part = np.dot(context_weights[layer].T, grad)
            grad_c = part if grad_c is None else grad_c + part
        if gains:
            gain, product = gained[layer]
            on_gain = grad * product
            out["gains"][layer] = (np.dot(on_gain, c.T), np.sum(on_gain, axis=1))
            grad_c = grad_c + np.dot(gains[layer][0].T, on_gain)
            grad = grad * gain
        gw = ws.take(weights[layer].shape, grad.dtype)
        np.dot(grad, hidden[layer].T, out=gw)
        gw *= masks[layer]
        out["weights"][layer] = gw
        below = ws.take(hidden[layer].shape, grad.dtype)
        np.dot(weights[layer].T, grad, out=below)
        if layer - 1 in active:
            activate_vjp(hidden[layer], activation, below, ws)
        grad = below
    out["x"] = squash_vjp(x, bound, grad)
    if grad_c is not None:
        out["context"] = squash_vjp(context, bound, grad_c)
    return out


def spread(out: np.ndarray, weight: np.ndarray, bias: np.ndarray, dim: int, ws: Workspace) -> tuple[np.ndarray, Any]:
    """``(D * C, N)`` by one linear map ``(P, C)`` for all dimensions to ``(D, P, N)``."""
    channels = out.reshape(dim, weight.shape[1], -1)
    theta = ws.take((dim, weight.shape[0], channels.shape[2]), out.dtype)
    np.matmul(weight, channels, out=theta)
    theta += bias[:, None]
    return theta, (channels, weight)


def spread_vjp(saved: Any, grad: np.ndarray, ws: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cotangent of theta to those of ``out``, ``weight`` and ``bias``."""
    channels, weight = saved
    grad_out = ws.take(channels.shape, grad.dtype)
    np.matmul(weight.T, grad, out=grad_out)
    grad_weight = np.sum(np.matmul(grad, channels.transpose(0, 2, 1)), axis=0)
    return grad_out.reshape(-1, grad.shape[2]), grad_weight, np.sum(grad, axis=(0, 2))
