"""Flows as states of torchkit, the NAF authors' library (Huang et al. 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Permutation, Triangular
from refnaf.flows.flow import Flow
from refnaf.interop.conventions import TORCHKIT
from refnaf.interop.export import Network, Step, folded, network, refuse, steps
from refnaf.reference import made
from refnaf.reference.ddsf import pairs
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: What our slopes and scales have in the softplus, and theirs, ``softplus(raw) + delta``, have not.
_OFFSET = float(inverse_softplus(1 - TORCHKIT.delta))


def to_torchkit(flow: Flow, *, base_variance: float = 1.0) -> dict[str, np.ndarray]:
    """The flow as the ``state_dict`` of an ``nn.Sequential`` of torchkit's modules: float64 arrays by name.

    Each autoregressive layer is an IAF, IAF_DSF or IAF_DDSF, and each reversal of the dimensions a FlipFlow, which has
    a place but no numbers. The standardisation of the data is an IAF of constant mean and scale: the first module of a
    flow that reads data (maf models), the last of one that reads noise (iaf models), whose modules map noise to data.
    That of the context is folded into the networks. Masks are in the state. :func:`.torchkit.from_torchkit` reads it
    back, with ``realify`` "softplus" for affine layers of that form and for a standardisation, ``direction`` "sampling"
    for flows that read noise, and ``exact`` where the flow does not clip. ``base_variance`` is for flows that were read
    with one: it is not in the state.

    torchkit computes what this flow does but for its clipping (delta = 1e-6), where the flow has none. Raises
    ValueError for what torchkit has not: fit with ``bound=None``, ``activation="elu"``, hidden layers of one width,
    and affine layers of ``form="softplus"``, or of ``form="gated"`` with ``how="none"``.
    """
    found = _without_base(steps(flow), base_variance)
    inner = [step for step in found if not isinstance(step.layer, Permutation)]
    for step in inner:
        if not isinstance(step.layer, Autoregressive):
            refuse("torchkit", f"a {step.layer.kind} layer", "export a maf or iaf model, with or without -dsf or -ddsf")
    if not inner:
        refuse("torchkit", "a flow without autoregressive layers", "export a maf or iaf model")
    sampling = inner[0].inverted
    if any(step.inverted != sampling for step in inner):
        refuse("torchkit", "layers that read data beside layers that read noise", "export a flow of one direction")
    modules = [_module(flow, step) for step in (reversed(found) if sampling else found)]
    if not modules[-1]:
        refuse("torchkit", "a permutation behind the last layer", "drop it: it does not change the density")
    mean, scale = flow.buffers["0.mean"], flow.buffers["0.scale"]
    if (mean != 0).any() or (scale != 1).any():
        forms = {step.layer.transformer.options.get("form") for step in inner}
        if "gated" in forms:
            refuse("torchkit", "a standardisation beside gated layers", "fit with the option form=softplus")
        width = inner[0].layer.hidden[0]
        shift, slope = (mean, scale) if sampling else (-mean / scale, 1 / scale)
        constant = _constant(flow, width, shift, slope)
        modules = [*modules, constant] if sampling else [constant, *modules]
    return {f"{place}.{name}": array for place, module in enumerate(modules) for name, array in module.items()}


def _without_base(found: list[Step], base_variance: float) -> list[Step]:
    """The steps but for the last, where that is the scale of a base of this variance."""
    if base_variance == 1:
        return found
    last = found[-1]
    wanted = -0.5 * np.log(base_variance)
    zeros = [name for name in last.params if name != "log_diagonal"]
    if (
        not isinstance(last.layer, Triangular)
        or last.inverted
        or any(last.params[name].any() for name in zeros)
        or not np.allclose(last.params["log_diagonal"], wanted, rtol=1e-6, atol=0)
    ):
        refuse("torchkit", f"a base of variance {base_variance:g} for this flow", "leave base_variance out")
    return found[:-1]


def _module(flow: Flow, step: Step) -> dict[str, np.ndarray]:
    """One module's state; that of a FlipFlow is empty."""
    layer, params = step.layer, step.params
    if isinstance(layer, Permutation):
        if layer.order.tolist() != list(range(layer.dim))[::-1]:
            refuse("torchkit", "permutations other than the reversal", "fit with the option permutation=reversed")
        return {}
    net = network("torchkit", flow, step)
    if layer.activation != "elu":
        refuse("torchkit", f"networks of {layer.activation} units", "fit with the option activation=elu")
    if len(set(layer.hidden)) > 1:
        refuse("torchkit", f"hidden layers of different widths {layer.hidden}", "fit with hidden layers of one width")
    name, options = layer.transformer.name, dict(layer.transformer.options)
    if options.pop("clip", 0.0) not in (0.0, TORCHKIT.delta):
        refuse("torchkit", "clipping by other than 1e-6", "fit with the option clip=0 or clip=1e-6")
    if name == "affine":
        net = _affine(net, layer, params, options)
        return _masked(net, flow.context_dim)
    if name not in ("dsf", "ddsf") or options:
        rest = f"with {', '.join(options)}" if options else "transformers"
        refuse("torchkit", f"{name} {rest}", "fit a -dsf or -ddsf model without further options")
    count = layer.transformer.count
    spread = params["spread.weight"] if layer.channels is not None else np.eye(count)
    bias = params["spread.bias"] if layer.channels is not None else np.zeros(count)
    own = _dsf(spread, bias) if name == "dsf" else _ddsf(spread, bias, params, layer)
    return {**_masked(net, flow.context_dim), **own}


