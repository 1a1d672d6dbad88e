"""TAN in arbitrary precision (Oliva et al. 2018): its recurrent transformations and its conditional models.

Equations: :mod:`refnaf.reference.tan` and :mod:`refnaf.flows.conditionals`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refnaf.verify.oracle_transformers import bent, sigmoid
from refnaf.verify.oracle_values import Params, Value, activate, plus, read, times
from refnaf.verify.precision import mpmath

# the state


def _step(name: str, p: list[Any], h: list[Any], weight: Any) -> list[Any]:
    """``h <- g``: "tanh" and "relu" of ``p + W h``, or the gated recurrent unit."""
    q = times(weight, h)
    if name != "gru":
        return [activate(value, name) for value in plus(p, q)]
    tanh, size = mpmath().mp.tanh, len(h)
    out = []
    for k, before in enumerate(h):
        reset = sigmoid(p[k] + q[k])
        update = sigmoid(p[size + k] + q[size + k])
        new = tanh(p[2 * size + k] + reset * q[2 * size + k])
        out.append(update * before + (1 - update) * new)
    return out


def _states(layer: Any, params: Params, context: list[Any] | None) -> Callable[[int, Any], list[Any]]:
    """A function that gives h_1, h_2, ... in turn, of i = 0, 1, ... and the x before."""
    own = layer.recurrence
    moved = None if context is None else times(params["cell.context"], read(context, layer.bound))
    h = [mpmath().mp.mpf(0)] * own.size

    def step(i: int, before: Any) -> list[Any]:
        nonlocal h
        p = list(params["cell.bias"][i * own.rows : (i + 1) * own.rows])
        if i:
            seen = read([before], layer.bound)[0]
            p = plus(p, [weight * seen for weight in params["cell.inputs"]])
        h = _step(own.cell, p if moved is None else plus(p, moved), h, params["cell.state"])
        return h

    return step


# the recurrent transformations


def _slopes(layer: Any, params: Params, i: int) -> tuple[Any, Any]:
    """s_i, and the slope of the leaky ReLU on its negative side, 1 without one."""
    mp = mpmath().mp
    scale = mp.exp(bent(params["log_scale"][i]))
    return scale, sigmoid(bent(params["leak"][i])) if layer.form == "rnn" else mp.mpf(1)


def recurrent(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """``y_i = r_alpha(s_i x_i + w_i'h_i + b_i)``."""
    mp = mpmath().mp
    step = _states(layer, params, context)
    y, slopes = [], []
    for i, value in enumerate(x):
        scale, alpha = _slopes(layer, params, i)
        t = scale * value + mp.fdot(params["weight"][i], step(i, x[i - 1])) + params["bias"][i]
        y.append(t if t >= 0 else alpha * t)
        slopes.append(scale if t >= 0 else alpha * scale)
    return Value(y, mp.fsum(mp.log(slope) for slope in slopes))


def unrecurrent(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The same solved for x, one dimension after the other."""
    mp = mpmath().mp
    step = _states(layer, params, context)
    x: list[Any] = []
    slopes = []
    for i, value in enumerate(y):
        scale, alpha = _slopes(layer, params, i)
        t = value if value >= 0 else value / alpha
        x.append((t - mp.fdot(params["weight"][i], step(i, x[-1] if x else None)) - params["bias"][i]) / scale)
        slopes.append(scale if value >= 0 else alpha * scale)
    return Value(x, -mp.fsum(mp.log(slope) for slope in slopes))


# the conditional models


def _theta(layer: Any, params: Params, i: int, h: list[Any]) -> list[Any]:
    """``f(h_i)``."""
    last = len(layer.hidden)
    for k in range(last):
        z = plus(times(params[f"weight.{k}"], h), params[f"bias.{k}"])
        h = [activate(value, layer.activation) for value in z]
    count = layer.transformer.count
    return plus(times(params[f"weight.{last}"], h), params[f"bias.{last}"][i * count : (i + 1) * count])


def ram(
    layer: Any, params: Params, x: list[Any], context: list[Any] | None, only: int | None = None
) -> list[list[Any]]:
    """Theta ``(D, P)`` of the recurrent autoregressive model, or ``(1, P)`` for the one dimension ``only``."""
    step = _states(layer, params, context)
    count = layer.dim if only is None else only + 1
    states = [step(i, x[i - 1]) for i in range(count)]
    return [_theta(layer, params, i, states[i]) for i in range(count) if only in (None, i)]


def lam(
    layer: Any, params: Params, x: list[Any], context: list[Any] | None, only: int | None = None
) -> list[list[Any]]:
    """Theta of the linear autoregressive model, ``h_i = W_i x_{<i} + b_i + V_i c``, as :func:`ram`."""
    mp = mpmath().mp
    seen = read(x, layer.bound)
    moved = None if context is None else times(params["linear.context"], read(context, layer.bound))
    found = []
    for i in range(layer.dim) if only is None else [only]:
        rows = range(i, layer.state * layer.dim, layer.dim)
        h = [mp.fdot(params["linear.weight"][row][:i], seen[:i]) + params["linear.bias"][row] for row in rows]
        if moved is not None:
            h = plus(h, [moved[row] for row in rows])
        found.append(_theta(layer, params, i, h))
    return found
