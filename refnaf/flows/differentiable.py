"""``log_prob``, ``forward`` and ``inverse`` as autograd primitives, each with one joint VJP by the analytic chain.

Any objective written with autograd.numpy can differentiate through a fast flow, with respect to its data, its context
and its parameters.
"""

from __future__ import annotations

import sys
import weakref
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
    from autograd.builtins import dict as traced_dict
    from autograd.extend import Box

    if flow.backend == "cuda":
        raise ValueError(
            "autograd's arrays are the host's: use flow.replace({}, backend='numba') to differentiate a flow"
        )
    source = flow.params if params is None else params
    if not isinstance(source, Box):
        # one argument, whatever of it is traced
        source = traced_dict({key: source[key] for key in flow.params if key in source})
    return _primitive(name)(flow, x, context, source)


@cache
def _primitive(name: str) -> Callable[..., Any]:
    from autograd.extend import Box, defvjp_argnums, primitive, vspace

    @primitive
    def function(flow: Flow, x: Any, context: Any, params: Any) -> np.ndarray:
        run = _Run(name, flow, x, context, params)
        if run.size > MOST_KEPT:
            return run.answer_alone()
        answer = run.answer()
        if not np.isfinite(answer).all():
            return run.answer_alone()
        _keep(answer, run)
        return answer

    def joint_vjp(argnums: Any, answer: Any, arguments: Any, _: Any) -> Callable[[Any], Any]:
        flow, x, context, params = arguments
        if isinstance(answer, Box):
            raise ValueError("a flow has first derivatives alone: take second ones by differences of its gradients")
        run = _kept(answer) or _Run(name, flow, x, context, params)

        def pull(grad: np.ndarray) -> tuple[Any, ...]:
            grad_x, grad_context, grads = run.pull_finite(np.asarray(grad))
            if context is not None and np.size(context) < grad_context.size:  # one row for all
                grad_context = np.sum(grad_context, axis=0)
            found = {
                1: lambda: _like(grad_x, x),
                2: lambda: _like(grad_context, context),
                3: lambda: {
                    key: _like(grads[key], array) if key in grads else vspace(array).zeros()
                    for key, array in params.items()
                },
            }
            return tuple(found[k]() for k in argnums)

        return pull

    defvjp_argnums(function, joint_vjp)
    return function


#: Numbers that runs may keep for their VJPs; those of more rows go forward again when they are differentiated.
MOST_KEPT = 1 << 25
_runs: dict[int, tuple[Any, _Run]] = {}
#: Operations, by backend, with buffers to use again: fresh memory costs page faults.
MOST_SPARE = 4
_spare: dict[str, list[Any]] = {}


def _keep(answer: np.ndarray, run: _Run) -> None:
    """Keep a run for as long as there is its answer."""
    key = id(answer)
    _runs[key] = weakref.ref(answer, lambda _: _runs.pop(key, None)), run


def _kept(answer: Any) -> _Run | None:
    reference, run = _runs.get(id(answer), (None, None))
    return run if reference is not None and reference() is answer else None


def _like(grad: Any, argument: Any) -> np.ndarray:
    return np.asarray(grad, dtype=np.asarray(argument).dtype).reshape(np.shape(argument))


