"""Models by name, and how each is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.planar import Planar
from refnaf.flows.transformers import TRANSFORMERS


class _Model(NamedTuple):
    """What makes a model's layers, and the functions whose parameters with a default are its options."""

    make: Callable[..., list[Layer]]
    takes: tuple[Callable[..., Any], ...] = ()


def _gaussian(dim: int, context_dim: int) -> list[Layer]:
    return [Triangular(dim, context_dim)]


def _permuted(layers: list[Layer], permutation: str, seed: int) -> list[Layer]:
    """The layers with a permutation between each two, where there is anything to permute."""
    if permutation not in ("reversed", "random", "none"):
        raise ValueError(f"permutation must be 'reversed', 'random' or 'none', not {permutation!r}")
    dim, context_dim = layers[0].dim, layers[0].context_dim
    if dim == 1 or permutation == "none":
        return layers
    rng = np.random.default_rng(seed)
    out = layers[:1]
    for layer in layers[1:]:
        order = rng.permutation(dim).tolist() if permutation == "random" else "reversed"
        out += [Permutation(dim, context_dim, order=order), layer]
    return out


def _stack(
    transformer: str,
    direction: str,
    dim: int,
    context_dim: int,
    *,
    flows: int = 5,
    hidden: Sequence[int] = (64, 64),
    activation: str = "elu",
    permutation: str = "reversed",
    seed: int = 0,
    channels: int | None = None,
    bound: float | None = 10.0,
    gains: bool = False,
    linear: bool = False,
    **transformer_options: Any,
) -> list[Layer]:
    layers: list[Layer] = []
    for _ in range(flows):
        layer: Layer = Autoregressive(
            dim,
            context_dim,
            transformer_config={"name": transformer, **transformer_options},
            hidden=hidden,
            activation=activation,
            channels=channels,
            bound=bound,
            gains=gains,
        )
        layers.append(Inverse(dim, context_dim, layer=layer) if direction == "iaf" else layer)
    first: list[Layer] = [Triangular(dim, context_dim, fixed=True)] if linear else []
    return first + _permuted(layers, permutation, seed)


def _autoregressive(transformer: str, direction: str = "maf", **defaults: Any) -> _Model:
    def make(dim: int, context_dim: int, **options: Any) -> list[Layer]:
        return _stack(transformer, direction, dim, context_dim, **{**defaults, **options})

    return _Model(make, (_stack, TRANSFORMERS[transformer].__init__))


def _maf_mog(dim: int, context_dim: int, *, flows: int = 5, components: int = 10, **options: Any) -> list[Layer]:
    layers = _stack("affine", "maf", dim, context_dim, flows=flows + 1, **options)
    mixture = {"name": "mog", "components": components}
    layers[-1] = Autoregressive(dim, context_dim, **{**layers[-1].config(), "transformer_config": mixture})
    return layers


def _planar(
    dim: int, context_dim: int, *, flows: int = 32, direction: str = "density", bound: float | None = 10.0
) -> list[Layer]:
    if direction not in ("density", "sampling"):
        raise ValueError(f"direction must be 'density' or 'sampling' (the one that takes one pass), not {direction!r}")
    layers = [Planar(dim, context_dim, bound=bound) for _ in range(flows)]
    return [Inverse(dim, context_dim, layer=layer) if direction == "sampling" else layer for layer in layers]


def _bnaf(
    dim: int,
    context_dim: int,
    *,
    flows: int = 3,
    hidden: Sequence[int] = (16, 16),
    residual: str = "linear",
    leak: float = 0.0,
    permutation: str = "reversed",
    seed: int = 0,
) -> list[Layer]:
    forms = [residual] * flows if residual != "published" else ["gated"] * (flows - 1) + ["none"]
    layers: list[Layer] = [Block(dim, context_dim, hidden=hidden, residual=form, leak=leak) for form in forms]
    return _permuted(layers, permutation, seed)


