"""nflows' MADE (Durkan et al. 2020, ``nflows.transforms.made``), plain or residual, as the network of our layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from refnaf.interop.masked import Arrangement, arrange

Built = tuple[dict[str, Any], dict[str, Any]]


def network(state: dict[str, Any], outputs: int, rows: np.ndarray, *, estimator: bool = False) -> Built:
    """A MADE's options as those of an Autoregressive layer, and its numbers; what is used leaves the state.

    ``outputs`` is the number of its outputs a dimension, which are dimension-major; ``rows`` ``(outputs,)`` says which
    of them stands at each place of ours. Blocks of the plain kind are ``h <- act(W h + b)``; of the residual kind

        h <- h + B act(A act(h) + V c) ,

    the last without an activation behind it. The first layer is ``W x + b + act(V c)``: a block of the residual kind
    too, with 0 for A and the identity for B.

    In the MADE of nflows' neural density estimators (``estimator``) the first layer is ``W x + b + V c``, and never has
    an activation behind it.

    Raises ValueError where the network is not autoregressive, or where the state is not that of a MADE.
    """
    blocks = _indices(state, r"blocks\.(\d+)\..+")
    residual = any(f"blocks.{k}.linear_layers.0.weight" in state for k in blocks)
    # a network without blocks ends without an activation in both kinds; it is taken for a residual one where it may be
    inner = [f"blocks.{k}.{part}" for k in blocks for part in _parts(residual)]
    names = ["initial_layer", *inner, "final_layer"]
    parts = ("weight", "mask", "bias")
    if missing := [name for name in names if any(f"{name}.{part}" not in state for part in parts)]:
        raise ValueError(f"the state lacks numbers of {missing[0]}: pass the whole flow's state_dict, buffers included")
    dim = state["initial_layer.mask"].shape[1]
    if state["final_layer.weight"].shape[0] != outputs * dim:
        raise ValueError(
            f"an autoregressive transform has {state['final_layer.weight'].shape[0] / dim:g} numbers a feature, "
            f"expected {outputs}: others than MaskedAffineAutoregressiveTransform cannot be represented"
        )
    masks = [np.asarray(state.pop(f"{name}.mask"), float) for name in names]
    weights = [state.pop(f"{name}.weight") * mask for name, mask in zip(names, masks, strict=True)]
    biases = [state.pop(f"{name}.bias") for name in names]
    for name in names:
        state.pop(f"{name}.degrees", None)
    for part in (masks, weights, biases):
        part[-1] = part[-1].reshape(dim, outputs, -1)[:, rows].reshape(part[-1].shape)
    arrangement = arrange(masks, np.repeat(np.arange(dim), outputs))
    contexts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for k, name in enumerate(names):
        place = name.replace("linear_layers.0", "context_layer") if "linear_layers.0" in name else ""
        if f"{place}.weight" in state:
            contexts[k] = state.pop(f"{place}.weight"), state.pop(f"{place}.bias")
    skips = [(k, k - 2) for k in range(2, len(names) - 1, 2)] if residual else []
    linear = [len(names) - 2] if residual or not blocks else [0] if estimator else []
    if estimator and "context_layer.weight" in state:
        contexts[0] = state.pop("context_layer.weight"), state.pop("context_layer.bias")
    found = _numbers(arrangement, weights, biases, contexts)
    options: dict[str, Any] = {"order": arrangement.ranks.tolist(), "bound": None}
    degrees = [d.tolist() for d in arrangement.degrees]
    if "context_layer.weight" in state:
        found = _with_context_units(
            found, arrangement, state.pop("context_layer.weight"), state.pop("context_layer.bias")
        )
        degrees = [degrees[0], [0] * len(degrees[0]), *degrees]
        skips = [(2, 0), *((to + 2, source + 2) for to, source in skips)]
        linear = [k + 2 for k in linear]
    options |= {"hidden": [len(d) for d in degrees], "degrees": degrees, "skips": skips, "linear": linear}
    return options, found


def _indices(state: Mapping[str, Any], pattern: str) -> list[int]:
    return sorted({int(m[1]) for name in state if (m := re.fullmatch(pattern, name))})


def _parts(residual: bool) -> tuple[str, ...]:
    return ("linear_layers.0", "linear_layers.1") if residual else ("linear",)


def _numbers(
    arrangement: Arrangement,
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    contexts: Mapping[int, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """The layers' numbers in our order. A context's weights only where a layer reads one; the others' are zeros."""
    found: dict[str, Any] = {}
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        found[f"weight.{k}"] = arrangement.weight(k, weight)
        if k in contexts:
            found[f"context.{k}"] = arrangement.rows(k, contexts[k][0])
            bias = bias + contexts[k][1]
        found[f"bias.{k}"] = arrangement.rows(k, bias)
    return found


def _with_context_units(
    found: Mapping[str, Any], arrangement: Arrangement, weight: np.ndarray, bias: np.ndarray
) -> dict[str, Any]:
    """The network with ``act(V c)`` added to its first layer, by a layer of units that read the context alone."""
    width, order = len(weight), arrangement.orders[1]
    moved = {}
    for name, array in found.items():
        local, place = name.split(".")
        moved[f"{local}.{int(place) + 2 if int(place) else 0}"] = array
    return {
        **moved,
        "weight.1": np.zeros((width, width)),
        "context.1": weight,
        "bias.1": bias,
        "weight.2": np.eye(width)[order],
        "bias.2": np.zeros(width),
    }
