"""The layers' equations in arbitrary precision, a row at a time.

A layer is one entry in :data:`LAYERS`, and a second in :data:`INVERSES` where :class:`~refnaf.flows.inverse.Inverse`
may stand around it. Both are called as ``equation(layer, params, x, context)``: the layer itself (for its
configuration and buffers), its parameters as arrays of mpf by local name (:class:`.oracle_values.Params`), and lists of
mpf, x ``(D,)`` and the standardised context ``(C,)`` or None. They work at mpmath's current precision and return a
:class:`.oracle_values.Value`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refnaf.verify.oracle_block import block, unblock
from refnaf.verify.oracle_planar import planar, unplanar
from refnaf.verify.oracle_root import solve
from refnaf.verify.oracle_tan import lam, ram, recurrent, unrecurrent
from refnaf.verify.oracle_transformers import TRANSFORMERS, Shared
from refnaf.verify.oracle_values import Equation, Params, Value, activate, plus, read, times
from refnaf.verify.precision import exact, mpmath

# standardisation, permutation, the triangular map


def _log_volume(scale: Any) -> Any:
    """``sum log|scale|``; exactly 0 where no scale is set, rather than a sum that cancels."""
    mp = mpmath().mp
    logs = [mp.log(abs(s)) for s in scale if abs(s) != 1]
    return mp.fsum(logs) if logs else 0


def standardise(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y = (x - mean) / scale``."""
    mean, scale = exact(layer.buffers["mean"]), exact(layer.buffers["scale"])
    y = [(value - m) / s for value, m, s in zip(x, mean, scale, strict=True)]
    return Value(y, -_log_volume(scale))