def _affine(net: Network, layer: Autoregressive, params: dict[str, Any], options: dict[str, Any]) -> Network:
    form = options.pop("form")
    if form == "softplus":
        if options.get("floor", SLOPE_FLOOR) != TORCHKIT.delta:
            refuse("torchkit", f"scales of at least {options['floor']:g}", "fit with the option floor=1e-6")
    elif form != "gated" or options != {"how": "none"}:
        refuse(
            "torchkit",
            f"affine layers of form {form}" + (f" with how={options.get('how', 'tanh')}" if form == "gated" else ""),
            "fit with the option form=softplus, or with form=gated and how=none",
        )
    net = folded("torchkit", net, layer, params)
    offset = np.tile([0.0, _OFFSET if form == "softplus" else 0.0], layer.dim)
    return net._replace(biases=[*net.biases[:-1], net.biases[-1] + offset])


def _masked(net: Network, context_dim: int) -> dict[str, np.ndarray]:
    """The cMADE's state: ``scale(context) * ((direction * mask) x) + bias(context)``, the last direction normalised."""
    found: dict[str, np.ndarray] = {}
    last = len(net.weights) - 1
    for k, (weight, bias, mask) in enumerate(zip(net.weights, net.biases, net.masks, strict=True)):
        # an activation without numbers stands between each two layers
        name = "mdl.hidden_to_output" if k == last else f"mdl.input_to_hidden.{2 * k}"
        direction, length = weight * mask, np.ones(len(weight))
        if k == last:
            length = np.sqrt(np.sum(direction * direction, axis=1))
            direction[length == 0] = 1
        gain, gain_bias = net.gains[k] if net.gains else (np.zeros((len(weight), context_dim)), np.ones(len(weight)))
        found |= {
            f"{name}.direction": direction,
            f"{name}.mask": mask.copy(),
            f"{name}.cscale.weight": gain * length[:, None],
            f"{name}.cscale.bias": gain_bias * length,
            f"{name}.cbias.weight": net.contexts[k] if net.contexts else np.zeros((len(weight), 0)),
            f"{name}.cbias.bias": bias,
        }
    return found


def _dsf(spread: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    offset = np.repeat([_OFFSET, 0.0, 0.0], len(bias) // 3)
    return {"out_to_dsparams.weight": spread[:, :, None], "out_to_dsparams.bias": bias + offset}


def _ddsf(spread: np.ndarray, bias: np.ndarray, params: dict[str, Any], layer: Autoregressive) -> dict[str, np.ndarray]:
    shared = pairs(layer.shared(params))
    units = shared[0][1].shape[1]
    # their first layer has a u for its one input, which is 1 whatever its number
    weight, bias = np.insert(spread, 3 * units, 0.0, axis=0), np.insert(bias, 3 * units, 0.0)
    found = {"out_to_dsparams.weight": weight[:, :, None], "out_to_dsparams.bias": bias}
    for k, (u, w) in enumerate(shared):
        found |= {f"sf{k}.u_": np.zeros((units, 1)) if u is None else u, f"sf{k}.w_": w}
    return found


def _constant(flow: Flow, width: int, shift: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    """An IAF with softplus that maps x to ``scale x + shift``, its network of the others' width."""
    if (scale <= TORCHKIT.delta).any():
        refuse("torchkit", f"scales as small as {scale.min():.3g}", "rescale the data")
    raw = np.stack([shift, inverse_softplus(scale - TORCHKIT.delta)], axis=1).reshape(-1)
    masks = made.masks(made.input_ranks(flow.dim), made.degrees(flow.dim, [width], flow.context_dim > 0), 2)
    weights = [np.zeros(mask.shape) for mask in masks]
    contexts = [np.zeros((len(mask), flow.context_dim)) for mask in masks]
    return _masked(Network(weights, [np.zeros(width), raw], contexts, [], masks), flow.context_dim)
