"""The lean algebra in jax.jit, with jax's own gradients and a hand-written Adam, all of a step in one compiled call."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import lean
import numpy as np
from cases import Inputs, Network
from timing import Candidate

jax, jnp = (importlib.import_module(name) for name in ("jax", "jax.numpy"))

jax.config.update("jax_enable_x64", True)

NAME = "jax.jit"
RATE, B1, B2, EPSILON = 1e-4, 0.9, 0.999, 1e-8


def _two_sigmoids(p: Any) -> tuple[Any, Any]:
    return jax.nn.sigmoid(p), jax.nn.sigmoid(-p)


def _one_exponential(p: Any) -> tuple[Any, Any]:
    e = jnp.exp(-p)
    plus = 1 / (1 + e)
    return plus, e * plus


def _mix(e: Any, parts: Sequence[Any]) -> list[Any]:
    stacked = jnp.broadcast_to(e, (parts[0].shape[0], *e.shape))
    return [stacked @ part for part in parts]


@functools.cache
def library(backward: bool) -> lean.Library:
    """jax's functions. One exponential for both sigmoids is quicker only without gradients."""
    return lean.Library(
        exp=jnp.exp,
        log=jnp.log,
        tanh=jnp.tanh,
        abs=jnp.abs,
        softplus=lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))),
        sigmoid_pair=_two_sigmoids if backward else _one_exponential,
        elu=jax.nn.elu,
        ndtr=jax.scipy.special.ndtr,
        ndtri=jax.scipy.special.ndtri,
        where=jnp.where,
        sum=functools.partial(jnp.sum, axis=1),
        top=functools.partial(jnp.max, axis=1, keepdims=True),
        softmax=functools.partial(jax.nn.softmax, axis=1),
        mix=_mix,
        linear=lambda weight, bias, h: weight @ h + bias[:, None],
        reverse=lambda x: x[::-1],
    )


@functools.cache
def transformer(name: str, backward: bool) -> Any:
    """x, theta and the shared numbers to y and log dy/dx; with ``backward`` after the cotangents, and the gradients."""
    function = functools.partial(lean.TRANSFORMERS[name], library(backward))
    if not backward:
        return jax.jit(function)

    def both(cotangents: Any, *arguments: Any) -> Any:
        out, pull = jax.vjp(function, *arguments)
        return [*out, *pull(cotangents)]

    return jax.jit(both)


def kernel(inputs: Inputs, backward: bool) -> Candidate:
    """A transformer on given inputs: what it returns is y and log dy/dx, with ``backward`` and the gradients."""
    function = transformer(inputs.name, backward)
    arguments = [jnp.array(array) for array in (inputs.x, inputs.theta, *inputs.shared)]
    cotangents = (jnp.array(inputs.grad_y), jnp.array(inputs.grad_log_slope))

    def run() -> list[Any]:
        return list(jax.block_until_ready(function(cotangents, *arguments) if backward else function(*arguments)))

    return Candidate(NAME, run)


def _density(network: Network, backward: bool, layers: Sequence[Sequence[Any]], x: Any) -> Any:
    lib = library(backward)

    def layer(x: Any, numbers: Sequence[Any]) -> tuple[Any, Any]:
        return lean.flow_layer(lib, network.name, x, numbers, network.weights, network.bound)

    return lean.log_prob(layer, lib, x, layers)


def _loss_and_gradient(network: Network, layers: Any, masks: Any, x: Any) -> tuple[Any, Any]:
    loss, grads = jax.value_and_grad(lambda numbers: -_density(network, True, numbers, x).mean())(layers)
    for k, layer in enumerate(grads):
        for j in range(network.weights):
            layer[2 * j] = layer[2 * j] * masks[k * network.weights + j]
    return loss, grads


def _numbers(network: Network) -> tuple[Any, Any]:
    return [[jnp.array(a) for a in layer] for layer in network.layers], [jnp.array(mask) for mask in network.masks]


def training(network: Network, rows: np.ndarray) -> Candidate:
    """A training step on rows ``(N, D)``: gradient and Adam, whose arrays are updated where they lie."""
    layers, masks = _numbers(network)
    zeros = jax.tree.map(jnp.zeros_like, layers)
    state: list[Any] = [0, layers, zeros, jax.tree.map(jnp.zeros_like, layers)]
    x = jnp.array(np.ascontiguousarray(rows.T))

    @functools.partial(jax.jit, donate_argnums=(1, 2, 3))
    def step(count: Any, layers: Any, first: Any, second: Any, masks: Any, x: Any) -> Any:
        loss, grads = _loss_and_gradient(network, layers, masks, x)
        first = jax.tree.map(lambda m, g: m + (1 - B1) * (g - m), first, grads)
        second = jax.tree.map(lambda v, g: v + (1 - B2) * (g * g - v), second, grads)
        rate, root = RATE / (1 - B1**count), 1 / jnp.sqrt(1 - B2**count)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - rate.astype(p.dtype) * m / (jnp.sqrt(v) * root.astype(p.dtype) + EPSILON)

        return loss, jax.tree.map(moved, layers, first, second), first, second

    def run() -> list[Any]:
        state[0] += 1
        loss, *state[1:] = jax.block_until_ready(step(jnp.asarray(float(state[0])), *state[1:], masks, x))
        return [loss]

    return Candidate(f"{NAME} + Adam", run)


def scoring(network: Network, rows: np.ndarray, chunk: int) -> Candidate:
    """Densities of rows ``(N, D)``, by chunks."""
    layers, _ = _numbers(network)
    function = jax.jit(functools.partial(_density, network, False))
    chunks = [jnp.array(np.ascontiguousarray(part.T)) for part in np.split(rows, len(rows) // chunk)]

    def run() -> list[Any]:
        return [np.concatenate(jax.block_until_ready([function(layers, x) for x in chunks]))]

    return Candidate(NAME, run)


def step_values(network: Network, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient, for the comparison with the reference."""
    layers, masks = _numbers(network)
    function = jax.jit(functools.partial(_loss_and_gradient, network))
    loss, grads = function(layers, masks, jnp.array(np.ascontiguousarray(rows.T)))
    return float(loss), np.concatenate([np.asarray(a).ravel() for layer in grads for a in layer])