_MODELS: dict[str, _Model] = {
    "gaussian": _Model(_gaussian),
    "made": _autoregressive("affine", flows=1),
    "made-mog": _autoregressive("mog", flows=1),
    "maf": _autoregressive("affine"),
    "maf-mog": _Model(_maf_mog, (_stack, TRANSFORMERS["affine"].__init__, _maf_mog)),
    "iaf": _autoregressive("affine", "iaf", form="gated"),
    "planar": _Model(_planar, (_planar,)),
    "maf-dsf": _autoregressive("dsf"),
    "maf-ddsf": _autoregressive("ddsf"),
    "iaf-dsf": _autoregressive("dsf", "iaf"),
    "iaf-ddsf": _autoregressive("ddsf", "iaf"),
    "bnaf": _Model(_bnaf, (_bnaf,)),
}


def model_options(model: str) -> list[str]:
    """Names of the options a model takes, and "seed" where it needs one."""
    parameters = [item for function in _MODELS[model].takes for item in inspect.signature(function).parameters.items()]
    return list(dict.fromkeys(name for name, p in parameters if p.default is not inspect.Parameter.empty))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the right types, or one clear ValueError."""
    checked = dict(options)
    for name in ("flows", "units", "layers", "channels", "components"):
        number = options.get(name)
        if number is not None and (not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
    if "hidden" in options:
        hidden = options["hidden"]
        widths = [hidden] if isinstance(hidden, (int, np.integer)) else hidden
        if isinstance(widths, str) or not all(isinstance(h, (int, np.integer)) and h > 0 for h in widths):
            raise ValueError(f"hidden must be positive widths such as (64, 64), got {hidden!r}")
        checked["hidden"] = [int(h) for h in widths]
    bound = options.get("bound")
    if bound is not None and (not isinstance(bound, (int, float)) or not bound > 0):
        raise ValueError(f"bound must be a positive number or None, got {bound!r}")
    return checked


def models() -> tuple[str, ...]:
    """Names of the models that :func:`build` and ``fit`` know."""
    return tuple(_MODELS)


def build(model: str, dim: int, context_dim: int = 0, seed: int = 0, dtype: str = "float32", **options: Any) -> Flow:
    """An unfitted flow, close to the identity.

    Options of autoregressive models: ``flows`` (layers, 5; 1 for made and made-mog; maf-mog's mixture comes on top),
    ``hidden`` (widths of the conditioner, (64, 64)), ``activation`` (elu, relu, tanh), ``permutation`` between layers
    (reversed, random, none), ``channels`` (None for pseudo-parameters straight from the network, or C for the authors'
    narrow form), ``bound`` and ``gains`` (see :class:`~refnaf.flows.autoregressive.Autoregressive`), ``linear``
    (whether a lower triangular linear map comes first, which fit sets to whiten the rows). Of affine models
    ``form`` (exp, softplus, gated); of ``-mog`` models ``components`` (10); of ``-dsf`` and ``-ddsf`` models ``units``
    (16); of ``-ddsf`` ``layers`` (2). Of ``planar``: ``flows`` (32), ``direction`` (which one takes one pass: density,
    or sampling for variational inference), ``bound``. Of ``bnaf``: ``flows`` (3), ``hidden`` (units a dimension,
    (16, 16)), ``permutation``, ``leak`` and ``residual`` (linear, gated, normal or none, see
    :class:`~refnaf.flows.block.Block`; or published: gated, and none in the last, whose bounded image loses a part of
    the noise).

    Raises ValueError for an unknown model, option or a bad value.
    """
    if model not in _MODELS:
        raise ValueError(f"model must be one of {', '.join(_MODELS)}, not {model!r}")
    if dim < 1 or context_dim < 0:
        raise ValueError(f"a model needs at least one column and no negative context, got {dim} and {context_dim}")
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, not {dtype}")
    takes = model_options(model)
    known = [name for name in takes if name != "seed"]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"model {model} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    options = _checked(options) | ({"seed": seed} if "seed" in takes else {})
    body = _MODELS[model].make(dim, context_dim, **options)
    layers: list[Layer] = [Standardise(dim, context_dim, dtype=np.dtype(dtype).name), *body]
    rng = np.random.default_rng(seed)
    params = {f"{k}.{name}": a for k, layer in enumerate(layers) for name, a in layer.initial(rng).items()}
    return Flow(layers, params, model=model, dtype=dtype)
