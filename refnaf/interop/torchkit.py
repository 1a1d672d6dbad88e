"""Weights of torchkit, the NAF authors' library (Huang et al. 2018): IAF, IAF_DSF, IAF_DDSF, FlipFlow, LinearFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.interop.conventions import TORCHKIT
from refnaf.interop.masked import Arrangement, arrange
from refnaf.interop.states import arrays_of, refuse_rest
from refnaf.reference._numpy import np, value
from refnaf.reference.stable import inverse_softplus

#: What their slopes and scales, ``softplus(raw) + delta``, lack to be ours.
_OFFSET = float(inverse_softplus(1 - TORCHKIT.delta))


class _Part(NamedTuple):
    """One module of a stack: its kind and its state."""

    kind: str
    state: dict[str, Any]


def from_torchkit(
    state: Mapping[str, Any],
    *,
    realify: str = "sigmoid",
    direction: str = "density",
    base_variance: float = 1.0,
    exact: bool = False,
    dtype: str = "float64",
) -> Flow:
    """The flow of a torchkit module's ``state_dict``, as arrays.

    Parameters
    ----------
    state : mapping of name to array: one IAF, IAF_DSF, IAF_DDSF or LinearFlow, or an ``nn.Sequential`` of them, whose
        names begin with the place of the module. A place without a name between others is a FlipFlow, which has no
        numbers of its own; flips behind the last module do not show, and change no density.
    realify : "sigmoid" or "softplus", the function that makes IAF's scale, which the state does not tell.
    direction : "density" where the module maps data to noise, as in the authors' density estimation, or "sampling"
        where it maps noise to data.
    base_variance : of the normal that the noise follows; the authors' density estimation uses e.
    exact : drop the clipping by delta = 1e-6, so that the flow is the equations' own: a bijection of the whole line
        with the right log-determinant. By default the numbers are those of torchkit.
    dtype : of the flow, float64 or float32.

    Returns a Flow with the authors' context, if its networks read one. Raises ValueError for names that do not belong
    to these modules, and for what cannot be represented.
    """
    if realify not in ("sigmoid", "softplus"):
        raise ValueError(f"realify must be 'sigmoid' or 'softplus', not {realify!r}: sigmoid2 cannot be represented")
    if direction not in ("density", "sampling"):
        raise ValueError(f"direction must be 'density' or 'sampling', not {direction!r}")
    parts = _parts(arrays_of(state))
    layers = _layers(parts, realify, 0.0 if exact else TORCHKIT.delta, direction, base_variance)
    params = parameters(state, realify=realify, direction=direction, base_variance=base_variance)
    kinds = {part.kind for part in parts if part.kind in ("IAF", "IAF_DSF", "IAF_DDSF")}
    suffix = {"IAF": "", "IAF_DSF": "-dsf", "IAF_DDSF": "-ddsf"}.get(next(iter(kinds), "IAF"), "")
    model = ("maf" if direction == "density" else "iaf") + (suffix if len(kinds) == 1 else "")
    return Flow(layers, params, model=model, dtype=dtype)


def parameters(
    state: Mapping[str, Any], *, realify: str = "sigmoid", direction: str = "density", base_variance: float = 1.0
) -> dict[str, Any]:
    """The parameters of :func:`from_torchkit`'s flow. autograd differentiates them by the state."""
    found: dict[str, Any] = {}
    parts = _parts(dict(state))
    for index, part in _places(len(parts), direction, base_variance):
        own = (
            {"log_diagonal": numpy.full(_dim(parts), -0.5 * numpy.log(base_variance))}
            | {"lower": numpy.zeros((_dim(parts), _dim(parts))), "shift": numpy.zeros(_dim(parts))}
            | ({"context": numpy.zeros((_dim(parts), _context_dim(parts)))} if _context_dim(parts) else {})
            if part is None
            else _numbers(parts[part], realify)
        )
        found |= {f"{index}.{name}": array for name, array in own.items()}
    return found


def _places(count: int, direction: str, base_variance: float) -> list[tuple[int, int | None]]:
    """Which part stands at each place of the flow, behind the standardisation; None is the scale of the base."""
    parts: list[int | None] = [*range(count)] if direction == "density" else [*reversed(range(count))]
    if base_variance != 1:
        parts.append(None)
    return list(enumerate(parts, 1))


def _parts(state: Mapping[str, Any]) -> list[_Part]:
    stack: dict[int, dict[str, Any]] = {}
    for name, array in state.items():
        match = re.fullmatch(r"(\d+)\.(.+)", name)
        place, local = (int(match[1]), match[2]) if match else (0, name)
        stack.setdefault(place, {})[local] = array
    if not stack:
        raise ValueError("the state is empty: pass the module's state_dict as arrays")
    return [_Part(_kind(stack[k]), stack[k]) if k in stack else _Part("FlipFlow", {}) for k in range(max(stack) + 1)]


