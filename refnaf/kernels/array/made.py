"""The masked network (reference: :mod:`refnaf.reference.made`) with its analytic VJP.

Weights come with their masks folded in (zeros outside), and their products leave out blocks of zeros
(:mod:`.staircase`). What surrounds the products is elementwise, and may be another module's with the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refnaf.kernels.array.staircase import Staircase
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.made import sources


def squash(x: np.ndarray, bound: float | None) -> np.ndarray:
    """What the network reads: ``x / (1 + |x| / bound)``."""
    return x if bound is None else x / (1 + np.abs(x) * x.dtype.type(1 / bound))


def squash_vjp(x: np.ndarray, bound: float | None, grad: np.ndarray) -> np.ndarray:
    """Cotangent of :func:`squash` to that of x."""
    return grad if bound is None else grad / (1 + np.abs(x) * x.dtype.type(1 / bound)) ** 2


def activate(z: np.ndarray, bias: np.ndarray, name: str | None) -> None:
    """Add a bias ``(H,)`` to z ``(H, N)`` and apply the activation, or none, in place."""
    z += bias[:, None]
    if name == "tanh":
        np.tanh(z, out=z)
    elif name == "elu":
        low = np.minimum(z, 0)
        np.expm1(low, out=low)
        np.maximum(z, 0, out=z)
        z += low
    elif name == "relu":
        np.maximum(z, 0, out=z)


def activate_vjp(h: np.ndarray, name: str | None, grad: np.ndarray, grad_bias: np.ndarray) -> None:
    """Multiply grad ``(H, N)`` by the activation's derivative, read off its value h, and sum its rows into a bias's."""
    if name == "tanh":
        grad *= 1 - h * h
    elif name == "elu":
        slope = np.minimum(h, 0)
        slope += 1
        grad *= slope
    elif name == "relu":
        grad *= h > 0
    np.sum(grad, axis=1, out=grad_bias)


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
    stairs: Sequence[Staircase],
    ws: Workspace,
    pieces: Any,
) -> tuple[np.ndarray, Any]:
    """x ``(D, N)`` and context ``(C, N)`` to ``(D * outputs, N)``, and what :func:`vjp` needs.

    ``pieces`` is this module, or one with other functions of the names above :func:`forward`.
    """
    c = None if context is None else pieces.squash(context, bound)
    hidden = [pieces.squash(x, bound)]
    gained: list[tuple[np.ndarray, np.ndarray]] = []
    active = [layer for layer in range(len(weights) - 1) if layer not in linear]
    skipping = {source for _, source in skips}
    kept: dict[int, np.ndarray] = {}
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        z = ws.take((len(bias), x.shape[1]), x.dtype)
        stairs[layer].product(weight, hidden[-1], z, ws)
        if gains and c is not None:
            gain, product = ws.take(z.shape, z.dtype), ws.take(z.shape, z.dtype)
            np.dot(gains[layer][0], c, out=gain)
            gain += gains[layer][1][:, None]
            np.copyto(product, z)
            z *= gain
            gained.append((gain, product))
        if c is not None:
            part = ws.take(z.shape, z.dtype)
            z += np.dot(context_weights[layer], c, out=part)
        for source in sources(skips, layer):
            z += kept[source]
        name = activation if layer in active else None
        if layer in skipping:
            pieces.activate(z, bias, None)
            kept[layer] = z
            if name is not None:  # which is done in place
                kept[layer] = ws.take(z.shape, z.dtype)
                np.copyto(kept[layer], z)
                pieces.activate(z, np.zeros_like(bias), name)
        else:
            pieces.activate(z, bias, name)
        hidden.append(z)
    out = hidden.pop()
    return out, (
        x,
        context,
        c,
        hidden,
        weights,
        context_weights,
        activation,
        bound,
        gains,
        gained,
        skips,
        active,
        stairs,
        pieces,
    )


def vjp(saved: Any, grad: np.ndarray, ws: Workspace, into: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:
    """Cotangent of the output to those of ``x``, ``context`` and, by the forward's names, the parameters.

    ``into`` may hold arrays for those of ``weights`` (zero outside the masks' blocks) and ``biases``.
    """
    (
        x, context, c, hidden, weights, context_weights, activation, bound, gains, gained, skips, active, stairs, pieces
    ) = saved  # fmt: skip
    count = len(weights)
    out: dict[str, Any] = {"weights": [None] * count, "biases": [None] * count, "context": None}
    out["context_weights"], out["gains"] = [None] * len(context_weights), [None] * len(gains)
    for name in ("weights", "biases"):
        out[name] = list(into[name]) if into is not None else [None] * count
    for layer in range(count):
        if out["weights"][layer] is None:
            out["weights"][layer] = ws.take(weights[layer].shape, grad.dtype)
            if not stairs[layer].dense:
                out["weights"][layer].fill(0)
        if out["biases"][layer] is None:
            width = len(hidden[layer + 1] if layer + 1 < count else grad)
            out["biases"][layer] = np.empty_like(grad, shape=width)
    grad_c = None
    skipped: dict[int, np.ndarray] = {}
    summed = False
    for layer in range(count - 1, -1, -1):
        if layer in skipped:
            grad += skipped[layer]
            summed = False
        for source in sources(skips, layer):
            skipped[source] = skipped[source] + grad if source in skipped else grad
        if not summed:
            pieces.activate_vjp(grad, None, grad, out["biases"][layer])
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
        stairs[layer].outer(grad, hidden[layer], out["weights"][layer], ws)
        below = ws.take(hidden[layer].shape, grad.dtype)
        stairs[layer].transposed(weights[layer], grad, below, ws)
        summed = layer - 1 in active
        if summed:
            pieces.activate_vjp(hidden[layer], activation, below, out["biases"][layer - 1])
        grad = below
    out["x"] = pieces.squash_vjp(x, bound, grad)
    if grad_c is not None:
        out["context"] = pieces.squash_vjp(context, bound, grad_c)
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
