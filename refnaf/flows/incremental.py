"""The conditioner, evaluated along the autoregressive order for inversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from refnaf.flows.layer import Params
from refnaf.reference import made
from refnaf.reference.made import read

if TYPE_CHECKING:
    from refnaf.flows.autoregressive import Autoregressive


#: A product with fewer rows than these takes little less time than one with as many.
ROWS = 64


class Incremental:
    """The network evaluated along the autoregressive order: D steps together cost one full pass.

    Hidden units are sorted by degree: once the input of rank r is known, the units of degree r in every layer can be
    computed, and nothing before them changes. Steps are taken in blocks: what the units of all of a block's degrees
    read of those before the block comes from one product, since a product of few rows is not quicker than one of many.
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
        narrowest = min([len(degrees) for degrees in layer.degrees], default=0) / layer.dim
        self.block = max(1, round(ROWS / max(narrowest, 1)))
        self.dims = np.argsort(layer.ranks)
        # of every layer above the first: units below that the products of this block hold already, these products, and
        # which rows they are of
        self.known = [0] * len(self.weights)
        self.products: list[np.ndarray | None] = [None] * len(self.weights)
        self.first = [0] * len(self.weights)
        self._advance(0)

    def _linear(self, k: int, rows: slice, below: np.ndarray) -> np.ndarray:
        """Those rows of layer k, before the activation, from what they may read of the layer below."""
        known, product = self.known[k], self.products[k]
        z = self.weights[k][rows, known : len(below)] @ below[known:]
        if product is not None:
            z += product[rows.start - self.first[k] : rows.stop - self.first[k]]
        return (z * self.gains[k][rows] if self.gains else z) + self.shift[k][rows]

    def _begin(self, rank: int) -> None:
        """Products for the units of the block of degrees from ``rank`` on, and for the outputs of the ranks after."""
        layer, end = self.layer, rank + self.block
        for k in range(1, len(self.weights)):
            degrees = layer.degrees[k - 1]
            if k < len(self.weights) - 1:
                first, last = np.searchsorted(layer.degrees[k], [rank, end])
            else:
                dims = self.dims[rank:end]
                # they must be one piece of the weight, and not so many that each has rows enough
                if len(dims) == 0 or np.ptp(dims) >= len(dims) or layer.outputs >= ROWS:
                    self.known[k], self.products[k] = 0, None
                    continue
                first, last = dims.min() * layer.outputs, (dims.max() + 1) * layer.outputs
            known = int(np.searchsorted(degrees, rank))
            self.known[k], self.first[k] = known, int(first)
            self.products[k] = self.weights[k][first:last, :known] @ self.hidden[k - 1][:known]

    def _advance(self, rank: int) -> None:
        """Compute the hidden units of degree ``rank``: all they may read is known."""
        if rank % self.block == 0:
            self._begin(rank)
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
        below = self.hidden[-1][: np.searchsorted(layer.degrees[-1], rank)] if layer.hidden else self.x
        theta = self._linear(len(self.weights) - 1, rows, below)
        if layer.channels is not None:
            theta = self.params["spread.weight"] @ theta + self.params["spread.bias"][:, None]
        return theta