def _kind(state: Mapping[str, Any]) -> str:
    names = set(state)
    if "mean.dot_01.direction" in names:
        return "LinearFlow"
    if "mdl.hidden_to_output.cscale.weight" not in names:
        raise ValueError(
            f"this is no IAF, IAF_DSF, IAF_DDSF or LinearFlow of torchkit (names such as {sorted(names)[0]!r}): "
            "other modules cannot be represented"
        )
    if "sf0.w_" in names:
        return "IAF_DDSF"
    return "IAF_DSF" if "out_to_dsparams.weight" in names else "IAF"


def _dim(parts: Sequence[_Part]) -> int:
    first = next(part for part in parts if part.kind != "FlipFlow")
    if first.kind == "LinearFlow":
        return value(first.state["mean.dot_01.bias"]).shape[0]
    return value(first.state[f"{_layer_names(first.state)[0]}.direction"]).shape[1]


def _context_dim(parts: Sequence[_Part]) -> int:
    widths = {
        value(array).shape[1]
        for part in parts
        for name, array in part.state.items()
        if name.endswith(("cscale.weight", "dot_0h.direction"))
    }
    if len(widths) > 1:
        raise ValueError(f"the modules read contexts of different widths ({sorted(widths)}): give one stack of a kind")
    return widths.pop() if widths else 0


def _layer_names(state: Mapping[str, Any]) -> list[str]:
    inner = sorted({int(m[1]) for name in state if (m := re.match(r"mdl\.input_to_hidden\.(\d+)\.", name))})
    return [*(f"mdl.input_to_hidden.{k}" for k in inner), "mdl.hidden_to_output"]