def unstandardise(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """``x = scale y + mean``."""
    mean, scale = exact(layer.buffers["mean"]), exact(layer.buffers["scale"])
    x = [value * s + m for value, m, s in zip(y, mean, scale, strict=True)]
    return Value(x, _log_volume(scale))


def standard_context(layer: Any, context: Any) -> list[Any]:
    """``(c - mean) / scale``, with the buffers of the standardisation layer."""
    mean, scale = exact(layer.buffers["context_mean"]), exact(layer.buffers["context_scale"])
    return [(value - m) / s for value, m, s in zip(exact(context), mean, scale, strict=True)]


def permutation(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y_i = x_p(i)``."""
    return Value([x[k] for k in layer.order.tolist()], 0)


def unpermutation(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """``x_p(i) = y_i``."""
    x: list[Any] = [None] * len(y)
    for i, k in enumerate(layer.order.tolist()):
        x[k] = y[i]
    return Value(x, 0)


def softclip(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y = x / (1 + |x| / B)``, whose derivative is ``(1 + |x| / B)^-2``."""
    mp = mpmath().mp
    return Value(read(x, layer.bound), -2 * mp.fsum(mp.log(1 + abs(v) / mp.mpf(layer.bound)) for v in x))


def unsoftclip(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """``x = y / (1 - |y| / B)``, for a y within the bound."""
    bound = mpmath().mp.mpf(layer.bound)
    if any(abs(value) >= bound for value in y):
        raise ValueError(f"a soft clip has no inverse outside its bound of {layer.bound}: give base points within it")
    x = [value / (1 - abs(value) / bound) for value in y]
    return Value(x, -softclip(layer, params, x, context).logdet)


def _triangular(layer: Any, params: Params, context: list[Any] | None) -> tuple[Any, Any, Any]:
    """L, d, and ``V c + b``; of a fixed layer they are buffers."""
    numbers = {name: exact(array) for name, array in layer.buffers.items()} if layer.fixed else params
    shift = numbers["shift"] if context is None else plus(times(numbers["context"], context), numbers["shift"])
    return numbers["lower"], numbers["log_diagonal"], shift


def triangular(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y = exp(d) * (x + L x) + V c + b``, L strictly lower triangular."""
    mp = mpmath().mp
    lower, log_diagonal, shift = _triangular(layer, params, context)
    y = [
        mp.exp(d) * (value + mp.fdot(row[:i], x[:i])) + s
        for i, (row, d, value, s) in enumerate(zip(lower, log_diagonal, x, shift, strict=True))
    ]
    return Value(y, mp.fsum(log_diagonal))


def untriangular(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The same by forward substitution."""
    mp = mpmath().mp
    lower, log_diagonal, shift = _triangular(layer, params, context)
    x: list[Any] = []
    for i, (row, d, value, s) in enumerate(zip(lower, log_diagonal, y, shift, strict=True)):
        x.append((value - s) / mp.exp(d) - mp.fdot(row[:i], x))
    return Value(x, -mp.fsum(log_diagonal))


def lu(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """The triangular map of ``(I + U) x``, U strictly upper triangular."""
    mp = mpmath().mp
    rows = enumerate(zip(params["upper"], x, strict=True))
    return triangular(
        layer.lower, params, [value + mp.fdot(row[i + 1 :], x[i + 1 :]) for i, (row, value) in rows], context
    )


def unlu(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The same solved for x, the last dimension first."""
    mp = mpmath().mp
    inner = untriangular(layer.lower, params, y, context)
    x = list(inner.y)
    for i in reversed(range(len(x))):
        x[i] -= mp.fdot(params["upper"][i][i + 1 :], x[i + 1 :])
    return Value(x, inner.logdet)


# layers of a conditioner and a transformer


def pseudo_parameters(
    layer: Any, params: Params, x: list[Any], context: list[Any] | None, only: int | None = None
) -> list[list[Any]]:
    """Theta ``(D, P)``, or ``(1, P)`` for the one dimension ``only``: ``h <- act(g(c) * (M * W) h + V c + b)``."""
    h = read(x, layer.bound)
    c = None if context is None else read(context, layer.bound)
    last = len(layer.hidden)
    kept: list[list[Any]] = []
    for k in range(last + 1):
        rows = slice(None)
        if k == last and only is not None:
            rows = slice(only * layer.outputs, (only + 1) * layer.outputs)
        h = times(params[f"weight.{k}"][rows], h)
        if f"gain.{k}" in params and c is not None:
            gain = plus(times(params[f"gain.{k}"][rows], c), params[f"gain_bias.{k}"][rows])
            h = [a * b for a, b in zip(h, gain, strict=True)]
        h = plus(h, params[f"bias.{k}"][rows])
        if c is not None:
            h = plus(h, times(params[f"context.{k}"][rows], c))
        for _, source in (pair for pair in layer.skips if pair[0] == k):
            h = plus(h, kept[source])
        kept.append(h)
        if k < last and k not in layer.linear:
            h = [activate(value, layer.activation) for value in h]
    theta = [h[start : start + layer.outputs] for start in range(0, len(h), layer.outputs)]
    if layer.channels is None:
        return theta
    return [plus(times(params["spread.weight"], row), params["spread.bias"]) for row in theta]


#: What gives the transformer its pseudo-parameters, by the layer's kind.
CONDITIONERS: dict[str, Callable[..., list[list[Any]]]] = {"autoregressive": pseudo_parameters, "ram": ram, "lam": lam}


def _transformer(layer: Any, params: Params) -> Callable[[int, Any, list[Any]], tuple[Any, Any]]:
    """The transformer as a function of a dimension's index, x and theta there."""
    name = layer.transformer.name
    if name not in TRANSFORMERS:
        raise ValueError(f"the oracle has no equation for the transformer {name!r}: add it to TRANSFORMERS")
    numbers = [params[f"shared.{k}"] for k in range(len(layer.transformer.shared_shapes()))]
    stacked = layer.transformer.stacked
    each = [[one[i] for one in numbers] for i in range(layer.dim)] if stacked else [numbers]
    shared = params.once("shared", lambda: [[Shared(matrix) for matrix in own] for own in each])
    return lambda i, x, theta: TRANSFORMERS[name](x, theta, shared[i if stacked else 0], **layer.transformer.options)


def autoregressive(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y_i = tau(x_i; theta_i)``."""
    transform = _transformer(layer, params)
    theta = CONDITIONERS[layer.kind](layer, params, x, context)
    values = [transform(i, value, own) for i, (value, own) in enumerate(zip(x, theta, strict=True))]
    return Value([y for y, _ in values], mpmath().mp.fsum(slope for _, slope in values), theta)


def unautoregressive(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The x whose image is y, one dimension after the other."""
    mp = mpmath().mp
    transform = _transformer(layer, params)
    x, slopes, theta = [mp.mpf(0)] * len(y), [mp.mpf(0)] * len(y), [[mp.mpf(0)]] * len(y)
    for i in layer.ranks.argsort().tolist():
        own = CONDITIONERS[layer.kind](layer, params, x, context, only=i)[0]
        x[i] = solve(lambda point, i=i, own=own: transform(i, point, own), y[i])  # type: ignore[misc]
        slopes[i], theta[i] = transform(i, x[i], own)[1], own
    return Value(x, -mp.fsum(slopes), theta)


# a layer run backwards


def inverse(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """The inverse of the layer inside."""
    return backward(layer.layer, params, x, context)


def uninverse(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The layer inside."""
    return forward(layer.layer, params, y, context)


#: Layers by kind.
LAYERS: dict[str, Equation] = {
    "standardise": standardise,
    "permutation": permutation,
    "softclip": softclip,
    "triangular": triangular,
    "autoregressive": autoregressive,
    "block": block,
    "planar": planar,
    "inverse": inverse,
    "lu": lu,
    "recurrent": recurrent,
    "ram": autoregressive,
    "lam": autoregressive,
}

#: Their inverses.
INVERSES: dict[str, Equation] = {
    "standardise": unstandardise,
    "permutation": unpermutation,
    "softclip": unsoftclip,
    "triangular": untriangular,
    "autoregressive": unautoregressive,
    "block": unblock,
    "planar": unplanar,
    "inverse": uninverse,
    "lu": unlu,
    "recurrent": unrecurrent,
    "ram": unautoregressive,
    "lam": unautoregressive,
}


def forward(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """Any layer, data to base. Raises ValueError for a kind that the oracle does not know."""
    return _equation(LAYERS, "LAYERS", layer)(layer, params, x, context)


def backward(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """Any layer, base to data; ``logdet`` and ``theta`` at the x found."""
    return _equation(INVERSES, "INVERSES", layer)(layer, params, y, context)


def _equation(table: dict[str, Equation], name: str, layer: Any) -> Equation:
    if layer.kind not in table:
        raise ValueError(f"the oracle has no equation for layers of kind {layer.kind!r}: add it to {name}")
    return table[layer.kind]
