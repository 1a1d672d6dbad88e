"""Inputs led past the layers of a network of rectified units: ``relu(v) - relu(-v) = v``, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Masked(NamedTuple):
    """A masked network: weights and masks ``(out, in)``, biases ``(out,)``, a list each over the layers."""

    weights: list[Any]
    biases: list[Any]
    masks: list[np.ndarray]


def carry(net: Masked, columns: Sequence[int], into: Mapping[int, tuple[Any, Any]]) -> Masked:
    """The network with some of its inputs read by later layers too.

    ``columns`` are the inputs, ``into`` the later layers that read them: by a layer's place, the weight and its mask,
    both ``(out, len(columns))``. Each hidden layer gets two units for each of the inputs, behind its own. Its units
    must be rectified ones.
    """
    count, last = len(columns), len(net.weights) - 1
    chosen = np.eye(net.weights[0].shape[1])[list(columns)]
    signs = np.concatenate([chosen, -chosen])
    weights, biases, masks = [], [], []
    for k, (weight, bias, mask) in enumerate(zip(*net, strict=True)):
        inner, inner_mask = into.get(k, (np.zeros((weight.shape[0], count)),) * 2)
        if k:
            weight = np.concatenate([weight, inner, -inner], axis=1)
            mask = np.concatenate([mask, inner_mask, inner_mask], axis=1)
        if k < last:
            through = signs if k == 0 else np.eye(2 * count, weight.shape[1], weight.shape[1] - 2 * count)
            weight, mask = np.concatenate([weight, through]), np.concatenate([mask, through != 0])
            bias = np.concatenate([bias, np.zeros(2 * count)])
        weights.append(weight)
        biases.append(bias)
        masks.append(mask)
    return Masked(weights, biases, masks)
