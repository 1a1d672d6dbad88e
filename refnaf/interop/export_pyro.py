"""Flows as states of Pyro's transforms (Bingham et al. 2019)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.planar import Planar
from refnaf.interop.carry import Masked, carry
from refnaf.interop.conventions import PYRO
from refnaf.interop.export import Network, Step, folded, network, refuse, steps
from refnaf.reference.affine import LOG_SCALE_BOUND, limits
from refnaf.reference.block import masks
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus, slopes

#: A transform's settings, as from_pyro takes them, and its state.
Exported = tuple[dict[str, Any], dict[str, np.ndarray]]


def to_pyro(flow: Flow) -> dict[str, np.ndarray]:
    """The flow as the ``state_dict`` of an ``nn.ModuleList`` of Pyro's transforms: float64 arrays by name.

    They stand in Pyro's order, from base to data, and :func:`pyro_transforms` lists them with their settings: pass both
    to :func:`refnaf.interop.from_pyro` for the same flow, or build those transforms, with networks of the arrays'
    sizes, and ``load_state_dict(..., strict=True)``. Layers of maf models map data to base: use the transforms'
    ``.inv``. The standardisation of the data is an AffineTransform, which has no state; that of the context is folded
    into the networks.

    Pyro adds 1e-8 in the log-determinants of NeuralAutoregressive and BlockAutoregressive; the transforms are otherwise
    this flow's. A network that reads the context in every layer needs ``activation="relu"``, and gets two units a layer
    for each of the context's columns.

    Raises ValueError for what Pyro has not: fit with ``bound=None`` and no fewer hidden units a layer than columns;
    affine models with ``how="clamp"`` and a ``limit`` (or "none"), or ``form="gated"`` with ``how="none"``; -dsf models
    with ``floor=0``; bnaf with ``residual`` "gated" or "normal".
    """
    states = [state for _, state in _exported(flow) if state]
    return {f"{place}.{name}": array for place, state in enumerate(states) for name, array in state.items()}


def pyro_transforms(flow: Flow) -> list[dict[str, Any]]:
    """The transforms of :func:`to_pyro`, JSON-able: what ``from_pyro(state, transforms=...)`` takes.

    Raises ValueError for what Pyro has not.
    """
    return [settings for settings, _ in _exported(flow)]


def _exported(flow: Flow) -> list[Exported]:
    """The transforms from base to data."""
    found = [_transform(flow, step) for step in reversed(steps(flow))]
    if not any(state for _, state in found):
        refuse("Pyro's state", "a flow without parameters of its own", "export a maf, iaf, planar or bnaf model")
    mean, scale = flow.buffers["0.mean"], flow.buffers["0.scale"]
    if (mean != 0).any() or (scale != 1).any():
        found.append(({"name": "AffineTransform", "loc": mean.tolist(), "scale": scale.tolist()}, {}))
    return found


def _transform(flow: Flow, step: Step) -> Exported:
    layer = step.layer
    if isinstance(layer, Permutation):
        permutation = layer.order if step.inverted else layer.back
        return {"name": "Permute", "permutation": permutation.tolist()}, {}
    if isinstance(layer, Triangular):
        return _affine_transform(step), {}
    # a layer maps data to base, and is the inverse of a transform, unless it is inverted itself
    direction = {} if step.inverted else {"inverse": True}
    for kind, export in ((Planar, _planar), (Block, _block)):
        if isinstance(layer, kind):
            if flow.context_dim and any(a.any() for name, a in step.params.items() if name.startswith("context")):
                refuse("Pyro", f"{layer.kind} layers that read a context", "export a flow without a context")
            settings, state = export(step)
            return {**settings, **direction}, state
    if not isinstance(layer, Autoregressive):
        refuse("Pyro", f"a {layer.kind} layer", "export a maf, iaf, planar or bnaf model")
    net = folded("Pyro", network("Pyro", flow, step), layer, step.params)
    settings, order, offset = _kind(layer)
    net = net._replace(biases=[*net.biases[:-1], net.biases[-1] + np.tile(offset, layer.dim)])
    name, prefix = settings.pop("name"), "nn." if flow.context_dim else "arn."
    settings = {"name": f"Conditional{name}" if flow.context_dim else name, **settings, **direction}
    state = _network(_context_first(net, layer), layer, order)
    return {**settings, "nonlinearity": layer.activation}, {f"{prefix}{k}": array for k, array in state.items()}


def _kind(layer: Autoregressive) -> tuple[dict[str, Any], list[int], np.ndarray]:
    """Settings, the place of each pseudo-parameter in Pyro's order, and what is added to the biases of ours."""
    name, options = layer.transformer.name, dict(layer.transformer.options)
    if name == "affine":
        return _affine(options), [0, 1], np.zeros(2)
    if name not in ("dsf", "mean"):
        refuse("Pyro", f"{name} transformers", "fit a -dsf model")
    units = layer.transformer.count // 3
    if options.get("clip"):
        refuse("Pyro", "the clipping of the NAF authors' code", "fit with the option clip=0")
    if options.get("floor", SLOPE_FLOOR) != 0:
        refuse("Pyro", "slopes with a floor", "fit with the option floor=0")
    steepness = options.get("steepness", 1.0)
    if steepness not in (1.0, 2.0):
        refuse("Pyro", f"sigmoids of steepness {steepness:g}", "fit with the option steepness=1")
    if options.get("epsilon", 0.0) not in (0.0, PYRO.eps):
        refuse("Pyro", "an epsilon other than 1e-8", "fit with the option epsilon=0")
    activations = {"elu": "ELU", "leakyrelu": "LeakyReLU"}
    activation = activations[options["activation"]] if name == "mean" else {1.0: "sigmoid", 2.0: "tanh"}[steepness]
    each = np.arange(units)
    order = np.concatenate([each, 2 * units + each, units + each]).tolist()
    settings = {"name": "NeuralAutoregressive", "activation": activation, "hidden_units": units}
    return settings, order, np.repeat([float(inverse_softplus(1.0)), 0.0, 0.0], units)


