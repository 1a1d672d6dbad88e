"""Pieces that several libraries have: networks that read x beside the context, bases that are not standard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from refnaf.interop.masked import arrange
from refnaf.reference._numpy import np, value


def side_by_side(
    dim: int, weights: Sequence[Any], biases: Sequence[Any], masks: Sequence[numpy.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A masked network of the D inputs and, in the columns behind them, the context.

    ``masks`` are of the weights' shapes ``(out, in)``; the output rows are dimension-major. Returns the options of an
    :class:`~refnaf.flows.autoregressive.Autoregressive` layer that describe the network, and its parameters; those of
    the context only where there is one. autograd differentiates them by the weights and biases.

    Raises ValueError where the network is not autoregressive.
    """
    masks = [value(mask) for mask in masks]
    outputs, rest = divmod(masks[-1].shape[0], dim)
    if rest:
        raise ValueError(f"a network with {masks[-1].shape[0]} outputs does not fit {dim} dimensions; check the state")
    arrangement = arrange([masks[0][:, :dim], *masks[1:]], numpy.repeat(numpy.arange(dim), outputs))
    context_dim = masks[0].shape[1] - dim
    found: dict[str, Any] = {}
    for k, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
        weight = weight * mask
        context = weight[:, dim:] if k == 0 else numpy.zeros((mask.shape[0], context_dim))
        found[f"weight.{k}"] = arrangement.weight(k, weight[:, :dim] if k == 0 else weight)
        found[f"bias.{k}"] = arrangement.rows(k, bias)
        if context_dim:
            found[f"context.{k}"] = arrangement.rows(k, context)
    options = {
        "hidden": [len(degrees) for degrees in arrangement.degrees],
        "degrees": [degrees.tolist() for degrees in arrangement.degrees],
        "order": arrangement.ranks.tolist(),
        "bound": None,
    }
    return options, found


def normal_base(loc: Any, scale: Any, context_dim: int) -> dict[str, Any]:
    """The parameters of a Triangular layer that standardises a normal base of these means and deviations ``(D,)``."""
    dim = value(loc).shape[0]
    found = {"lower": numpy.zeros((dim, dim)), "log_diagonal": -np.log(scale), "shift": -loc / scale}
    return {**found, "context": numpy.zeros((dim, context_dim))} if context_dim else found
