"""``log_prob``, ``forward`` and ``inverse`` as autograd primitives, each with one joint VJP by the analytic chain.

Any objective written with autograd.numpy can differentiate through a fast flow, with respect to its data, its context
and its parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from refnaf import ops as operations
from refnaf.flows import chain

if TYPE_CHECKING:
    from refnaf.flows.flow import Flow


def needed(x: Any, context: Any, params: Any) -> bool:
    """Whether an argument is traced by autograd."""
    if "autograd" not in sys.modules:
        return False
    from autograd.extend import Box

    if isinstance(x, Box) or isinstance(context, Box) or isinstance(params, Box):
        return True
    return isinstance(params, Mapping) and any(isinstance(v, Box) for v in params.values())


def log_prob(flow: Flow, x: Any, context: Any, params: Any) -> Any:
    """As :meth:`Flow.log_prob`, for traced arguments."""
    return _call("log_prob", flow, x, context, params)


def forward(flow: Flow, x: Any, context: Any, params: Any) -> tuple[Any, Any]:
    """As :meth:`Flow.forward`, for traced arguments."""
    out = _call("forward", flow, x, context, params)
    return out[:, : flow.dim], out[:, flow.dim]


def inverse(flow: Flow, z: Any, context: Any, params: Any) -> tuple[Any, Any]:
    """As :meth:`Flow.inverse`, for traced arguments."""
    out = _call("inverse", flow, z, context, params)
    return out[:, : flow.dim], out[:, flow.dim]


def _call(name: str, flow: Flow, x: Any, context: Any, params: Any) -> Any:
    source = flow.params if params is None else params
    return _primitive(name)(flow, x, context, *(source[key] for key in flow.params))


@cache
def _primitive(name: str) -> Callable[..., Any]:
    from autograd.extend import defvjp_argnums, primitive

    @primitive
    def function(flow: Flow, x: Any, context: Any, *values: Any) -> np.ndarray:
        params = dict(zip(flow.params, values, strict=True))
        if name == "log_prob":
            return flow.log_prob(x, context, params)
        image, logdet = getattr(flow, name)(x, context, params)
        return np.concatenate([image, logdet[:, None]], axis=1)

    def joint_vjp(argnums: Any, answer: Any, arguments: Any, _: Any) -> Callable[[Any], Any]:
        flow, x, context, *values = arguments

        def pull(grad: np.ndarray) -> tuple[Any, ...]:
            grad_x, grad_context, grads = _pull(name, flow, x, context, values, np.asarray(grad))
            named = [grads[key] for key in flow.params]
            everything = [None, grad_x, grad_context, *named]
            return tuple(_like(everything[k], arguments[k]) for k in argnums)

        return pull

    defvjp_argnums(function, joint_vjp)
    return function


def _like(grad: Any, argument: Any) -> np.ndarray:
    return np.asarray(grad, dtype=np.asarray(argument).dtype).reshape(np.shape(argument))


def _pull(
    name: str, flow: Flow, x: Any, context: Any, values: list[Any], grad: np.ndarray
) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
    """The joint VJP of all rows, by chunks: x ``(N, D)``, context ``(N, C)`` or None, parameters by name."""
    params = flow._override(dict(zip(flow.params, values, strict=True)), flow.dtype)
    own = flow.layer_params(params)
    rows = flow._rows(x, "x", flow.dim)
    conditions = flow._context(context, len(rows))
    grad_x = np.empty(rows.shape)
    grad_context = None if conditions is None else np.empty(conditions.shape)
    sums = {k: np.zeros(v.shape, np.float64) for k, v in flow.params.items()}
    ops = operations.make(flow.backend)
    for part, point, c in flow._chunks(rows, conditions):
        ops.workspace.reset()
        g = grad[part]
        if name == "log_prob":
            _, gx, gc, grads = chain.log_prob_vjp(flow.layers, own, ops, point, c, g)
        elif name == "forward":
            _, _, saved = chain.forward(flow.layers, own, ops, point, c)
            wanted = np.ascontiguousarray(g[:, : flow.dim].T, dtype=flow.dtype)
            gx, gc, grads = chain.vjp(flow.layers, own, ops, saved, wanted, g[:, flow.dim])
        else:
            *_, images = chain.inverse(flow.layers, own, ops, point.astype(flow.dtype), c)
            wanted = np.ascontiguousarray(g[:, : flow.dim].T)
            gx, gc, grads = chain.inverse_vjp(flow.layers, own, ops, images, c, wanted, g[:, flow.dim])
        grad_x[part] = gx.T
        if grad_context is not None:
            scale = flow.layers[0].buffers["context_scale"]
            grad_context[part] = 0 if gc is None else gc.T / scale
        for k, layer_grads in enumerate(grads):
            for local, array in layer_grads.items():
                sums[f"{k}.{local}"] += array
    return grad_x, grad_context, sums
