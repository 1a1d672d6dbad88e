"""Masked networks of other libraries, arranged as a MADE: ranks of the inputs, and hidden units sorted by degree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Arrangement(NamedTuple):
    """How a masked network becomes a MADE.

    ``ranks`` ``(D,)`` are those of the inputs, 1..D; ``degrees`` those of the hidden units of each layer, sorted;
    ``orders`` says which unit of the network stands at each place of the MADE: one index array for the inputs, each
    hidden layer and the outputs.
    """

    ranks: np.ndarray
    degrees: list[np.ndarray]
    orders: list[np.ndarray]

    def weight(self, layer: int, weight: Any) -> Any:
        """A layer's weight ``(out, in)`` with its rows and columns in the MADE's order."""
        return weight[self.orders[layer + 1]][:, self.orders[layer]]

    def rows(self, layer: int, array: Any) -> Any:
        """A layer's bias ``(out,)``, or any array whose rows are its units, in the MADE's order."""
        return array[self.orders[layer + 1]]


def arrange(masks: Sequence[np.ndarray], owners: np.ndarray) -> Arrangement:
    """The arrangement of a network with these masks ``(out, in)``.

    ``owners`` ``(outputs,)`` says which dimension each output row belongs to; in the MADE the rows of a dimension stand
    together, in the order in which they came. What a unit reads decides its degree, so that any convention of masks is
    understood; entries that the MADE's own masks leave open and these do not are zeros.

    Raises ValueError where the network is not autoregressive in any order of its inputs.
    """
    dim = masks[0].shape[1]
    reads = np.eye(dim, dtype=bool)
    below = []
    for mask in masks[:-1]:
        reads = (np.asarray(mask) != 0) @ reads
        below.append(reads)
    reads = (np.asarray(masks[-1]) != 0) @ reads
    depends = np.stack([reads[owners == i].any(axis=0) for i in range(dim)])
    ranks = _ranks(depends)
    degrees, orders = [], [np.arange(dim)]
    for layer in below:
        found = np.max(np.where(layer, ranks, 0), axis=1)
        order = np.argsort(found, kind="stable")
        degrees.append(found[order])
        orders.append(order)
    orders.append(np.argsort(owners, kind="stable"))
    return Arrangement(ranks, degrees, orders)


def _ranks(depends: np.ndarray) -> np.ndarray:
    """Ranks 1..D in which every dimension comes after those it depends on; earlier indices first where free."""
    dim = len(depends)
    ranks = np.zeros(dim, int)
    for rank in range(1, dim + 1):
        free = [i for i in range(dim) if ranks[i] == 0 and not (depends[i] & (ranks == 0)).any()]
        if not free:
            raise ValueError(
                "the masks are not autoregressive: some outputs depend on each other, or on their own inputs; "
                "check that the masks belong to these weights"
            )
        ranks[free[0]] = rank
    return ranks