def _affine(options: dict[str, Any]) -> dict[str, Any]:
    form, how = options["form"], options.get("how", "tanh")
    settings: dict[str, Any] = {"name": "AffineAutoregressive"}
    if form == "gated" and how == "none" and not options.get("clip"):
        return {**settings, "stable": True, "sigmoid_bias": 0.0}
    if form == "gated":
        refuse("Pyro", f"gates with how={how} or a clip", "fit with the option how=none")
    if form != "exp":
        refuse("Pyro", f"affine layers of form {form}", "fit with the option form=exp and how=clamp, or form=gated")
    if how not in ("clamp", "none"):
        refuse("Pyro", f"log-scales bent by {how}", "fit with the option how=clamp")
    widest = sys.float_info.max
    low, high = limits(options.get("limit", LOG_SCALE_BOUND)) if how == "clamp" else (-widest, widest)
    return {**settings, "log_scale_min_clip": float(low), "log_scale_max_clip": float(high)}


def _context_first(net: Network, layer: Autoregressive) -> Masked:
    """The network with the context in the first columns of its first layer, which alone reads it in Pyro."""
    if net.gains:
        refuse("Pyro", "gains that depend on the context", "fit with the option gains=False")
    if not net.contexts:
        return Masked(net.weights, net.biases, net.masks)
    count = layer.context_dim
    first = np.concatenate([net.contexts[0], net.weights[0]], axis=1)
    first_mask = np.concatenate([np.ones(net.contexts[0].shape), net.masks[0]], axis=1)
    side = Masked([first, *net.weights[1:]], net.biases, [first_mask, *net.masks[1:]])
    later = {k: (context, np.ones(context.shape)) for k, context in enumerate(net.contexts) if k and context.any()}
    if later and layer.activation != "relu":
        refuse("Pyro", "a context that is read by every layer", "fit with the option activation=relu")
    return carry(side, range(count), later) if later else side


def _network(net: Masked, layer: Autoregressive, order: list[int]) -> dict[str, np.ndarray]:
    """(Conditional)AutoRegressiveNN's state; its outputs are parameter-major, row ``p D + i``."""
    narrow = min(len(weight) for weight in net.weights[:-1])
    if narrow < layer.dim:
        refuse("Pyro", f"{narrow} hidden units for {layer.dim} columns", f"fit with at least {layer.dim} in each layer")
    dim, count = layer.dim, len(order)
    # Pyro's p-th parameter stands in row order.index(p) of each of our dimensions
    rows = (np.argsort(order)[:, None] + count * np.arange(dim)).reshape(-1)
    found: dict[str, np.ndarray] = {"permutation": np.argsort(layer.ranks)}
    for k, (weight, bias, mask) in enumerate(zip(*net, strict=True)):
        if k == len(net.weights) - 1:
            weight, bias, mask = weight[rows], bias[rows], mask[rows]
        found |= {f"layers.{k}.weight": weight * mask, f"layers.{k}.bias": bias, f"layers.{k}.mask": mask.astype(float)}
    return found


def _affine_transform(step: Step) -> dict[str, Any]:
    """A Triangular layer that is a scale and a shift alone."""
    params = step.params
    if params["lower"].any() or ("context" in params and params["context"].any()):
        refuse("Pyro", "a triangular layer that mixes columns", "export a flow without one")
    scale, shift = np.exp(params["log_diagonal"]), params["shift"]
    loc, scale = (shift, scale) if step.inverted else (-shift / scale, 1 / scale)
    return {"name": "AffineTransform", "loc": loc.tolist(), "scale": scale.tolist()}


def _planar(step: Step) -> Exported:
    u, w = step.params["u"], step.params["w"]
    square, along = w @ w, w @ u
    if not square > 0:
        refuse("Pyro", "a planar layer whose w is 0", "export a fitted flow")
    # the part of u along w for which softplus has our slope
    inner = float(inverse_softplus(slopes(along)))
    return {"name": "Planar"}, {"bias": step.params["b"], "u": u + (inner - along) / square * w, "w": w}


def _block(step: Step) -> Exported:
    layer = step.layer
    if layer.residual == "linear":
        refuse("Pyro", "bnaf's linear residual form", "fit with the option residual=gated or residual=normal")
    if layer.leak:
        refuse("Pyro", "a tanh with a leak", "fit with the option leak=0")
    if layer.epsilon not in (0.0, PYRO.eps):
        refuse("Pyro", "an epsilon other than 1e-8", "take epsilon=0")
    state: dict[str, np.ndarray] = {}
    for k, (below, here) in enumerate(layer.sizes):
        raw, gain = step.params[f"weight.{k}"], step.params[f"gain.{k}"]
        inside, before = masks(layer.dim, here, below)
        norm = np.sqrt(np.sum((np.exp(raw * inside) * inside + raw * before) ** 2, axis=1))
        state |= {
            f"layers.{k}._weight": raw,
            f"layers.{k}._diag_weight": (gain if layer.epsilon else gain + np.log1p(PYRO.eps / norm))[:, None],
            f"layers.{k}.bias": step.params[f"bias.{k}"],
            f"layers.{k}.mask_d": np.array(inside),
            f"layers.{k}.mask_o": np.array(before),
        }
    if layer.residual == "gated":
        state["gate"] = -step.params["gate"]
    residual = None if layer.residual == "none" else layer.residual
    settings = {"name": "BlockAutoregressive", "residual": residual, "hidden_factors": list(layer.hidden)}
    return settings, state
