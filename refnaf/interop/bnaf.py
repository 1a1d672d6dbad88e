"""Weights of the B-NAF authors' code (De Cao, Titov and Aziz 2019): BNAF modules of MaskedWeight layers with tanh."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Standardise
from refnaf.flows.flow import Flow
from refnaf.flows.layer import Layer
from refnaf.interop.conventions import BNAF
from refnaf.interop.states import arrays_of, refuse_rest
from refnaf.reference import block
from refnaf.reference._numpy import value

#: Names of a MaskedWeight's numbers, and ours.
_NAMES = {BNAF.weight: "weight", BNAF.gain: "gain", BNAF.bias: "bias"}


def from_bnaf(
    state: Mapping[str, Any],
    *,
    residual: str | Sequence[str] = "none",
    order: str | Sequence[int] = "reversed",
    exact: bool = False,
    dtype: str = "float64",
) -> Flow:
    """The flow of a BNAF module's ``state_dict``, as arrays, or of a Sequential of BNAF and Permutation modules.

    Parameters
    ----------
    state : mapping of name to array: ``{k}._weight`` and so on, and ``gate`` of a gated module; of a Sequential with
        the module's place in front. A place that is missing between two modules is a Permutation, which has no numbers.
    residual : "none" or "normal", which the state does not tell: for all modules without a gate, or a list with the
        form of each module. The authors' density estimation has "none" in the last module always.
    order : of the permutations, as in :class:`~refnaf.flows.fixed.Permutation`; the authors' "flip" is "reversed".
    exact : the authors' code has no epsilons or clipping: either value gives the same flow. It is here because the
        other importers have it.
    dtype : of the flow, float64 or float32.

    The image of a module without a residual is bounded: such a flow scores, but not every draw of noise has an inverse
    (see :class:`~refnaf.flows.block.Block`). Raises ValueError for names, shapes or masks that are not those of BNAF.
    """
    modules = _modules(arrays_of(state))
    places = sorted(modules)
    forms = [residual] * len(places) if isinstance(residual, str) else list(residual)
    if len(forms) != len(places):
        raise ValueError(f"residual must be one form, or one for each of the {len(places)} modules, got {len(forms)}")
    dim = value(modules[places[0]]["0._weight"]).shape[1]
    layers: list[Layer] = [Standardise(dim)]
    for place in range(places[-1] + 1):
        if place in modules:
            layers.append(_layer(modules[place], dim, forms[places.index(place)]))
        else:
            layers.append(Permutation(dim, order=order))
    return Flow(layers, parameters(state), model="bnaf", dtype="float64").astype(dtype)


def parameters(state: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of :func:`from_bnaf`'s flow. autograd differentiates them by the state."""
    found: dict[str, Any] = {}
    for place, module in _modules(state).items():
        rest = dict(module)
        if "gate" in rest:
            found[f"{place + 1}.gate"] = rest.pop("gate")
        for k, name in enumerate(_linear(module)):
            for theirs, ours in _NAMES.items():
                array = rest.pop(f"{name}.{theirs}")
                found[f"{place + 1}.{ours}.{k}"] = array[:, 0] if theirs == BNAF.gain else array
            for mask in BNAF.masks:
                rest.pop(f"{name}.{mask}", None)
        refuse_rest(rest, "a BNAF module")
    return found


def _modules(state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The state of each BNAF module by its place; a lone module has place 0."""
    stacked = any(re.fullmatch(r"\d+\.\d+\._weight", name) for name in state)
    modules: dict[int, dict[str, Any]] = {}
    for name, array in state.items():
        digits, _, local = name.partition(".") if stacked else ("0", "", name)
        if not digits.isdigit():
            raise ValueError(f"the state's {name!r} belongs to no BNAF module: expected names such as '0.0._weight'")
        modules.setdefault(int(digits), {})[local] = array
    for place, module in modules.items():
        missing = [f"{name}.{part}" for name in _linear(module) for part in _NAMES if f"{name}.{part}" not in module]
        if "0._weight" not in module or missing:
            raise ValueError(f"module {place} of the state is no BNAF: it lacks {(missing or ['0._weight'])[0]!r}")
    if 0 not in modules:
        raise ValueError("the state holds no BNAF module at place 0: pass the module's state_dict as arrays")
    return modules


def _linear(module: Mapping[str, Any]) -> list[str]:
    """Names of a module's MaskedWeight layers, in order: every other place, with tanh between."""
    found = [int(match[1]) for name in module if (match := re.fullmatch(r"(\d+)\._weight", name))]
    return [str(k) for k in sorted(found)]


def _layer(module: Mapping[str, numpy.ndarray], dim: int, residual: str) -> Block:
    weights = [module[f"{name}._weight"] for name in _linear(module)]
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    if any(weight.shape[1] != below for weight, below in zip(weights, widths, strict=False)) or widths[-1] != dim:
        raise ValueError(f"the weights do not follow each other: shapes {[w.shape for w in weights]} for {dim} inputs")
    if any(width % dim for width in widths):
        raise ValueError(f"layers of {widths} units cannot be divided among {dim} dimensions")
    for name, weight in zip(_linear(module), weights, strict=True):
        expected = block.masks(dim, weight.shape[0] // dim, weight.shape[1] // dim)
        for mask, own in zip(BNAF.masks, expected, strict=True):
            if not numpy.array_equal(module.get(f"{name}.{mask}", own), own):
                raise ValueError(f"{name}.{mask} is no block mask of {dim} dimensions: is the state BNAF's?")
    hidden = [width // dim for width in widths[1:-1]]
    return Block(dim, hidden=hidden, residual="gated" if "gate" in module else residual)
