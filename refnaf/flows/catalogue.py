"""Models by name, and how each is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.transformers import TRANSFORMERS


def _gaussian(dim: int, context_dim: int) -> list[Layer]:
    return [Triangular(dim, context_dim)]


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
    **transformer_options: Any,
) -> list[Layer]:
    if permutation not in ("reversed", "random", "none"):
        raise ValueError(f"permutation must be 'reversed', 'random' or 'none', not {permutation!r}")
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    for k in range(flows):
        if k and dim > 1 and permutation != "none":
            order = rng.permutation(dim).tolist() if permutation == "random" else "reversed"
            layers.append(Permutation(dim, context_dim, order=order))
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
    return layers


def _autoregressive(transformer: str, direction: str = "maf", **defaults: Any) -> Callable[..., list[Layer]]:
    def make(dim: int, context_dim: int, **options: Any) -> list[Layer]:
        return _stack(transformer, direction, dim, context_dim, **{**defaults, **options})

    return make


_MODELS: dict[str, Callable[..., list[Layer]]] = {
    "gaussian": _gaussian,
    "made": _autoregressive("affine", flows=1),
    "maf": _autoregressive("affine"),
    "iaf": _autoregressive("affine", "iaf", form="gated"),
    "maf-dsf": _autoregressive("dsf"),
    "maf-ddsf": _autoregressive("ddsf"),
    "iaf-dsf": _autoregressive("dsf", "iaf"),
    "iaf-ddsf": _autoregressive("ddsf", "iaf"),
}


def _options(model: str) -> list[str]:
    """Names of the options a model takes."""
    if model == "gaussian":
        return []
    transformer = TRANSFORMERS[_TRANSFORMER_OF.get(model, "affine")]
    return [
        name
        for function in (_stack, transformer.__init__)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "transformer", "direction", "dim", "context_dim", "seed")
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]


_TRANSFORMER_OF = {"maf-dsf": "dsf", "iaf-dsf": "dsf", "maf-ddsf": "ddsf", "iaf-ddsf": "ddsf"}


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the right types, or one clear ValueError."""
    checked = dict(options)
    for name in ("flows", "units", "layers", "channels"):
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

    Options of all but ``gaussian``: ``flows`` (layers, 5; 1 for made), ``hidden`` (widths of the conditioner,
    (64, 64)), ``activation`` (elu, relu, tanh), ``permutation`` between layers (reversed, random, none), ``channels``
    (None for pseudo-parameters straight from the network, or C for the authors' narrow form), ``bound`` and ``gains``
    (see :class:`~refnaf.flows.autoregressive.Autoregressive`). Of affine models ``form`` (exp, softplus, gated); of ``-dsf``
    and ``-ddsf`` models ``units`` (16); of ``-ddsf`` ``layers`` (2).

    Raises ValueError for an unknown model, option or a bad value.
    """
    if model not in _MODELS:
        raise ValueError(f"model must be one of {', '.join(_MODELS)}, not {model!r}")
    if dim < 1 or context_dim < 0:
        raise ValueError(f"a model needs at least one column and no negative context, got {dim} and {context_dim}")
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, not {dtype}")
    known = _options(model)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"model {model} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    if model != "gaussian":
        options = _checked({"seed": seed, **options})
    body = _MODELS[model](dim, context_dim, **options)
    layers: list[Layer] = [Standardise(dim, context_dim, dtype=np.dtype(dtype).name), *body]
    rng = np.random.default_rng(seed)
    params = {f"{k}.{name}": a for k, layer in enumerate(layers) for name, a in layer.initial(rng).items()}
    return Flow(layers, params, model=model, dtype=dtype)
