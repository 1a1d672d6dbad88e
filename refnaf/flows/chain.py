"""Layers in composition: values forwards and backwards, and the analytic chain of vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refnaf.flows.layer import Layer
from refnaf.ops import ArrayOps, Ops

#: Parameters of each layer, by local name.
LayerParams = Sequence[dict[str, Any]]
#: Takes a layer's number and its parameters' cotangents as soon as they are there.
Taker = Callable[[int, dict[str, Any]], None]


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
    grads: Sequence[dict[str, np.ndarray]] | None = None,
    take: Taker | None = None,
) -> tuple[np.ndarray, Any, Sequence[dict[str, np.ndarray]]]:
    """Cotangents of z and of the log-determinant to those of x, the context, and every layer's parameters.

    ``grads``: arrays for the latter (see :meth:`.Layer.vjp`). With ``take`` all layers work in the same buffers: their
    cotangents hold until the layer before starts.
    """

    def pull(k: int, own_grads: dict[str, Any], grad: np.ndarray) -> tuple[np.ndarray, Any]:
        return layers[k].vjp(ops, params[k], saved[k], grad, grad_logdet, own_grads)

    return _chained(range(len(layers) - 1, -1, -1), pull, ops, grad_z, grads, take)


def _chained(
    order: Sequence[int],
    pull: Callable[[int, dict[str, Any], np.ndarray], tuple[np.ndarray, Any]],
    ops: ArrayOps,
    grad: np.ndarray,
    grads: Sequence[dict[str, np.ndarray]] | None,
    take: Taker | None,
) -> tuple[np.ndarray, Any, Sequence[dict[str, np.ndarray]]]:
    """Layer after layer: cotangent of the last one's input, of the context, and of the parameters."""
    grads = [{} for _ in order] if grads is None else grads
    grad_context: Any = None
    turns = [ops.workspace.take(grad.shape, grad.dtype) for _ in range(2)] if take is not None else []
    mark = ops.workspace.mark()
    for k in order:
        grad, part = pull(k, grads[k], grad)
        if part is not None:
            grad_context = part.copy() if grad_context is None else grad_context + part
        if take is not None:
            take(k, grads[k])
            np.copyto(turns[k % 2], grad)
            grad = turns[k % 2]
            ops.workspace.release(mark)
    return grad, grad_context, grads


def inverse(
    layers: Sequence[Layer], params: LayerParams, ops: Ops, z: Any, context: Any
) -> tuple[Any, Any, np.ndarray, list[tuple[Any, Any]]]:
    """Base to data: x, ``log|det dx/dz|``, the residual ``(N,)``, and what :func:`inverse_vjp` needs.

    That is each layer's image and what the layer kept; valid until the workspace of ``ops`` is reset.
    """
    logdet: Any = 0.0
    residual = np.zeros_like(z[0], dtype=np.float64)
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
    grads: Sequence[dict[str, np.ndarray]] | None = None,
    take: Taker | None = None,
) -> tuple[np.ndarray, Any, Sequence[dict[str, np.ndarray]]]:
    """:func:`vjp` for :func:`inverse`."""

    def pull(k: int, own_grads: dict[str, Any], grad: np.ndarray) -> tuple[np.ndarray, Any]:
        image, kept = images[k]
        return layers[k].inverse_vjp(ops, params[k], image, context, grad, grad_logdet, own_grads, kept)

    return _chained(range(len(layers)), pull, ops, grad_x, grads, take)


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
    wide = z.astype(np.float64, copy=False)
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
    grads: Sequence[dict[str, np.ndarray]] | None = None,
    take: Taker | None = None,
) -> tuple[np.ndarray, np.ndarray, Any, Sequence[dict[str, np.ndarray]]]:
    """``log p(x)``, and the cotangents of x, context and parameters for those of ``log p``, ``(N,)`` or a number.

    ``grads`` and ``take`` as in :func:`vjp`.
    """
    z, logdet, saved = forward(layers, params, ops, x, context)
    log_p = base_log_prob(z) + logdet
    wanted = np.zeros_like(log_p) + grad
    grad_x, grad_context, grads = vjp(layers, params, ops, saved, -z * wanted.astype(z.dtype), wanted, grads, take)
    return log_p, grad_x, grad_context, grads
