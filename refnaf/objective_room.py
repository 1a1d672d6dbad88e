"""Where the gradients of a batch's chunks are written, layer by layer, before they are added up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refnaf.flows.layer import Layer

Shapes = Mapping[str, tuple[int, ...]]


def views(flat: np.ndarray, shapes: Shapes) -> dict[str, np.ndarray]:
    """Arrays by name, as views of a flat vector that holds one after the other."""
    out, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        out[name] = flat[start:stop].reshape(shape)
        start = stop
    return out


class Room:
    """Arrays for the gradient of one layer, zero outside its masks: ``flat`` is all of them, a part of ``vector``."""

    def __init__(self, vector: np.ndarray, part: slice, shapes: Shapes) -> None:
        self.vector, self.flat = vector, vector[part]
        self.views = views(self.flat, shapes)

    def keep(self, grads: Mapping[str, Any]) -> None:
        """Put here those of a layer's gradients that were not written here."""
        for name, array in grads.items():
            if array is not self.views[name]:
                self.views[name][...] = array


def _sizes(shapes: Sequence[Shapes]) -> list[int]:
    return [sum(math.prod(shape) for shape in own.values()) for own in shapes]


def whole(shapes: Sequence[Shapes], dtype: np.dtype, put: Callable[[np.ndarray], Any]) -> list[Room]:
    """A vector for the gradient of all parameters, in their order, and a room of it for each layer.

    ``put`` brings it to where it is computed.
    """
    edges = np.cumsum([0, *_sizes(shapes)])
    vector = put(np.zeros(edges[-1], dtype))
    return [Room(vector, slice(*edges[k : k + 2]), own) for k, own in enumerate(shapes)]


def spare(layers: Sequence[Layer], shapes: Sequence[Shapes], dtype: np.dtype) -> list[Room]:
    """A room for each layer, one for all layers of the same form: only one layer's gradient is held at a time."""
    rooms: dict[str, Room] = {}
    found = []
    for layer, own, size in zip(layers, shapes, _sizes(shapes), strict=True):
        form = repr((layer.kind, layer.config()))
        if form not in rooms:
            rooms[form] = Room(np.zeros(size, dtype), slice(None), own)
        found.append(rooms[form])
    return found
