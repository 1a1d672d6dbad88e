"""The conditioner, evaluated along the autoregressive order for inversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from refnaf.flows.layer import Params
from refnaf.reference import made
from refnaf.reference.made import read

if TYPE_CHECKING:
    from refnaf.flows.autoregressive import Autoregressive


class Incremental:
    """The network evaluated along the autoregressive order: D steps together cost one full pass.

    Hidden units are sorted by degree: once the input of rank r is known, the units of degree r in every layer can be
    computed, and nothing before them changes.
    """

    def __init__(self, layer: Autoregressive, params: Params, y: np.ndarray, context: Any) -> None:
        self.layer, self.params = layer, params
        self.weights, biases, contexts, gains = layer.network(params)
        n = y.shape[1]
        c = None if context is None else read(context, layer.bound)
        self.shift = [
            np.broadcast_to(bias[:, None], (len(bias), n)) if c is None else bias[:, None] + contexts[k] @ c
            for k, bias in enumerate(biases)
        ]
        self.gains = [weight @ c + bias[:, None] for weight, bias in gains]
        self.x = np.zeros((layer.dim, n), y.dtype)
        self.hidden = [np.zeros((width, n), y.dtype) for width in layer.hidden]
        # what skips lead on: layers before their activation
        self.kept = {source: np.zeros((layer.hidden[source], n), y.dtype) for _, source in layer.skips}
        self._advance(0)

    def _linear(self, k: int, rows: slice, below: np.ndarray) -> np.ndarray:
        """Those rows of layer k, before the activation, from what they may read of the layer below."""
        z = self.weights[k][rows, : len(below)] @ below
        return (z * self.gains[k][rows] if self.gains else z) + self.shift[k][rows]

    def _advance(self, rank: int) -> None:
        """Compute the hidden units of degree ``rank``: all they may read is known."""
        below = self.x
        limit = below.shape[0]
        for k, degrees in enumerate(self.layer.degrees):
            first, last = np.searchsorted(degrees, [rank, rank + 1])
            if last > first:
                z = self._linear(k, slice(first, last), below[:limit])
                for source in made.sources(self.layer.skips, k):
                    z = z + self.kept[source][first:last]
                if k in self.kept:
                    self.kept[k][first:last] = z
                self.hidden[k][first:last] = z if k in self.layer.linear else made.activate(z, self.layer.activation)
            below, limit = self.hidden[k], last

    def __call__(self, i: int, columns: list[np.ndarray]) -> np.ndarray:
        layer = self.layer
        rank = int(layer.ranks[i])
        if rank > 1:
            before = int(np.flatnonzero(layer.ranks == rank - 1)[0])
            self.x[before] = read(columns[before], layer.bound)
            self._advance(rank - 1)
        rows = slice(i * layer.outputs, (i + 1) * layer.outputs)
        below = self.hidden[-1] if layer.hidden else self.x
        theta = self._linear(len(self.weights) - 1, rows, below)
        if layer.channels is not None:
            theta = self.params["spread.weight"] @ theta + self.params["spread.bias"][:, None]
        return theta
