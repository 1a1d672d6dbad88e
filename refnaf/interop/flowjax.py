"""Weights of flowjax (Ward 2023): masked_autoregressive_flow, block_neural_autoregressive_flow and planar_flow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.planar import Planar
from refnaf.interop.conventions import FLOWJAX
from refnaf.interop.parts import normal_base, side_by_side
from refnaf.interop.states import arrays_of, refuse_rest
from refnaf.reference._numpy import np, value
from refnaf.reference.block import masks as block_masks
from refnaf.reference.made import ACTIVATIONS
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus, softplus

Built = tuple[Layer, dict[str, Any]]

_MLP = "masked_autoregressive_mlp.layers"
#: The first weight of a block network.
_BLOCK = "layers[0][0].weight"
#: A block network's leaves, which stand within those of its NumericalInverse.
_INVERTED = re.compile(r"\.bijection(?=\.(layers\[|cond_linear\.|activation\.|depth$|block_dim$))")
#: Shapes of the parts, which repeat those of the whole.
_SHAPES = re.compile(
    r"\.(base_dist|bijection)(\.base_dist|\.bijection|\.bijections\[\d+\])*\.(shape|cond_shape)\[\d+\]"
)
_REMEDY = (
    "pass {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(flow) "
    "if equinox.is_array_like(v)}"
)


class _Stack(NamedTuple):
    """The layers of a flow: all of one kind, in arrays whose first axis is the layer."""

    dim: int
    context_dim: int
    #: Whether data become noise by the layers' own direction (flowjax's ``invert=True``), and not by their inverses.
    density: bool
    transforms: list[dict[str, Any]]
    #: The permutation behind each transform, if there is one.
    permutations: list[Any]


def from_flowjax(
    state: Mapping[str, Any], *, activation: str = "relu", min_scale: float = FLOWJAX.min_scale, dtype: str = "float64"
) -> Flow:
    """The flow of a ``flowjax.flows.masked_autoregressive_flow``, ``block_neural_autoregressive_flow`` or
    ``planar_flow``, as arrays.

    Parameters
    ----------
    state : mapping of the paths of the flow's leaves to arrays and numbers, made by one line::

            {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(flow)
             if equinox.is_array_like(v)}

        from the flow as flowjax made or trained it (not unwrapped). ``NonTrainable`` parts are taken like others. The
        paths tell ``invert``, dimensions, masks, permutations and the base: a Normal or StandardNormal.
    activation : of the masked network, which the state does not tell: "relu" (flowjax's default), "elu" or "tanh". The
        state of a block network tells flowjax's own, ``tanh(z) + 0.01 z``; of one made with another, "tanh".
    min_scale : of the affine transformer; 0 for a ``flowjax.bijections.Affine()`` given as the transformer.
    dtype : of the flow, float64 or float32.

    Returns a Flow with flowjax's numbers; ``flow.forward`` is the way from data to the base, whatever ``invert``. Block
    networks are inverted to the last digits, where flowjax's search stops earlier.

    Raises ValueError for other paths, and for what cannot be represented: other transformers than the affine one, the
    leaky ReLU or the context of planar flows, block networks with no hidden layer, coupling flows, spline flows.
    """
    built = _build(arrays_of(state), activation, min_scale)
    params = {f"{k}.{name}": array for k, (_, own) in enumerate(built) for name, array in own.items()}
    layers = [layer for layer, _ in built]
    inverted = any(isinstance(layer, Inverse) for layer in layers)
    marks = {"planar": ".params", "bnaf": f"{_BLOCK}.weight.args[0]"}
    special = [model for model, mark in marks.items() if any(name.endswith(mark) for name in state)]
    return Flow(layers, params, model=special[0] if special else "iaf" if inverted else "maf", dtype=dtype)


def parameters(
    state: Mapping[str, Any], *, activation: str = "relu", min_scale: float = FLOWJAX.min_scale
) -> dict[str, Any]:
    """The parameters of :func:`from_flowjax`'s flow. autograd differentiates them by the state."""
    built = _build(dict(state), activation, min_scale)
    return {f"{k}.{name}": array for k, (_, own) in enumerate(built) for name, array in own.items()}


def _build(state: dict[str, Any], activation: str, min_scale: float) -> list[Built]:
    """The layers from data to base, standardisation first, and the parameters of each by local name."""
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation must be one of {known}, not {activation!r}: others cannot be represented")
    if not 0 <= min_scale < 1:
        raise ValueError(f"min_scale must be at least 0 and less than 1, got {min_scale}")
    state = {re.sub(r"\.tree(?=[.\[]|$)", "", name): array for name, array in state.items()}
    if any(name.endswith((".scale", f"{_MLP}[0].weight", _BLOCK)) for name in state):
        raise ValueError("the flow's parameters are unwrapped and lack the masks; pass it as before paramax.unwrap")
    state = {_INVERTED.sub("", name): array for name, array in state.items()}
    loc, scale = (state.pop(f".base_dist.bijection.{name}", None) for name in ("loc", "scale.args[0]"))
    stack = _stack(state)
    dim, context_dim = stack.dim, stack.context_dim
    body: list[Built] = []
    for own, order in zip(stack.transforms, stack.permutations, strict=True):
        layer, numbers = _transform(own, stack, activation, min_scale)
        body.append((layer if stack.density else Inverse(dim, context_dim, layer=layer), numbers))
        if order is not None:
            places = order if stack.density else numpy.argsort(order)
            body.append((Permutation(dim, context_dim, order=places.tolist()), {}))
    built: list[Built] = [(Standardise(dim, context_dim), {}), *(body if stack.density else reversed(body))]
    if scale is not None:
        scale = softplus(scale)
        if (value(loc) != 0).any() or (abs(value(scale) - 1) > 4 * numpy.finfo(float).eps).any():
            built.append((Triangular(dim, context_dim), normal_base(loc, scale, context_dim)))
    return built


def _stack(state: Mapping[str, Any]) -> _Stack:
    if ".bijection.shape[0]" not in state:
        raise ValueError(f"this is no state of a flow of flowjax.flows: it lacks .bijection.shape[0]; {_REMEDY}")
    dim, context_dim = (int(state.get(f".bijection.{name}[0]", 0)) for name in ("shape", "cond_shape"))
    parts: dict[int, dict[str, Any]] = {}
    depths, chained = set(), False
    for name, array in state.items():
        chained = chained or ".bijections[" in name
        if _SHAPES.fullmatch(name):
            continue
        match = re.fullmatch(r"\.bijection((?:\.bijection)+)(?:\.bijections\[(\d+)\])?\.(.+)", name)
        if not match:
            raise ValueError(f"{name!r} cannot be represented: the base must be Normal, the flow one of flowjax.flows")
        depths.add(match[1].count("bijection"))
        parts.setdefault(int(match[2] or 0), {})[match[3]] = array
    own, behind = parts.pop(0, {}), parts.pop(1, {})
    _refuse(own)
    if parts or len(depths) != 1 or depths > {1, 2}:
        raise ValueError("this flow's layers cannot be represented: expected a transform and a permutation each")
    arrays = {name: array for name, array in own.items() if value(array).ndim}
    count = value(next(iter(arrays.values()))).shape[0]
    order = behind.pop("permutation[0]", None)
    behind.pop("inverse_permutation[0]", None)
    refuse_rest(behind, "what stands behind flowjax's transform")
    orders: list[Any] = [None] * count
    if chained:  # a Flip has no arrays
        orders = [numpy.arange(dim)[::-1]] * count if order is None else [value(row) for row in order]
    # the numbers of an activation may be one for all layers
    arrays |= {name: numpy.full(count, array) for name, array in own.items() if name in _activation(own) - set(arrays)}
    transforms = [{name: array[k] for name, array in arrays.items()} for k in range(count)]
    return _Stack(dim, context_dim, depths == {2}, transforms, orders)


def _refuse(own: Mapping[str, Any]) -> None:
    """Raises ValueError, by name, for transforms that cannot be represented."""
    what = None
    if "untransformed_dim" in own:
        what = "a coupling flow"
    elif "negative_slope" in own:
        what = "a planar flow with a leaky ReLU (negative_slope)"
    elif any(name.startswith("conditioner.") for name in own):
        what = "a planar flow whose parameters are an MLP of the condition"
    elif f"{_BLOCK}.weight.args[0]" in own and "layers[1][0].bias" not in own:
        what = "a block neural autoregressive flow with no hidden layer (nn_depth=0)"
    elif _activation(own) - {"activation.min_grad"}:
        what = "a block neural autoregressive flow with another activation than tanh or flowjax's own"
    elif not {"params", f"{_MLP}[0].weight.args[0]", f"{_BLOCK}.weight.args[0]"} & set(own):
        what = "a flow of other layers than MaskedAutoregressive, BlockAutoregressiveNetwork or Planar"
    if what:
        raise ValueError(
            f"this is {what}, which cannot be represented: masked_autoregressive_flow, "
            "block_neural_autoregressive_flow and planar_flow with tanh can"
        )


def _activation(own: Mapping[str, Any]) -> set[str]:
    """Names of a block network's activation."""
    return {name for name in own if name.startswith("activation.")}


def _transform(state: dict[str, Any], stack: _Stack, activation: str, min_scale: float) -> Built:
    if "params" in state:
        planar = _planar(state.pop("params"), stack)
        refuse_rest(state, "flowjax's Planar")
        return Planar(stack.dim, stack.context_dim), planar
    if f"{_BLOCK}.weight.args[0]" in state:
        return _block(state, stack, activation)
    depth = sum(name.endswith(".bias") for name in state)
    masks, weights = ([state.pop(f"{_MLP}[{k}].weight.args[{j}]") for k in range(depth)] for j in (0, 1))
    biases = [state.pop(f"{_MLP}[{k}].bias") for k in range(depth)]
    refuse_rest(state, "flowjax's MaskedAutoregressive")
    options, numbers = side_by_side(stack.dim, weights, biases, masks)
    count = value(biases[-1]).shape[0] // stack.dim
    if count != 2:
        raise ValueError(f"the transformer has {count} parameters, expected 2: only the affine one can be represented")
    affine = {"name": "affine", "form": "softplus", "floor": min_scale}
    layer = Autoregressive(stack.dim, stack.context_dim, transformer_config=affine, activation=activation, **options)
    return layer, numbers


def _block(state: dict[str, Any], stack: _Stack, activation: str) -> Built:
    """A block network: ``w = softplus(W)`` within a dimension, rows of the length ``softplus(scale)``."""
    if "activation.min_grad" not in state and activation != "tanh":
        raise ValueError(
            f"the state does not tell the activation of this block network, and {activation} cannot be represented: "
            "pass activation='tanh' if it is tanh"
        )
    leak = float(value(state.pop("activation.min_grad", 0.0)))
    dim = stack.dim
    hidden: list[int] = []
    numbers: dict[str, Any] = {}
    depth = sum(name.endswith(".bias") for name in state)
    for k in range(depth):
        name = f"layers[{k}][0]"
        weight, scale = (state.pop(f"{name}.weight.{part}.args[0]") for part in ("weight", "scale"))
        rows, columns = (size // dim for size in value(weight).shape)
        inside, before = block_masks(dim, rows, columns)
        numbers[f"weight.{k}"] = np.log(softplus(weight * inside)) * inside + weight * before
        numbers[f"gain.{k}"] = np.log(softplus(scale[:, 0]))
        numbers[f"bias.{k}"] = state.pop(f"{name}.bias")
        if stack.context_dim:
            numbers[f"context.{k}"] = numpy.zeros((dim * rows, stack.context_dim))
        hidden.append(rows)
    if stack.context_dim:
        numbers["context.0"] = state.pop("cond_linear.weight")
    refuse_rest(state, "flowjax's BlockAutoregressiveNetwork")
    layer = Block(dim, stack.context_dim, hidden=hidden[:-1], residual="none", leak=leak, bound=None)
    return layer, numbers


def _planar(params: Any, stack: _Stack) -> dict[str, Any]:
    """w, u and b of :class:`Planar` from theirs.

    Both move u along w; ``1 + w'u^`` is ``log(1 + softplus(w'u))`` there, and :func:`.stable.slopes` of ``w'u`` here.
    """
    w, u, b = params[: stack.dim], params[stack.dim : -1], params[-1:]
    along = np.dot(w, u)
    slope = np.log1p(softplus(along))
    if value(slope) <= SLOPE_FLOOR or not value(w).any():
        raise ValueError("a planar layer is flat, or its w is 0, and cannot be represented: its w'u is below -13")
    raw = inverse_softplus(slope - SLOPE_FLOOR) - inverse_softplus(1 - SLOPE_FLOOR)
    return {"u": u + w * ((raw - along) / np.dot(w, w)), "w": w, "b": b}
