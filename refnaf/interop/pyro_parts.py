"""Pyro's transforms (Bingham et al. 2019, ``pyro.distributions.transforms``), each as a layer and its numbers.

A layer maps the way the transform's ``__call__`` does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Triangular
from refnaf.flows.layer import Layer
from refnaf.flows.planar import Planar
from refnaf.interop.carry import Masked, carry
from refnaf.interop.conventions import PYRO
from refnaf.interop.parts import normal_base, side_by_side
from refnaf.interop.states import refuse_rest
from refnaf.reference.made import ACTIVATIONS
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus, softplus

State = dict[str, Any]
Options = Mapping[str, Any]
Built = tuple[Layer, dict[str, Any]]

#: Every transform's settings that its state does not hold, and their defaults; None for what must be given, or is there
#: to be compared.
SETTINGS: dict[str, dict[str, Any]] = {
    "AffineAutoregressive": {
        "log_scale_min_clip": PYRO.log_scale_min_clip,
        "log_scale_max_clip": PYRO.log_scale_max_clip,
        "sigmoid_bias": PYRO.sigmoid_bias,
        "stable": False,
        "nonlinearity": "relu",
    },
    "NeuralAutoregressive": {"activation": "sigmoid", "hidden_units": None, "nonlinearity": "relu"},
    "BlockAutoregressive": {"activation": "tanh", "residual": None, "hidden_factors": None},
    "Planar": {},
    "Permute": {"permutation": None},
    "AffineTransform": {"loc": None, "scale": None},
}
#: Transforms that have no parameters, and no place in a state.
BARE = ("Permute", "AffineTransform")

#: Limits from which on nothing is clamped.
_WIDEST = sys.float_info.max

_NETS = ("arn.", "nn.")


def kind_of(state: Mapping[str, Any]) -> str:
    """Which transform a state belongs to. Raises ValueError for any other."""
    names = set(state)
    if names == {"bias", "u", "w"}:
        return "Planar"
    if "layers.0._weight" in names:
        return "BlockAutoregressive"
    for net in _NETS:
        if f"{net}permutation" in names:
            dim = state[f"{net}permutation"].shape[0]
            outputs = state[_layers(state, net)[-1] + ".weight"].shape[0]
            return "AffineAutoregressive" if outputs == 2 * dim else "NeuralAutoregressive"
    raise ValueError(
        f"this is the state of none of {', '.join(k for k in SETTINGS if k not in BARE)} (it has "
        f"{sorted(names)[0]!r}): other transforms cannot be represented"
    )


def sizes(kind: str, state: Mapping[str, Any]) -> tuple[int, int]:
    """The dimension and the width of the context of a transform that has a state."""
    if kind == "Planar":
        return state["w"].shape[0], 0
    if kind == "BlockAutoregressive":
        return state["layers.0._weight"].shape[1], 0
    net = _net(state)
    dim = state[f"{net}permutation"].shape[0]
    return dim, state[f"{net}layers.0.weight"].shape[1] - dim


def build(kind: str, state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    """The transform as a layer and its parameters by local name; every name of its state is used."""
    layer, numbers = _BUILDERS[kind](state, options, dim, context_dim, exact)
    refuse_rest(state, f"Pyro's {kind}")
    shapes = layer.shapes()
    zeros = {name: np.zeros(shape) for name, shape in shapes.items() if name.startswith("context")}
    return layer, {**zeros, **numbers}


# networks


def _net(state: Mapping[str, Any]) -> str:
    return next(net for net in _NETS if f"{net}permutation" in state)


def _layers(state: Mapping[str, Any], net: str) -> list[str]:
    places = {int(m[1]) for name in state if (m := re.match(re.escape(net) + r"layers\.(\d+)\.", name))}
    return [f"{net}layers.{k}" for k in sorted(places)]


def _network(state: State, order: Sequence[int], nonlinearity: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(Conditional)AutoRegressiveNN: options of an Autoregressive layer, and its numbers.

    Its outputs are parameter-major: row ``p D + i``. ``order`` says which p stands at each place of ours. Its inputs
    are the context and x, in this order.
    """
    if nonlinearity not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"nonlinearity must be one of {known}, not {nonlinearity!r}: others cannot be represented")
    net, names = _net(state), _layers(state, _net(state))
    dim = state.pop(f"{net}permutation").shape[0]
    found = [(state.pop(f"{n}.weight"), state.pop(f"{n}.bias"), state.pop(f"{n}.mask", None)) for n in names]
    if any(mask is None for *_, mask in found):
        raise ValueError(f"the state lacks {names[0]}.mask: pass the module's whole state_dict, buffers included")
    weights, biases, masks = (list(part) for part in zip(*found, strict=True))
    masked = Masked(weights, biases, [np.asarray(mask, float) for mask in masks])
    if f"{net}skip_layer.weight" in state:
        if nonlinearity != "relu":
            raise ValueError("skip connections can be represented for the nonlinearity relu alone")
        skip = state.pop(f"{net}skip_layer.weight"), np.asarray(state.pop(f"{net}skip_layer.mask"), float)
        masked = carry(masked, range(weights[0].shape[1]), {len(weights) - 1: (skip[0] * skip[1], skip[1])})
    context_dim = weights[0].shape[1] - dim
    rows = (np.asarray(order) * dim + np.arange(dim)[:, None]).reshape(-1)
    ours = Masked(*(list(part) for part in masked))
    for part in ours:
        part[-1] = part[-1][rows]
    for part in (ours.weights, ours.masks):
        part[0] = np.concatenate([part[0][:, context_dim:], part[0][:, :context_dim]], axis=1)
    options, numbers = side_by_side(dim, *ours)
    return {**options, "activation": nonlinearity}, numbers