class _Run:
    """One evaluation, chunk by chunk, and its joint VJP: x ``(N, D)``, context ``(N, C)`` or None, parameters."""

    def __init__(self, name: str, flow: Flow, x: Any, context: Any, params: Mapping[str, Any]) -> None:
        self.name, self.flow, self.arguments = name, flow, (x, context, params)
        self.chunks: list[tuple[Any, Any, Any, int]] = []
        self.own = flow.layer_params(flow._override(params, flow.dtype))
        self.rows = flow._rows(x, "x" if name != "inverse" else "z", flow.dim)
        self.context = flow._context(context, len(self.rows))
        self.size = len(self.rows) * sum(s[0] for layer in flow.layers for s in layer.shapes().values())

    def _part(self, ops: Any, point: np.ndarray, context: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """Image, log-determinant, and what the VJP needs."""
        layers = self.flow.layers
        if self.name == "inverse":
            start = point.astype(self.flow.dtype)
            image, logdet, _, images = chain.inverse(layers, self.own, ops, start, context)
            return image, logdet, images
        return chain.forward(layers, self.own, ops, point, context)

    def _take(self) -> Any:
        """Operations whose buffers nobody uses any more, or new ones."""
        try:
            ops = _spare[self.flow.backend].pop()
        except (KeyError, IndexError):
            ops = operations.make(self.flow.backend)
        ops.workspace.reset()
        return ops

    def __del__(self) -> None:
        """Leave the buffers to other runs: neither the answer nor a VJP refers to this one any more."""
        spare = _spare.setdefault(self.flow.backend, [])
        spare += [ops for ops, *_ in self.chunks][: max(MOST_SPARE - len(spare), 0)]

    def answer_alone(self) -> np.ndarray:
        """The answer, with nothing kept."""
        params = {f"{k}.{name}": array for k, own in enumerate(self.own) for name, array in own.items()}
        if self.name == "log_prob":
            return self.flow._map(self.rows, self.context, params, inverse=False)[2]
        image, logdet, _ = self.flow._map(self.rows, self.context, params, inverse=self.name == "inverse")
        return np.concatenate([image, logdet[:, None]], axis=1)

    def answer(self) -> np.ndarray:
        """The answer; the chunks keep what they need."""
        out = np.empty(len(self.rows) if self.name == "log_prob" else (len(self.rows), self.flow.dim + 1))
        for part, point, c in self.flow._chunks(self.rows, self.context):
            ops = self._take()
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                image, logdet, saved = self._part(ops, point, c)
            self.chunks.append((ops, image, saved, ops.workspace.mark()))
            if self.name == "log_prob":
                out[part] = chain.base_log_prob(image) + logdet
            else:
                out[part, :-1], out[part, -1] = image.T, logdet
        return out

    def pull_finite(self, grad: np.ndarray) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        """As :meth:`pull`; far out, where float32 overflows, in float64."""
        with np.errstate(all="ignore"):
            found = self.pull(grad)
            arrays = [found[0], *([] if found[1] is None else [found[1]]), *found[2].values()]
            if self.flow.dtype == np.float64 or all(np.isfinite(array).all() for array in arrays):
                return found
            return _Run(self.name, self.flow.astype(np.float64), *self.arguments).pull(grad)

    def pull(self, grad: np.ndarray) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        """Cotangents of x, of the context and of the parameters by name, for that of the answer."""
        flow, dim = self.flow, self.flow.dim
        grad_x = np.empty(self.rows.shape)
        grad_context = None if self.context is None else np.empty(self.context.shape)
        totals: dict[str, np.ndarray] = {}
        wide = len(flow._parts(len(self.rows))) > FEW
        fresh = operations.make(flow.backend)
        for index, (part, point, c) in enumerate(flow._chunks(self.rows, self.context)):
            # gradients of masked weights are not written where they are zero
            into = flow.layer_params({name: np.zeros(a.shape, flow.dtype) for name, a in flow.params.items()})
            if self.chunks:
                ops, image, saved, mark = self.chunks[index]
                ops.workspace.release(mark)
            else:
                ops = fresh
                ops.workspace.reset()
                image, _, saved = self._part(ops, point, c)
            g = grad[part]
            if self.name == "log_prob":
                wanted, on_logdet = -image * g.astype(image.dtype), g
            else:
                wanted, on_logdet = np.ascontiguousarray(g[:, :dim].T, dtype=flow.dtype), g[:, dim]
            if self.name == "inverse":
                gx, gc, grads = chain.inverse_vjp(flow.layers, self.own, ops, saved, c, wanted, on_logdet)
            else:
                gx, gc, grads = chain.vjp(flow.layers, self.own, ops, saved, wanted, on_logdet, into)
            grad_x[part] = gx.T
            if grad_context is not None:
                scale = flow.layers[0].buffers["context_scale"]
                grad_context[part] = 0 if gc is None else gc.T / scale
            # at once: the next chunk may overwrite what lies in the workspace
            _add(totals, {f"{k}.{n}": array for k, named in enumerate(grads) for n, array in named.items()}, wide)
        return grad_x, grad_context, totals


#: Sums of more terms than these are accumulated in float64 and in fresh memory.
FEW = 4


def _add(totals: dict[str, np.ndarray], grads: Mapping[str, np.ndarray], wide: bool) -> None:
    """Add a chunk's gradients by name, the first of which are copied where they lie in a workspace."""
    for name, array in grads.items():
        if name in totals:
            totals[name] += array
        elif wide:
            totals[name] = array.astype(np.float64)
        else:
            totals[name] = np.array(array) if array.base is not None else array
