"""Weights of Pyro (Bingham et al. 2019): AffineAutoregressive, NeuralAutoregressive, BlockAutoregressive and Planar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from refnaf.flows.fixed import Standardise
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from refnaf.interop import pyro_parts
from refnaf.interop.pyro_parts import BARE, SETTINGS
from refnaf.interop.states import arrays_of

#: What a transform can be called with besides its own settings.
_COMMON = {"inverse": False}

_MODELS = {"AffineAutoregressive": "", "NeuralAutoregressive": "-dsf"}


class _Part(NamedTuple):
    """One transform of a stack: its kind, all its settings, and its state."""

    kind: str
    options: dict[str, Any]
    state: dict[str, Any]


def from_pyro(
    state: Mapping[str, Any],
    *,
    transforms: Sequence[str | Mapping[str, Any]] | None = None,
    exact: bool = False,
    dtype: str = "float64",
) -> Flow:
    """The flow of Pyro's transforms between a standard normal base and the data, from their ``state_dict`` as arrays.

    Parameters
    ----------
    state : mapping of name to array: one transform's, or that of an ``nn.ModuleList`` or ``ComposeTransformModule`` of
        them, whose names begin with a number.
    transforms : what stands between base and data, in Pyro's order: names, or mappings of "name" and the settings that
        the state does not tell, by their names in Pyro and with its defaults. Conditional transforms may be named with
        or without that prefix. ``inverse: true`` is the transform's ``.inv``; ``nonlinearity`` that of the network,
        relu, elu or tanh. ``Permute`` (permutation) and ``AffineTransform`` (loc, scale) have no place in the state.
        May be left out where the state's own transforms, with their defaults, are all there is.
    exact : drop the epsilon 1e-8 that Pyro adds to slopes in the log-determinant (and under the logarithm of the ELU's
        inverse; in BlockAutoregressive to the squared norms of weights and to the gate), so that the log-determinant is
        that of the map. By default the numbers are Pyro's.
    dtype : of the flow, float64 or float32.

    Returns a Flow, with the transforms' context if their networks read one. It differs from Pyro where that loses
    digits: the mixtures of sigmoids are exact in both tails, where Pyro clamps them to 1 - 2.2e-16; and gradients of a
    clamped log-scale are zero, where Pyro's pass through. Raises ValueError for names that do not belong to these
    transforms, and for what cannot be represented.
    """
    parts = _parts(arrays_of(state), transforms)
    own = [part for part in parts if part.kind not in BARE]
    found = [pyro_parts.sizes(part.kind, part.state) for part in own]
    dims, contexts = {dim for dim, _ in found}, {width for _, width in found} - {0}
    if len(dims) > 1 or len(contexts) > 1:
        raise ValueError(
            f"the transforms have dimensions {sorted(dims)} and contexts of {sorted(contexts) or [0]} columns: "
            "expected one of each; check the state"
        )
    dim, context_dim = dims.pop(), contexts.pop() if contexts else 0
    layers: list[Any] = [Standardise(dim, context_dim, dtype=dtype)]
    params: dict[str, Any] = {}
    for part in reversed(parts):
        layer, numbers = pyro_parts.build(part.kind, part.state, part.options, dim, context_dim, exact)
        params |= {f"{len(layers)}.{name}": array for name, array in numbers.items()}
        layers.append(layer if part.options["inverse"] else Inverse(dim, context_dim, layer=layer))
    direction = "maf" if all(part.options["inverse"] for part in own) else "iaf"
    kind = own[0].kind
    model = direction + _MODELS[kind] if kind in _MODELS else {"Planar": "planar"}.get(kind, "bnaf")
    return Flow(layers, params, model=model, dtype=dtype)


def _parts(state: Mapping[str, Any], transforms: Sequence[str | Mapping[str, Any]] | None) -> list[_Part]:
    places: dict[int, dict[str, Any]] = {}
    for name, array in state.items():
        match = re.fullmatch(r"(\d+)\.(.+)", name)
        place, local = (int(match[1]), match[2]) if match else (0, name)
        places.setdefault(place, {})[local] = array
    if not places:
        raise ValueError("the state is empty: pass the transforms' state_dict as arrays")
    states = [places[k] for k in sorted(places)]
    kinds = [pyro_parts.kind_of(own) for own in states]
    given = [_given(transform) for transform in (kinds if transforms is None else transforms)]
    named = [kind for kind, _ in given if kind not in BARE]
    if named != kinds:
        raise ValueError(
            f"transforms are {', '.join(named) or 'none'} (besides {' and '.join(BARE)}), but the state holds "
            f"{', '.join(kinds)}: name each in order"
        )
    rest = iter(states)
    return [_Part(kind, options, {} if kind in BARE else dict(next(rest))) for kind, options in given]


def _given(transform: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind and settings, defaults filled in."""
    options = {"name": transform} if isinstance(transform, str) else dict(transform)
    kind = str(options.pop("name", "")).removeprefix("Conditional")
    if kind not in SETTINGS:
        raise ValueError(f"a transform's name must be one of {', '.join(SETTINGS)}, not {kind!r}")
    known = {**SETTINGS[kind], **_COMMON}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{kind} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    missing = sorted(set(SETTINGS[kind]) - set(options)) if kind in BARE else []
    if missing:
        raise ValueError(f"{kind} needs {' and '.join(missing)}: the state does not hold it")
    return kind, {**known, **options}
