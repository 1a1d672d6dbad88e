"""Weights of nflows (Durkan et al. 2020): masked autoregressive flows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.interop.conventions import NFLOWS
from refnaf.interop.nflows_network import network
from refnaf.interop.parts import normal_base
from refnaf.interop.states import arrays_of, refuse_rest
from refnaf.reference.made import ACTIVATIONS
from refnaf.reference.stable import inverse_softplus

_ESTIMATOR = "MixtureOfGaussiansMADE"
_KINDS = "MaskedAffineAutoregressiveTransform, permutations and PointwiseAffineTransform, in composites and inverses"


class _Part(NamedTuple):
    """One transform: its kind, its state, and whether it stands in an InverseTransform."""

    kind: str
    state: dict[str, Any]
    inverted: bool


def from_nflows(
    state: Mapping[str, Any], *, activation: str = "relu", scale: str = "softplus", dtype: str = "float64"
) -> Flow:
    """The flow of an ``nflows.flows.Flow``'s ``state_dict``, as arrays, over a standard normal base.

    Parameters
    ----------
    state : mapping of name to array: a Flow's (``MaskedAutoregressiveFlow``, or one of a CompositeTransform of
        MaskedAffineAutoregressiveTransforms, permutations, PointwiseAffineTransforms and InverseTransforms of them), or
        that of a CompositeTransform or single transform without a Flow; or a MADEMoG's or MixtureOfGaussiansMADE's, or
        a Flow's over one. Names that begin with ``_transform.`` are taken for a Flow's.
    activation : of the networks, which the state does not tell: relu (nflows' default), elu or tanh.
    scale : "softplus" for ``softplus(raw) + 1e-3``, or "sigmoid" for ``sigmoid(raw + 2) + 1e-3``, as in earlier
        versions.
    dtype : of the flow, float64 or float32.

    Returns a Flow with the networks' context, if they read one. Dropout leaves no trace in a state: the flow is that of
    ``eval()``. Raises ValueError for what cannot be represented: batch normalisation, an embedding network, other bases
    and transforms.
    """
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation must be one of {known}, not {activation!r}: others cannot be represented")
    if scale not in ("softplus", "sigmoid"):
        raise ValueError(f"scale must be 'softplus' or 'sigmoid', not {scale!r}")
    parts = _all_parts(arrays_of(state))
    dims = {dim for part in parts for dim in _dims(part)}
    contexts = {_context_dim(part.state) for part in parts} - {0}
    if len(dims) != 1 or len(contexts) > 1:
        raise ValueError(
            f"the transforms have features {sorted(dims)} and contexts of {sorted(contexts) or [0]} columns: expected "
            "one of each; check the state"
        )
    dim, context_dim = dims.pop(), contexts.pop() if contexts else 0
    first = Standardise(dim, context_dim, dtype=dtype)
    layers: list[Layer] = [first]
    params: dict[str, Any] = {}
    for part in parts:
        if part.kind == "PointwiseAffineTransform" and len(layers) == 1 and (first.buffers["scale"] == 1).all():
            mean, deviation = _standard(part, dim)
            first.buffers |= {"mean": mean, "scale": deviation}
            continue
        layer, numbers = _build(part, dim, context_dim, activation, scale)
        params |= {f"{len(layers)}.{name}": array for name, array in numbers.items()}
        layers.append(layer)
    backwards = [part.inverted for part in parts if part.kind == "MaskedAffineAutoregressiveTransform"]
    model = "iaf" if backwards and all(backwards) else "maf"
    if parts[-1].kind == _ESTIMATOR:
        model = f"{model}-mog" if backwards else "made-mog"
    return Flow(layers, params, model=model, dtype=dtype)


def _all_parts(state: dict[str, Any]) -> list[_Part]:
    """The transforms of a Flow, or whatever the state is of; a mixture that is the base stands behind them."""
    if not state:
        raise ValueError("the state is empty: pass the flow's state_dict as arrays")
    for prefix in ("", "_made."):
        if f"{prefix}initial_layer.weight" in state:
            return [_Part(_ESTIMATOR, _within(state, prefix), False)]
    body = _within(state, "_transform.")
    if not body:
        return _parts(state)
    base = _within(state, "_distribution._made.")
    known = ("_transform.", "_distribution._made.", "_distribution._log_z")
    refuse_rest({n: a for n, a in state.items() if not n.startswith(known)}, "nflows' Flow, beside its transform,")
    return [*_parts(body), *([_Part(_ESTIMATOR, base, False)] if base else [])]


def _within(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What has names of that prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _parts(state: Mapping[str, Any], where: str = "") -> list[_Part]:
    """The transforms in order, composites and inverses resolved."""
    if all(name.startswith("_transforms.") for name in state):
        places: dict[int, dict[str, Any]] = {}
        for name, array in state.items():
            match = re.fullmatch(r"_transforms\.(\d+)\.(.+)", name)
            if match:
                places.setdefault(int(match[1]), {})[match[2]] = array
        if sorted(places) != list(range(len(places))):
            missing = min(set(range(max(places, default=0))) - set(places), default=0)
            raise ValueError(
                f"the transform at place {where}{missing} has no numbers: only {_KINDS} can be represented"
            )
        return [part for k in sorted(places) for part in _parts(places[k], f"{where}{k}.")]
    if all(name.startswith("_transform.") for name in state):
        inner = _parts(_within(state, "_transform."), where)
        return [part._replace(inverted=not part.inverted) for part in reversed(inner)]
    if set(state) == {"_permutation"}:
        return [_Part("Permutation", dict(state), False)]
    if set(state) == {"_shift", "_scale"}:
        return [_Part("PointwiseAffineTransform", dict(state), False)]
    if all(name.startswith("autoregressive_net.") for name in state):
        return [_Part("MaskedAffineAutoregressiveTransform", _within(state, "autoregressive_net."), False)]
    raise ValueError(
        f"the transform at place {where.rstrip('.') or '0'} of nflows has names such as {sorted(state)[0]!r}: only "
        f"{_KINDS} can be represented"
    )


def _dims(part: _Part) -> list[int]:
    """The number of features, where the part tells it."""
    if part.kind == "PointwiseAffineTransform":
        return [size for array in part.state.values() if (size := np.size(array)) > 1]
    name = "_permutation" if part.kind == "Permutation" else "initial_layer.weight"
    return [part.state[name].shape[-1]] if name in part.state else []


def _context_dim(state: Mapping[str, Any]) -> int:
    return next((array.shape[1] for name, array in state.items() if name.endswith("context_layer.weight")), 0)


def _standard(part: _Part, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation for which ``(x - mean) / deviation`` is a PointwiseAffineTransform."""
    shift, scale = (np.broadcast_to(part.state[name].astype(float), dim) for name in ("_shift", "_scale"))
    return (shift.copy(), scale.copy()) if part.inverted else (-shift / scale, 1 / scale)


def _build(part: _Part, dim: int, context_dim: int, activation: str, scale: str) -> tuple[Layer, dict[str, Any]]:
    """A part as a layer and its parameters by local name."""
    if part.kind == "Permutation":
        order = part.state["_permutation"].astype(int)
        return Permutation(dim, context_dim, order=(np.argsort(order) if part.inverted else order).tolist()), {}
    if part.kind == "PointwiseAffineTransform":
        return Triangular(dim, context_dim), normal_base(*_standard(part, dim), context_dim)
    state = dict(part.state)
    if part.kind == _ESTIMATOR:
        # logits, means and scales component after component, where ours are kind after kind
        count = state["final_layer.weight"].shape[0] // (3 * dim)
        rows = np.arange(3 * count).reshape(count, 3).T.reshape(-1)
        transformer: dict[str, Any] = {"name": "mog", "components": count, "floor": NFLOWS.mixture_floor}
        offsets = np.repeat([0.0, 0.0, -float(inverse_softplus(1 - NFLOWS.mixture_floor))], count)
    else:
        # of the two outputs a feature the scale comes first
        rows = np.array([1, 0])
        transformer = {"name": "affine", "form": scale, "floor": NFLOWS.scale_floor}
        softplus_offset = -float(inverse_softplus(1 - NFLOWS.scale_floor))
        offsets = np.array([0.0, NFLOWS.sigmoid_bias if scale == "sigmoid" else softplus_offset])
    options, numbers = network(state, len(rows), rows, estimator=part.kind == _ESTIMATOR)
    refuse_rest(state, "nflows' MADE")
    last = f"bias.{len(options['hidden'])}"
    # our softplus has an offset that makes the scale of 0 be 1
    numbers[last] = numbers[last] + np.tile(offsets, dim)
    layer: Layer = Autoregressive(dim, context_dim, transformer_config=transformer, activation=activation, **options)
    zeros = {name: np.zeros(shape) for name, shape in layer.shapes().items() if name.startswith("context.")}
    return Inverse(dim, context_dim, layer=layer) if part.inverted else layer, {**zeros, **numbers}
