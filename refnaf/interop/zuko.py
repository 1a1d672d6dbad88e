"""Weights of zuko (Rozet et al. 2022): the flows MAF and NAF."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Softclip, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.layer import Layer
from refnaf.interop.conventions import ZUKO
from refnaf.interop.parts import normal_base, side_by_side
from refnaf.interop.states import arrays_of, refuse_rest
from refnaf.reference._numpy import np, value
from refnaf.reference.made import ACTIVATIONS

#: What marks the transforms of other flows of the library, among the names of their state.
_OTHERS = {
    "mask": "a coupling flow, such as NICE",
    "A": "a GF",
    "ode.0.weight": "a CNF",
    "univariate.integrand.0.weight": "a UNAF",
}

Built = tuple[Layer, dict[str, Any]]


class _Sizes(NamedTuple):
    """What the parts of a flow have in common."""

    dim: int
    context_dim: int


def from_zuko(
    state: Mapping[str, Any], *, activation: str = "relu", slope: float = ZUKO.slope, dtype: str = "float64"
) -> Flow:
    """The flow of a ``zuko.flows.MAF``'s or ``NAF``'s ``state_dict``, as arrays.

    Parameters
    ----------
    state : mapping of name to array, as the flow's ``state_dict()`` has them, for any number of features and of context
        features, any order of the features or passes, and plain or residual networks. A place without a name between
        the transforms of a NAF is its SoftclipTransform, which has no numbers of its own.
    activation : of the networks that read the features, which the state does not tell: "relu" (zuko's default), "elu"
        or "tanh".
    slope : MAF's MonotonicAffineTransform keeps its slopes between this and its reciprocal.
    dtype : of the flow, float64 or float32.

    Returns a Flow with zuko's numbers for ``log_prob`` and ``transform``. Its inverse finds the root of a NAF to
    machine precision; zuko bisects [-10, 10] to 1e-6. The soft clips between a NAF's transforms bound its image: see
    :class:`~refnaf.flows.fixed.Softclip` for base points outside.

    Raises ValueError for names that do not belong to these flows, and for what cannot be represented.
    """
    built = _build(arrays_of(state), activation, slope)
    params = {f"{k}.{name}": array for k, (_, own) in enumerate(built) for name, array in own.items()}
    model = "maf-monotonic" if any(".univariate.network." in name for name in state) else "maf"
    return Flow([layer for layer, _ in built], params, model=model, dtype=dtype)


def parameters(state: Mapping[str, Any], *, activation: str = "relu", slope: float = ZUKO.slope) -> dict[str, Any]:
    """The parameters of :func:`from_zuko`'s flow. autograd differentiates them by the state."""
    built = _build(dict(state), activation, slope)
    return {f"{k}.{name}": array for k, (_, own) in enumerate(built) for name, array in own.items()}


def _build(state: dict[str, Any], activation: str, slope: float) -> list[Built]:
    """The layers, standardisation first, and the parameters of each by local name."""
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation must be one of {known}, not {activation!r}: others cannot be represented")
    if not 0 < slope < 1:
        raise ValueError(f"slope must be between 0 and 1, the least slope of MAF's transform, got {slope}")
    # by keyword in zuko's own flows, by position in those of earlier versions
    names = {"loc": "loc", "scale": "scale", "_0": "loc", "_1": "scale"}
    base = {what: state.pop(f"base.{name}") for name, what in names.items() if f"base.{name}" in state}
    places = _places(state)
    sizes = _sizes(places, base)
    built: list[Built] = [(Standardise(sizes.dim, sizes.context_dim), {})]
    for k in range(max(places) + 1):
        if k in places:
            built.append(_transform(places[k], sizes, activation, slope))
        elif all("univariate.network.0.weight" in own for own in places.values()):
            built.append((Softclip(sizes.dim, sizes.context_dim, bound=ZUKO.softclip), {}))
        else:
            raise ValueError(f"the transform at place {k} has no numbers: only a NAF's soft clip can be represented")
    if base:
        loc, scale = base.get("loc", numpy.zeros(sizes.dim)), base.get("scale", numpy.ones(sizes.dim))
        if (value(loc) != 0).any() or (value(scale) != 1).any():
            triangular = Triangular(sizes.dim, sizes.context_dim)
            built.append((triangular, normal_base(loc, scale, sizes.context_dim)))
    return built


def _places(state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The state of each transform, by its place."""
    found: dict[int, dict[str, Any]] = {}
    for name, array in state.items():
        match = re.fullmatch(r"transform\.(?:transforms\.(\d+)\.)?(.+)", name)
        if not match:
            raise ValueError(f"this is no state of zuko's MAF or NAF: the name {name!r} belongs to neither")
        found.setdefault(int(match[1] or 0), {})[match[2]] = array
    if not found:
        raise ValueError("the state is empty: pass the state_dict of a zuko.flows.MAF or NAF as arrays")
    for own in found.values():
        for mark, what in _OTHERS.items():
            if mark in own:
                raise ValueError(f"this is the state of {what}, which cannot be represented: only MAF and NAF can")
    return found


def _sizes(places: Mapping[int, Mapping[str, Any]], base: Mapping[str, Any]) -> _Sizes:
    known = [*base.values(), *(own[name] for own in places.values() for name in ("order", "phi.0") if name in own)]
    if not known:
        raise ValueError("the state does not tell the number of features: pass the whole flow's, with base.loc")
    dim = value(known[0]).shape[0]
    contexts = set()
    for own in places.values():
        if "hyper.0.weight" in own:
            contexts.add(value(own["hyper.0.weight"]).shape[1] - (dim if "hyper.0.mask" in own else 0))
    if len(contexts) > 1:
        raise ValueError(f"the transforms read contexts of different widths ({sorted(contexts)}): check the state")
    return _Sizes(dim, contexts.pop() if contexts else 0)


def _transform(state: dict[str, Any], sizes: _Sizes, activation: str, slope: float) -> Built:
    """One (Masked)AutoregressiveTransform or ElementWiseTransform, every name of its state used."""
    state = {name: array for name, array in state.items() if name != "order"}
    network = _indices(state, r"univariate\.network\.(\d+)\.weight")
    shared: dict[str, Any] = {}
    transformer: dict[str, Any] = {"name": "affine", "form": "exp", "how": "squash", "limit": -math.log(slope)}
    count = 2
    if network:
        if network != list(range(0, 2 * len(network), 2)):
            raise ValueError(f"an MNN's layers must alternate with activations, but stand at the places {network}")
        shared = _shared(state, network, sizes.dim)
        widths = [value(shared[f"shared.{2 * k}"]).shape[1] for k in range(len(network) - 1)]
        count = value(shared["shared.0"]).shape[2] - 1
        transformer = {"name": "monotonic", "signal": count, "hidden": widths}
    options, numbers = _phi(state, sizes) if "phi.0" in state else _network(state, sizes)
    refuse_rest(state, "a transform of zuko")
    found = value(numbers[f"bias.{len(options['hidden'])}"]).shape[0]
    if found != count * sizes.dim:
        raise ValueError(
            f"a transform has {found / sizes.dim:g} numbers a feature, expected {count}: of zuko's autoregressive "
            "flows only MAF and NAF can be represented"
        )
    layer = Autoregressive(
        sizes.dim, sizes.context_dim, transformer_config=transformer, activation=activation, **options
    )
    return layer, {**numbers, **shared}


def _indices(state: Mapping[str, Any], pattern: str) -> list[int]:
    return sorted({int(m[1]) for name in state if (m := re.fullmatch(pattern, name))})


def _shared(state: dict[str, Any], network: Sequence[int], dim: int) -> dict[str, Any]:
    """The monotone network's weights and biases, a set for each feature."""
    found: dict[str, Any] = {}
    for k, place in enumerate(network):
        for j, name in enumerate(("weight", "bias")):
            array = state.pop(f"univariate.network.{place}.{name}")
            if value(array).ndim == 2 - j:  # one set for all
                array = np.stack([array] * dim)
            found[f"shared.{2 * k + j}"] = array
    return found


def _phi(state: dict[str, Any], sizes: _Sizes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pseudo-parameters that depend on nothing, as of a single feature without a context."""
    rows = [np.reshape(state.pop(f"phi.{k}"), (sizes.dim, -1)) for k in _indices(state, r"phi\.(\d+)")]
    bias = np.reshape(np.concatenate(rows, axis=1), -1)
    mask = numpy.zeros((value(bias).shape[0], sizes.dim + sizes.context_dim))
    return side_by_side(sizes.dim, [mask], [bias], [mask])


def _network(state: dict[str, Any], sizes: _Sizes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The masked network, plain or residual; or one that reads the context alone."""
    names, linear, skips = _wiring(state)
    weights = [state.pop(f"{name}.weight") for name in names]
    biases = [state.pop(f"{name}.bias") for name in names]
    if f"{names[0]}.mask" in state:
        masks = [value(state.pop(f"{name}.mask")) for name in names]
    else:
        outside = numpy.zeros((value(weights[0]).shape[0], sizes.dim))
        weights[0] = np.concatenate([outside, weights[0]], axis=1)
        masks = [numpy.ones(value(weight).shape) for weight in weights]
        masks[0][:, : sizes.dim] = 0
    options, numbers = side_by_side(sizes.dim, weights, biases, masks)
    return {**options, **({"linear": linear, "skips": skips} if skips else {})}, numbers


def _wiring(state: Mapping[str, Any]) -> tuple[list[str], list[int], list[tuple[int, int]]]:
    """Names of the linear maps, the hidden layers that have no activation, and skips as pairs (to, from).

    A residual network is linear maps and blocks ``h + B act(A h)``, with activations inside the blocks only.
    """
    places = _indices(state, r"hyper\.(\d+)\..+")
    blocks = _indices(state, r"hyper\.(\d+)\.0\.weight")
    if places != (list(range(len(places))) if blocks else list(range(0, 2 * len(places), 2))):
        raise ValueError(f"a network's layers stand at the places {places}: normalize=True cannot be represented")
    names: list[str] = []
    linear: list[int] = []
    skips: list[tuple[int, int]] = []
    for place in places:
        if place in blocks:
            names += [f"hyper.{place}.0", f"hyper.{place}.2"]
            skips.append((len(names) - 1, len(names) - 3))
        else:
            names.append(f"hyper.{place}")
        linear.append(len(names) - 1)
    return names, linear[:-1] if blocks else [], skips
