"""What surrounds the matrix products of the recurrence (:mod:`refnaf.kernels.array.states`), compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.elementary import tanh


def simple(
    name: str, slot: int, last: int, inputs: Any, before: Any, bias: Any, moved: Any, q: Any, states: np.ndarray
) -> None:
    """A step of "tanh" or "relu"."""
    _SIMPLE[name](slot, last, plain(inputs), plain(before), plain(bias), plain(moved), q, states)


def simple_vjp(name: str, i: int, grad: np.ndarray, states: np.ndarray, sums: np.ndarray) -> None:
    """Cotangent of h_i ``(H, N)`` to that of the step's sum, put into the slot i of ``sums (H, D, N)``."""
    _SIMPLE_VJP[name](i, grad, states, sums)


def gated(
    slot: int,
    last: int,
    inputs: Any,
    before: Any,
    bias: Any,
    moved: Any,
    q: Any,
    states: np.ndarray,
    gates: np.ndarray,
    resets: np.ndarray,
) -> None:
    """A step of "gru", which also fills its slots of the gates and, where there is a state before, the resets."""
    _gated(slot, last, plain(inputs), plain(before), plain(bias), plain(moved), q, states, gates, resets)


def gated_vjp(
    i: int,
    grad: np.ndarray,
    states: np.ndarray,
    gates: np.ndarray,
    resets: np.ndarray,
    sums: np.ndarray,
    products: np.ndarray,
) -> None:
    """As that of the arrays: ``grad`` is left as ``g u``."""
    _gated_vjp(i, grad, states, gates, resets, sums, products)


@part
def _read(k: int, weight: Any, before: Any, bias: Any, moved: Any, out: Any) -> None:
    """What row k of a step reads."""
    for n in range(len(out)):
        out[n] = weight * before[n] + bias
    if len(moved):
        more = moved[k]
        for n in range(len(out)):
            out[n] = out[n] + more[n]


@part
def _add(q: Any, out: Any) -> None:
    for n in range(len(out)):
        out[n] = out[n] + q[n]


@part
def _sigmoid(out: Any) -> None:
    """In place, by the hyperbolic tangent: its absolute error is what counts here."""
    half = out.dtype.type(0.5)
    for n in range(len(out)):
        out[n] = half + half * tanh(half * out[n])


@kernel
def _tanh(slot: int, last: int, inputs: Any, before: Any, bias: Any, moved: Any, q: Any, states: Any) -> None:
    for k in range(len(states)):
        out = states[k, slot]
        _read(k, inputs[k], before, bias[k], moved, out)
        if last >= 0:
            _add(q[k], out)
        for n in range(len(out)):
            out[n] = tanh(out[n])


@kernel
def _relu(slot: int, last: int, inputs: Any, before: Any, bias: Any, moved: Any, q: Any, states: Any) -> None:
    zero = states.dtype.type(0)
    for k in range(len(states)):
        out = states[k, slot]
        _read(k, inputs[k], before, bias[k], moved, out)
        if last >= 0:
            _add(q[k], out)
        for n in range(len(out)):
            out[n] = zero if out[n] < zero else out[n]


@kernel
def _tanh_vjp(i: int, grad: Any, states: Any, sums: Any) -> None:
    one = grad.dtype.type(1)
    for k in range(len(states)):
        h, g, out = states[k, i], grad[k], sums[k, i]
        for n in range(len(out)):
            out[n] = g[n] * (one - h[n] * h[n])


@kernel
def _relu_vjp(i: int, grad: Any, states: Any, sums: Any) -> None:
    zero = grad.dtype.type(0)
    for k in range(len(states)):
        h, g, out = states[k, i], grad[k], sums[k, i]
        for n in range(len(out)):
            out[n] = g[n] if h[n] > zero else zero


@kernel
def _gated(
    slot: int,
    last: int,
    inputs: Any,
    before: Any,
    bias: Any,
    moved: Any,
    q: Any,
    states: Any,
    gates: Any,
    resets: Any,
) -> None:
    size = len(states)
    for k in range(size):
        reset, update, new = gates[slot, k], gates[slot, size + k], gates[slot, 2 * size + k]
        _read(k, inputs[k], before, bias[k], moved, reset)
        _read(size + k, inputs[size + k], before, bias[size + k], moved, update)
        _read(2 * size + k, inputs[2 * size + k], before, bias[2 * size + k], moved, new)
        if last >= 0:
            _add(q[k], reset)
            _add(q[size + k], update)
        _sigmoid(reset)
        _sigmoid(update)
        out = states[k, slot]
        if last >= 0:
            product, h, kept = q[2 * size + k], states[k, last], resets[slot, k]
            for n in range(len(out)):
                kept[n] = product[n]
                new[n] = new[n] + reset[n] * product[n]
            for n in range(len(out)):
                new[n] = tanh(new[n])
            for n in range(len(out)):
                out[n] = new[n] + update[n] * (h[n] - new[n])
        else:
            for n in range(len(out)):
                new[n] = tanh(new[n])
            for n in range(len(out)):
                out[n] = new[n] - update[n] * new[n]


@kernel
def _gated_vjp(i: int, grad: Any, states: Any, gates: Any, resets: Any, sums: Any, products: Any) -> None:
    zero, one = grad.dtype.type(0), grad.dtype.type(1)
    size = len(states)
    for k in range(size):
        reset, update, new = gates[i, k], gates[i, size + k], gates[i, 2 * size + k]
        on_reset, on_update, on_new = sums[k, i], sums[size + k, i], sums[2 * size + k, i]
        product, g = products[k, i], grad[k]
        if i > 0:
            h, kept = states[k, i - 1], resets[i, k]
            for n in range(len(g)):
                rest = (one - update[n]) * g[n]
                on_update[n] = rest * update[n] * (h[n] - new[n])
                on_new[n] = rest * (one - new[n] * new[n])
                product[n] = on_new[n] * reset[n]
                on_reset[n] = product[n] * kept[n] * (one - reset[n])
                g[n] = g[n] * update[n]
        else:
            for n in range(len(g)):
                rest = (one - update[n]) * g[n]
                on_update[n] = -rest * update[n] * new[n]
                on_new[n] = rest * (one - new[n] * new[n])
                product[n] = on_new[n] * reset[n]
                on_reset[n] = zero
                g[n] = g[n] * update[n]


_SIMPLE: dict[str, Any] = {"tanh": _tanh, "relu": _relu}
_SIMPLE_VJP: dict[str, Any] = {"tanh": _tanh_vjp, "relu": _relu_vjp}
