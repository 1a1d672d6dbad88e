"""Models by name, and how each is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.conditionals import LAM, RAM
from refnaf.flows.fixed import Permutation, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.linear import LU
from refnaf.flows.planar import Planar
from refnaf.flows.recurrent import Recurrent
from refnaf.flows.transformers import TRANSFORMERS


class _Model(NamedTuple):
    """What makes a model's layers, and the functions whose parameters with a default are its options."""

    make: Callable[..., list[Layer]]
    takes: tuple[Callable[..., Any], ...] = ()


def _gaussian(dim: int, context_dim: int) -> list[Layer]:
    return [Triangular(dim, context_dim)]


def _permuted(groups: Sequence[Sequence[Layer]], permutation: str, seed: int) -> list[Layer]:
    """The groups' layers with a permutation between each two groups, where there is anything to permute."""
    if permutation not in ("reversed", "random", "none"):
        raise ValueError(f"permutation must be 'reversed', 'random' or 'none', not {permutation!r}")
    rng = np.random.default_rng(seed)
    out: list[Layer] = []
    for group in groups:
        dim, context_dim = group[0].dim, group[0].context_dim
        if out and dim > 1 and permutation != "none":
            order = rng.permutation(dim).tolist() if permutation == "random" else "reversed"
            out.append(Permutation(dim, context_dim, order=order))
        out += group
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
    return first + _permuted([[layer] for layer in layers], permutation, seed)


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
    return _permuted([[layer] for layer in layers], permutation, seed)


#: The conditional models of TAN, and the words of its transformations.
CONDITIONALS = ("ram", "lam")
WORDS = ("L", "RNN", "SRNN")


def _tan(
    dim: int,
    context_dim: int,
    *,
    conditional: str = "ram",
    transformation: str = "L SRNN",
    flows: int = 4,
    state: int = 32,
    hidden: Sequence[int] = (64,),
    components: int = 10,
    activation: str = "elu",
    bound: float | None = 10.0,
    permutation: str = "reversed",
    seed: int = 0,
    linear: bool = False,
) -> list[Layer]:
    if conditional not in CONDITIONALS:
        raise ValueError(f"conditional must be one of {', '.join(CONDITIONALS)}, not {conditional!r}")
    words = [] if transformation == "none" else transformation.replace("+", " ").split()
    if transformation != "none" and (not words or set(words) - set(WORDS)):
        raise ValueError(f"transformation must be 'none' or words of {', '.join(WORDS)}, not {transformation!r}")
    make: dict[str, Callable[[], Layer]] = {
        "L": lambda: LU(dim, context_dim),
        "RNN": lambda: Recurrent(dim, context_dim, form="rnn", state=state, bound=bound),
        "SRNN": lambda: Recurrent(dim, context_dim, form="srnn", state=state, bound=bound),
    }
    first: list[Layer] = [Triangular(dim, context_dim, fixed=True)] if linear else []
    mixture = {"name": "mog", "components": components}
    options: dict[str, Any] = {"state": state, "hidden": hidden, "activation": activation, "bound": bound}
    last = (RAM if conditional == "ram" else LAM)(dim, context_dim, transformer_config=mixture, **options)
    groups = [[make[word]() for word in words] for _ in range(flows if words else 0)]
    return [*first, *_permuted(groups, permutation, seed), last]


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
    "tan": _Model(_tan, (_tan,)),
}


def model_options(model: str) -> list[str]:
    """Names of the options a model takes, and "seed" where it needs one."""
    parameters = [item for function in _MODELS[model].takes for item in inspect.signature(function).parameters.items()]
    return list(dict.fromkeys(name for name, p in parameters if p.default is not inspect.Parameter.empty))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the right types, or one clear ValueError."""
    checked = dict(options)
    for name in ("flows", "units", "layers", "channels", "components", "state"):
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

    Of ``tan`` (Transformation Autoregressive Networks, Oliva et al. 2018): ``conditional``, what gives the mixtures of
    the last layer their parameters (ram, a recurrence; lam, a linear map of the dimensions before);
    ``transformation``, what comes before it, in the paper's terms: "none", or words of L (the linear map), RNN (the
    recurrent transformation) and SRNN (the recurrent shift, with a scale) with a space or a plus between, which are
    repeated ``flows`` times with a ``permutation`` between ("L SRNN", 4, reversed); ``state`` (numbers of every state,
    and of lam's linear map, 32), ``hidden`` (widths of the network behind it, (64,); empty for none), ``components``
    (10), ``activation``, ``bound``, ``linear``.

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
