"""flowjax's flows with random numbers and what they make of random points. Needs flowjax."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax import bijections
from flowjax.distributions import Normal, StandardNormal, Transformed
from flowjax.flows import block_neural_autoregressive_flow, masked_autoregressive_flow, planar_flow
from flowjax.root_finding import bisect_check_expand_search, root_finder_to_inverter

jax.config.update("jax_enable_x64", True)


def _inverter(dim: int) -> dict[str, Any]:
    """flowjax's search for the inverse of block networks, and Newton steps by JAX's Jacobian to the last digits."""

    def search(function: Callable[[Any], Any]) -> tuple[Any, Any]:
        root, found = bisect_check_expand_search(function, midpoint=jnp.zeros(dim), width=5)
        for _ in range(3):
            root -= jnp.linalg.solve(jax.jacobian(function)(root), function(root))
        return root, found

    return {"inverter": root_finder_to_inverter(search)}


#: Case -> dimension, width of the context, what makes the flow from a base, its options, what the importer is told.
CASES: dict[str, tuple[int, int, Callable[..., Transformed], dict[str, Any], dict[str, Any]]] = {
    "maf": (4, 0, masked_autoregressive_flow, {"flow_layers": 2, "nn_width": 5}, {}),
    "maf-context": (
        3,
        2,
        masked_autoregressive_flow,
        {"flow_layers": 2, "nn_width": 6, "nn_depth": 2, "nn_activation": jnp.tanh},
        {"activation": "tanh"},
    ),
    "maf-two": (2, 0, masked_autoregressive_flow, {"flow_layers": 2, "nn_width": 5}, {}),
    "maf-linear": (3, 1, masked_autoregressive_flow, {"flow_layers": 1, "nn_width": 5, "nn_depth": 0}, {}),
    "maf-affine": (
        3,
        0,
        masked_autoregressive_flow,
        {"flow_layers": 1, "nn_width": 5, "transformer": bijections.Affine()},
        {"min_scale": 0},
    ),
    "maf-one": (1, 0, masked_autoregressive_flow, {"flow_layers": 2, "nn_width": 3}, {}),
    "maf-one-context": (1, 2, masked_autoregressive_flow, {"flow_layers": 2, "nn_width": 3}, {}),
    "iaf": (
        3,
        0,
        masked_autoregressive_flow,
        {"flow_layers": 2, "nn_width": 5, "invert": False, "nn_activation": jax.nn.elu},
        {"activation": "elu"},
    ),
    "iaf-context": (3, 2, masked_autoregressive_flow, {"flow_layers": 2, "nn_width": 5, "invert": False}, {}),
    "planar": (3, 0, planar_flow, {"flow_layers": 3}, {}),
    "planar-one": (1, 0, planar_flow, {"flow_layers": 2}, {}),
    "planar-sampling": (2, 0, planar_flow, {"flow_layers": 3, "invert": False}, {}),
    "bnaf": (3, 0, block_neural_autoregressive_flow, {"flow_layers": 2, "nn_block_dim": 4, **_inverter(3)}, {}),
    "bnaf-context": (
        3,
        2,
        block_neural_autoregressive_flow,
        {"flow_layers": 2, "nn_block_dim": 3, "nn_depth": 2, **_inverter(3)},
        {},
    ),
    "bnaf-one": (
        1,
        1,
        block_neural_autoregressive_flow,
        {"flow_layers": 2, "nn_block_dim": 4, "invert": False, **_inverter(1)},
        {},
    ),
    "bnaf-sampling": (
        2,
        0,
        block_neural_autoregressive_flow,
        {"flow_layers": 2, "nn_block_dim": 4, "invert": False, **_inverter(2)},
        {},
    ),
    "bnaf-tanh": (
        2,
        1,
        block_neural_autoregressive_flow,
        {"flow_layers": 1, "nn_block_dim": 4, "activation": bijections.Tanh()},
        {"activation": "tanh"},
    ),
}


def leaves(flow: Any) -> dict[str, Any]:
    """The state that the importer documents."""
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(flow) if eqx.is_array_like(v)}


def make(name: str, seed: int, scale: float = 0.5) -> Transformed:
    """The flow of a case with random numbers, in float64; for odd seeds its base is a frozen normal."""
    dim, context_dim, kind, options, _ = CASES[name]
    rng = np.random.default_rng(seed)
    base = paramax.non_trainable(Normal(rng.normal(size=dim), 1.5)) if seed % 2 else StandardNormal((dim,))
    flow = kind(jax.random.key(seed), base_dist=base, cond_dim=context_dim or None, **options)
    trained, rest = eqx.partition(flow.bijection, eqx.is_inexact_array)
    moved = jax.tree_util.tree_map(lambda a: a + scale * rng.normal(size=a.shape), trained)
    return Transformed(base, eqx.combine(moved, rest))


def random(name: str, seed: int, rows: int = 6, scale: float = 0.5) -> dict[str, np.ndarray]:
    """A case with random numbers: its state (prefix "state/"), what the importer is told, and its values.

    ``x`` ``(N, D)`` is mapped to the standard normal noise ``y`` with ``logdet``, and has ``log_prob``; the noise
    ``back_y`` is mapped to ``back_x`` with ``back_logdet`` by the inverse; what flowjax's planar layers and block
    networks with tanh cannot do is left out.
    """
    dim, context_dim, kind, options, told = CASES[name]
    flow = make(name, seed, scale)
    rng = np.random.default_rng(seed + 1000)
    x, back = rng.normal(size=(rows, dim)), rng.normal(size=(rows, dim))
    condition = (rng.normal(size=(rows, context_dim)),) if context_dim else ()
    plain = paramax.unwrap(flow)
    loc, scale = (plain.base_dist.loc, plain.base_dist.scale) if seed % 2 else (jnp.zeros(dim), jnp.ones(dim))
    bijection = paramax.unwrap(bijections.Chain([bijections.Affine(loc, scale), plain.bijection]))
    if kind is block_neural_autoregressive_flow and name != "bnaf-tanh":
        # what flowjax searches for is within a few units: the tails of its activation are nearly flat
        if options.get("invert", True):
            back = np.asarray(jax.vmap(bijection.inverse)(back, *condition))
        else:
            x = np.asarray(jax.vmap(bijection.transform)(x, *condition))
    found = {"x": x, "back_y": back, **({"context": condition[0]} if context_dim else {})}
    if name != "planar-sampling":
        found["y"], found["logdet"] = jax.vmap(bijection.inverse_and_log_det)(x, *condition)
        found["log_prob"] = plain.log_prob(x, *condition)
    if name not in ("planar", "planar-one", "bnaf-tanh"):
        found["back_x"], found["back_logdet"] = jax.vmap(bijection.transform_and_log_det)(back, *condition)
    found |= {f"state/{k}": v for k, v in leaves(flow).items()}
    return {**{k: np.asarray(v) for k, v in found.items()}, "config": np.array(json.dumps(told))}


def gradients(name: str, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """State, the data (x and, if there is one, the context), and the mean nats' gradients by each of the state."""
    dim, context_dim, _, _, _ = CASES[name]
    flow = make(name, seed)
    rng = np.random.default_rng(seed)
    data = {"x": rng.normal(size=(5, dim))} | ({"context": rng.normal(size=(5, context_dim))} if context_dim else {})

    @eqx.filter_grad
    def slope(flow: Transformed) -> Any:
        return jnp.mean(paramax.unwrap(flow).log_prob(*data.values()))

    grads = {k: np.asarray(v) for k, v in leaves(slope(flow)).items() if np.ndim(v)}
    return {k: np.asarray(v) for k, v in leaves(flow).items()}, data, grads