def _outputs(state: Mapping[str, Any]) -> int:
    net = _net(state)
    return int(state[_layers(state, net)[-1] + ".weight"].shape[0] // state[f"{net}permutation"].shape[0])


def _affine(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    if _outputs(state) != 2:
        raise ValueError(f"AffineAutoregressive needs 2 numbers a dimension, but the network has {_outputs(state)}")
    low, high = options["log_scale_min_clip"], options["log_scale_max_clip"]
    form: dict[str, Any] = {"form": "exp", "how": "clamp", "limit": [low, high]}
    if options["stable"]:
        form = {"form": "gated", "how": "none"}
    elif low <= -_WIDEST and high >= _WIDEST:
        form = {"form": "exp", "how": "none"}
    network, numbers = _network(state, [0, 1], options["nonlinearity"])
    if options["stable"]:
        last = len(network["hidden"])
        numbers[f"bias.{last}"] = numbers[f"bias.{last}"] + np.tile([0.0, options["sigmoid_bias"]], dim)
    return Autoregressive(dim, context_dim, transformer_config={"name": "affine", **form}, **network), numbers


def _neural(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    units, rest = divmod(_outputs(state), 3)
    if rest or not units or options["hidden_units"] not in (None, units):
        raise ValueError(
            f"NeuralAutoregressive needs 3 numbers a dimension and hidden unit, but with "
            f"hidden_units={options['hidden_units']} the network has {_outputs(state)}"
        )
    transformers: dict[str, dict[str, Any]] = {
        "sigmoid": {"name": "dsf"},
        "tanh": {"name": "dsf", "steepness": 2.0},
        "ELU": {"name": "mean", "activation": "elu"},
        "LeakyReLU": {"name": "mean", "activation": "leakyrelu"},
    }
    if options["activation"] not in transformers:
        raise ValueError(f"activation must be one of {', '.join(transformers)}, not {options['activation']!r}")
    transformer = {**transformers[options["activation"]], "units": units, "floor": 0.0}
    # rows of slopes, weights and offsets, where ours are slopes, offsets and weights
    each = np.arange(units)
    order = np.concatenate([each, 2 * units + each, units + each])
    network, numbers = _network(state, order.tolist(), options["nonlinearity"])
    last = f"bias.{len(network['hidden'])}"
    # ours have an offset that makes the slope of 0 be 1
    offset = np.repeat([float(inverse_softplus(1.0)), 0.0, 0.0], units)
    numbers[last] = numbers[last] - np.tile(offset, dim)
    transformer |= {} if exact else {"epsilon": PYRO.eps}
    return Autoregressive(dim, context_dim, transformer_config=transformer, **network), numbers


def _block(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    if options["activation"] != "tanh":
        raise ValueError(
            f"BlockAutoregressive with activation {options['activation']!r} cannot be represented: only tanh"
        )
    residual = options["residual"] or "none"
    count = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    numbers: dict[str, Any] = {}
    widths = []
    for k in range(count):
        raw, gain = state.pop(f"layers.{k}._weight"), state.pop(f"layers.{k}._diag_weight")[:, 0]
        inside, before = state.pop(f"layers.{k}.mask_d"), state.pop(f"layers.{k}.mask_o")
        numbers[f"weight.{k}"] = raw * (inside + before)
        if exact:  # the map is Pyro's, whose epsilon then is in the gains
            norm = np.sqrt(np.sum((np.exp(np.where(inside, raw, 0)) * inside + raw * before) ** 2, axis=1))
            gain = gain + np.log(norm / (norm + PYRO.eps))
        numbers[f"gain.{k}"] = gain
        numbers[f"bias.{k}"] = state.pop(f"layers.{k}.bias")
        widths.append(len(raw) // dim)
    if options["hidden_factors"] not in (None, widths[:-1]):
        raise ValueError(f"hidden_factors are {options['hidden_factors']}, but the weights have {widths[:-1]}")
    if residual == "gated":
        numbers["gate"] = -state.pop("gate")
    epsilon = 0.0 if exact else PYRO.eps
    return Block(dim, context_dim, hidden=widths[:-1], residual=residual, epsilon=epsilon), numbers


def _planar(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    u, w, bias = state.pop("u"), state.pop("w"), state.pop("bias")
    square, along = w @ w, w @ u
    slope = float(softplus(along))
    if slope <= SLOPE_FLOOR or not square > 0:
        raise ValueError(f"a Planar transform whose slope along w falls to {slope:.3g} cannot be represented")
    # the part of u along w for which ours has that slope, softplus(inner + offset) + floor
    inner = float(inverse_softplus(slope - SLOPE_FLOOR) - inverse_softplus(1 - SLOPE_FLOOR))
    return Planar(dim, context_dim, bound=None), {"u": u + (inner - along) / square * w, "w": w, "b": bias}


def _permute(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    return Permutation(dim, context_dim, order=np.asarray(options["permutation"]).tolist()), {}


def _affine_transform(state: State, options: Options, dim: int, context_dim: int, exact: bool) -> Built:
    loc, scale = (np.asarray(options[name], float) for name in ("loc", "scale"))
    if any(array.shape not in ((), (1,), (dim,)) for array in (loc, scale)) or not (scale > 0).all():
        raise ValueError(
            f"an AffineTransform needs a loc and positive scales, a number or {dim} of them, got {loc.tolist()} and "
            f"{scale.tolist()}"
        )
    loc, scale = np.broadcast_to(loc, dim), np.broadcast_to(scale, dim)
    return Triangular(dim, context_dim), normal_base(-loc / scale, 1 / scale, context_dim)


_BUILDERS: dict[str, Callable[..., Built]] = {
    "AffineAutoregressive": _affine,
    "NeuralAutoregressive": _neural,
    "BlockAutoregressive": _block,
    "Planar": _planar,
    "Permute": _permute,
    "AffineTransform": _affine_transform,
}