def _arrangement(state: Mapping[str, Any]) -> Arrangement:
    masks = [value(state[f"{name}.mask"]) for name in _layer_names(state)]
    dim = masks[0].shape[1]
    return arrange(masks, numpy.repeat(numpy.arange(dim), masks[-1].shape[0] // dim))


def _layers(parts: Sequence[_Part], realify: str, clip: float, direction: str, base_variance: float) -> list[Layer]:
    dim, context_dim = _dim(parts), _context_dim(parts)
    layers: list[Layer] = [Standardise(dim, context_dim)]
    for _, place in _places(len(parts), direction, base_variance):
        if place is None:
            layers.append(Triangular(dim, context_dim))
            continue
        layer = _layer(parts[place], dim, context_dim, realify, clip)
        layers.append(Inverse(dim, context_dim, layer=layer) if direction == "sampling" else layer)
    return layers


def _layer(part: _Part, dim: int, context_dim: int, realify: str, clip: float) -> Layer:
    if part.kind == "FlipFlow":
        return Permutation(dim, context_dim)
    softplus = {"name": "affine", "form": "softplus", "floor": TORCHKIT.delta}
    if part.kind == "LinearFlow":
        # a network of units that read the context alone
        return Autoregressive(
            dim,
            context_dim,
            transformer_config=softplus,
            hidden=[2 * dim],
            degrees=[[0] * 2 * dim],
            activation="relu",
            bound=None,
        )
    gated = {"name": "affine", "form": "gated", "how": "none"} | ({"clip": clip} if clip else {})
    transformer: dict[str, Any] = gated if realify == "sigmoid" else softplus
    channels = None
    if part.kind != "IAF":
        count, channels = value(part.state["out_to_dsparams.weight"]).shape[:2]
        transformer = {"name": "dsf", "units": count // 3}
        if part.kind == "IAF_DDSF":
            units = value(part.state["sf0.u_"]).shape[0]
            transformer = {"name": "ddsf", "units": units, "layers": len(_dense_layers(part.state))}
        transformer |= {"clip": clip} if clip else {}
    arrangement = _arrangement(part.state)
    return Autoregressive(
        dim,
        context_dim,
        transformer_config=transformer,
        hidden=[len(d) for d in arrangement.degrees],
        degrees=[d.tolist() for d in arrangement.degrees],
        activation="elu",
        order=arrangement.ranks.tolist(),
        channels=channels,
        bound=None,
        gains=context_dim > 0,
    )


def _dense_layers(state: Mapping[str, Any]) -> list[int]:
    return sorted({int(m[1]) for name in state if (m := re.fullmatch(r"sf(\d+)\.w_", name))})


def _numbers(part: _Part, realify: str) -> dict[str, Any]:
    """A module's parameters by the layer's local names, every name of the state used."""
    state = dict(part.state)
    found: dict[str, Any] = {}
    if part.kind == "LinearFlow":
        found = _linear_numbers(state)
    elif part.kind != "FlipFlow":
        found = _network_numbers(state)
        last = len(_layer_names(part.state)) - 1
        if part.kind == "IAF":
            if realify == "softplus":
                count = value(found[f"bias.{last}"]).shape[0] // 2
                found[f"bias.{last}"] = found[f"bias.{last}"] - numpy.tile([0.0, _OFFSET], count)
        else:
            found |= _pseudo_parameter_numbers(part.kind, state)
    refuse_rest(state, f"torchkit's {part.kind}")
    return found


def _network_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """The cMADE, ``scale(context) * ((direction * mask) x) + bias(context)``; the last directions are normalised."""
    arrangement = _arrangement(state)
    names, found = _layer_names(state), {}
    for k, name in enumerate(names):
        direction, mask = state.pop(f"{name}.direction"), value(state.pop(f"{name}.mask"))
        if k == len(names) - 1:
            direction = direction / np.sqrt(np.sum(direction * direction, axis=1))[:, None]
        gain, gain_bias = state.pop(f"{name}.cscale.weight"), state.pop(f"{name}.cscale.bias")
        context, bias = state.pop(f"{name}.cbias.weight"), state.pop(f"{name}.cbias.bias")
        weight = direction * mask
        if value(gain).shape[1] == 0:
            weight = weight * gain_bias[:, None]
        else:
            found[f"context.{k}"] = arrangement.rows(k, context)
            found[f"gain.{k}"] = arrangement.rows(k, gain)
            found[f"gain_bias.{k}"] = arrangement.rows(k, gain_bias)
        found[f"weight.{k}"] = arrangement.weight(k, weight)
        found[f"bias.{k}"] = arrangement.rows(k, bias)
    return found


def _pseudo_parameter_numbers(kind: str, state: dict[str, Any]) -> dict[str, Any]:
    """The linear map from channels to pseudo-parameters, and the matrices that all dimensions share."""
    weight, bias = state.pop("out_to_dsparams.weight")[:, :, 0], state.pop("out_to_dsparams.bias")
    count = value(bias).shape[0]
    if kind == "IAF_DSF":
        units = count // 3
        shift = numpy.repeat([_OFFSET, 0.0, 0.0], units)
        if count != 3 * units:
            raise ValueError(f"IAF_DSF has {count} pseudo-parameters a dimension, expected a multiple of 3")
        return {"spread.weight": weight, "spread.bias": bias - shift}
    found: dict[str, Any] = {}
    keep: list[int] = []
    start = shared = 0
    for k in _dense_layers(state):
        u, w = state.pop(f"sf{k}.u_"), state.pop(f"sf{k}.w_")
        units, inputs = value(u).shape
        stop = start + 3 * units + inputs
        # the u of the first layer's one input is 1 whatever its numbers
        keep += range(start, stop if k else start + 3 * units)
        start = stop
        for matrix in (u, w) if k else (w,):
            found[f"shared.{shared}"] = matrix
            shared += 1
    if start != count:
        raise ValueError(f"IAF_DDSF has {count} pseudo-parameters a dimension, expected {start} from its matrices")
    index = numpy.array(keep)
    return {"spread.weight": weight[index], "spread.bias": bias[index], **found}


def _linear_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """LinearFlow: mean and scale by two small residual networks of the context, their weights normalised."""
    dim = value(state["mean.dot_01.bias"]).shape[0]

    def taken(net: str, part: str) -> tuple[Any, Any]:
        direction, scale = state.pop(f"{net}.{part}.direction"), state.pop(f"{net}.{part}.scale")
        norm = np.sqrt(np.sum(direction * direction, axis=1))
        return direction * (scale / norm)[:, None], state.pop(f"{net}.{part}.bias")

    parts = {net: {part: taken(net, part) for part in ("dot_0h", "dot_h1", "dot_01")} for net in ("mean", "lstd")}
    zero = numpy.zeros((dim, dim))
    mean, lstd = (
        [parts[net]["dot_h1"][0], parts[net]["dot_h1"][1] + parts[net]["dot_01"][1], parts[net]["dot_01"][0]]
        for net in ("mean", "lstd")
    )
    mix = numpy.arange(2 * dim).reshape(2, dim).T.reshape(-1)  # rows of mean and scale in turn
    rows = np.concatenate([np.concatenate([mean[0], zero], axis=1), np.concatenate([zero, lstd[0]], axis=1)], axis=0)
    return {
        "weight.0": numpy.zeros((2 * dim, dim)),
        "bias.0": np.concatenate([parts["mean"]["dot_0h"][1], parts["lstd"]["dot_0h"][1]]),
        "context.0": np.concatenate([parts["mean"]["dot_0h"][0], parts["lstd"]["dot_0h"][0]], axis=0),
        "weight.1": rows[mix],
        "bias.1": np.concatenate([mean[1], lstd[1] - _OFFSET])[mix],
        "context.1": np.concatenate([mean[2], lstd[2]], axis=0)[mix],
    }
