"""Layers in composition: values forwards and backwards, and the analytic chain of vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.flows.layer import Layer
from refnaf.ops import ArrayOps, Ops

#: Parameters of each layer, by local name.
LayerParams = Sequence[dict[str, Any]]


def forward(layers: Sequence[Layer], params: LayerParams, ops: Ops, x: Any, context: Any) -> tuple[Any, Any, list[Any]]:
    """Data to base: x ``(D, N)`` to z ``(D, N)``, the log-determinant ``(N,)`` and what :func:`vjp` needs."""
    logdet: Any = 0.0
    saved = []
    for layer, own in zip(layers, params, strict=True):
        x, part, kept = layer.forward(ops, own, x, context)
        logdet = logdet + part
        saved.append(kept)
    return x, logdet, saved


def vjp(
    layers: Sequence[Layer],
    params: LayerParams,
    ops: ArrayOps,
    saved: Sequence[Any],
    grad_z: np.ndarray,
    grad_logdet: np.ndarray,
    grads: list[dict[str, np.ndarray]] | None = None,
) -> tuple[np.ndarray, Any, list[dict[str, np.ndarray]]]:
    """Cotangents of z and of the log-determinant to those of x, the context, and every layer's parameters.

    ``grads``: arrays for the latter (see :meth:`.Layer.vjp`).
    """
    grads = [{} for _ in layers] if grads is None else grads
    grad_context: Any = None
    for k in range(len(layers) - 1, -1, -1):
        grad_z, part = layers[k].vjp(ops, params[k], saved[k], grad_z, grad_logdet, grads[k])
        if part is not None:
            grad_context = part if grad_context is None else grad_context + part
    return grad_z, grad_context, grads


def inverse(
    layers: Sequence[Layer], params: LayerParams, ops: Ops, z: Any, context: Any
) -> tuple[Any, Any, np.ndarray, list[tuple[Any, Any]]]:
    """Base to data: x, ``log|det dx/dz|``, the residual ``(N,)``, and what :func:`inverse_vjp` needs.

    That is each layer's image and what the layer kept; valid until the workspace of ``ops`` is reset.
    """
    logdet: Any = 0.0
    residual = np.zeros(z.shape[1])
    images: list[tuple[Any, Any]] = []
    for layer, own in zip(reversed(layers), reversed(params), strict=True):
        z, part, worst, kept = layer.inverse_saved(ops, own, z, context)
        logdet = logdet + part
        residual = np.maximum(residual, worst)
        images.insert(0, (z, kept))
    return z, logdet, residual, images


def inverse_vjp(
    layers: Sequence[Layer],
    params: LayerParams,
    ops: ArrayOps,
    images: Sequence[tuple[np.ndarray, Any]],
    context: Any,
    grad_x: np.ndarray,
    grad_logdet: np.ndarray,
) -> tuple[np.ndarray, Any, list[dict[str, np.ndarray]]]:
    """:func:`vjp` for :func:`inverse`."""
    grads: list[dict[str, np.ndarray]] = [{} for _ in layers]
    grad_context: Any = None
    for k, layer in enumerate(layers):
        image, kept = images[k]
        grad_x, part = layer.inverse_vjp(ops, params[k], image, context, grad_x, grad_logdet, grads[k], kept)
        if part is not None:
            grad_context = part if grad_context is None else grad_context + part
    return grad_x, grad_context, grads


def inverse_score(
    layers: Sequence[Layer],
    params: LayerParams,
    ops: ArrayOps,
    images: Sequence[tuple[np.ndarray, Any]],
    context: Any,
    z: np.ndarray,
) -> np.ndarray:
    """The gradient of ``log p(x)`` with respect to x ``(D, N)``, at the x and the images of :func:`inverse` of z."""
    score = -z
    for k in range(len(layers) - 1, -1, -1):
        image, kept = images[k]
        score = layers[k].inverse_score(ops, params[k], image, context, score, kept)
    return score


def base_log_prob(z: np.ndarray) -> np.ndarray:
    """The standard normal base: ``(D, N)`` to ``(N,)`` nats, in float64 whatever the dtype of z."""
    wide = np.asarray(z, dtype=np.float64)
    return -0.5 * np.sum(wide * wide, axis=0) - 0.5 * len(wide) * np.log(2 * np.pi)


def log_prob(layers: Sequence[Layer], params: LayerParams, ops: Ops, x: Any, context: Any) -> Any:
    """``log p(x)`` for the rows of x ``(D, N)``: ``(N,)`` nats."""
    z, logdet, _ = forward(layers, params, ops, x, context)
    if ops.traced:
        from refnaf.reference.density import change_of_variables, normal_log_prob

        return change_of_variables(normal_log_prob(z), logdet)
    return base_log_prob(z) + logdet


def log_prob_vjp(
    layers: Sequence[Layer],
    params: LayerParams,
    ops: ArrayOps,
    x: np.ndarray,
    context: Any,
    grad: np.ndarray | float,
    grads: list[dict[str, np.ndarray]] | None = None,
) -> tuple[np.ndarray, np.ndarray, Any, list[dict[str, np.ndarray]]]:
    """``log p(x)``, and the cotangents of x, context and parameters for those of ``log p``, ``(N,)`` or a number.

    ``grads``: arrays for the last (see :meth:`.Layer.vjp`).
    """
    z, logdet, saved = forward(layers, params, ops, x, context)
    grad = np.broadcast_to(np.asarray(grad, dtype=np.float64), logdet.shape)
    grad_x, grad_context, grads = vjp(layers, params, ops, saved, -z * grad.astype(z.dtype), grad, grads)
    return base_log_prob(z) + logdet, grad_x, grad_context, grads
