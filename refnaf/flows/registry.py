"""Layers by the name under which they are saved."""

from __future__ import annotations

from typing import Any

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.conditionals import LAM, RAM
from refnaf.flows.fixed import Permutation, Softclip, Standardise, Triangular
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.linear import LU
from refnaf.flows.planar import Planar
from refnaf.flows.recurrent import Recurrent

_ALL: tuple[type[Layer], ...] = (
    Standardise,
    Permutation,
    Softclip,
    Triangular,
    LU,
    Autoregressive,
    Block,
    Inverse,
    Planar,
    Recurrent,
    RAM,
    LAM,
)
LAYERS: dict[str, type[Layer]] = {cls.kind: cls for cls in _ALL}


def layer_to_config(layer: Layer) -> dict[str, Any]:
    """Kind and keyword arguments; JSON-able."""
    return {"kind": layer.kind, **layer.config()}


def layer_from_config(config: dict[str, Any], dim: int, context_dim: int) -> Layer:
    """The layer of a configuration. Raises ValueError for an unknown kind."""
    options = dict(config)
    kind = options.pop("kind")
    if kind not in LAYERS:
        raise ValueError(f"unknown kind of layer {kind!r}; this version knows {', '.join(LAYERS)}")
    if kind == Inverse.kind:
        options["layer"] = layer_from_config(options["layer"], dim, context_dim)
    return LAYERS[kind](dim, context_dim, **options)
