"""MADE: masks that make a feed-forward network autoregressive (Germain et al. 2015, and eq. 10-12 of the slides).

Layer weights are ``(out, in)``, activations feature-major ``(features, N)``. A unit of degree m may depend on the
inputs of rank <= m; an output of rank r depends on hidden units of degree < r, that is on inputs before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.stable import squash

ACTIVATIONS = ("elu", "relu", "tanh")


def input_ranks(dim: int, order: str | Sequence[int] = "natural", seed: int = 0) -> numpy.ndarray:
    """Rank 1..D of each input in the autoregressive order: ``(D,)`` integers.

    ``order`` is "natural" (1, 2, ..., D), "reversed", "random" (a permutation drawn from ``seed``), or the ranks.
    """
    if isinstance(order, str):
        if order == "natural":
            return numpy.arange(1, dim + 1)
        if order == "reversed":
            return numpy.arange(dim, 0, -1)
        if order == "random":
            return numpy.random.default_rng(seed).permutation(dim) + 1
        raise ValueError(f"order must be 'natural', 'reversed', 'random' or a list of ranks 1..D, not {order!r}")
    ranks = numpy.asarray(order)
    if ranks.shape != (dim,) or sorted(ranks.tolist()) != list(range(1, dim + 1)):
        raise ValueError(f"order must hold each rank 1..{dim} once, got {ranks.tolist()}")
    return ranks.astype(int)


def hidden_degrees(dim: int, width: int, context: bool = False) -> numpy.ndarray:
    """Degrees of a hidden layer's units, sorted and spread evenly: ``(width,)`` integers.

    They run over 1..D-1. Units of degree 0 read no input: they are there where there is a context for them to read,
    and for D = 1, whose one output may depend on nothing else.
    """
    lowest = 0 if context or dim == 1 else 1
    count = dim - lowest
    return lowest + (numpy.arange(width) * count) // width


def degrees(dim: int, hidden: Sequence[int], context: bool = False) -> list[numpy.ndarray]:
    """Degrees of every hidden layer."""
    return [hidden_degrees(dim, width, context) for width in hidden]


def checked_degrees(given: Sequence[int], dim: int, width: int) -> numpy.ndarray:
    """Given degrees of a layer's units, ``(width,)``. Raises ValueError unless they are sorted integers in 0..D."""
    found = numpy.asarray(given, dtype=int)
    if found.shape != (width,) or (numpy.diff(found) < 0).any() or (found < 0).any() or (found > dim).any():
        raise ValueError(f"degrees must be {width} sorted integers within 0..{dim}, got {found.tolist()}")
    return found


def masks(ranks: numpy.ndarray, hidden: Sequence[numpy.ndarray], outputs: int) -> list[numpy.ndarray]:
    """Masks of all layers, 0/1 of shape ``(out, in)``: hidden ``m_k' >= m_k``, output ``rank_d > m_k``.

    ``outputs`` is the number of pseudo-parameters a dimension; output rows are dimension-major in the inputs' own
    order: row ``i * outputs + c`` is parameter c of input i.
    """
    below = [ranks, *hidden]
    layers = [(up[:, None] >= low[None, :]) for low, up in itertools.pairwise(below)]
    last = numpy.repeat(ranks, outputs)[:, None] > below[-1][None, :]
    return [mask.astype(numpy.float64) for mask in [*layers, last]]


def activate(x: Any, name: str) -> Any:
    """ELU ``max(x, 0) + expm1(min(x, 0))`` (Clevert et al. 2016), ReLU, or tanh."""
    if name == "tanh":
        return np.tanh(x)
    positive = (value(x) > 0).astype(value(x).dtype)
    if name == "relu":
        return x * positive
    if name == "elu":
        return x * positive + np.expm1(x * (1 - positive))
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {name!r}")


def sources(skips: Sequence[tuple[int, int]], layer: int) -> list[int]:
    """The layers from which skips lead to a layer."""
    return [source for target, source in skips if target == layer]


def checked_skips(
    skips: Sequence[Sequence[int]], hidden: Sequence[numpy.ndarray], linear: Sequence[int] = ()
) -> tuple[tuple[int, int], ...]:
    """Skips as pairs ``(to, from)`` of hidden layers, whose degrees are ``hidden``.

    Raises ValueError unless each, and each layer in ``linear``, is a hidden layer, and skips lead on to a layer of the
    same width with degrees no less, so that the network stays autoregressive.
    """
    for layer in linear:
        if not 0 <= layer < len(hidden):
            raise ValueError(f"linear must hold hidden layers, 0..{len(hidden) - 1}, got {layer}")
    pairs = tuple((int(to), int(source)) for to, source in skips)
    for to, source in pairs:
        if not 0 <= source < to < len(hidden):
            raise ValueError(f"a skip must lead from a hidden layer to a later one, got from {source} to {to}")
        if len(hidden[source]) != len(hidden[to]) or (hidden[source] > hidden[to]).any():
            raise ValueError(f"a skip needs layers of the same width and order, unlike hidden layers {source} and {to}")
    return pairs


def read(x: Any, bound: float | None) -> Any:
    """What a network reads of x: ``squash(x, bound)``, or x itself where ``bound`` is None."""
    return x if bound is None else squash(x, bound)


def network(
    x: Any,
    context: Any,
    weights: Sequence[Any],
    biases: Sequence[Any],
    context_weights: Sequence[Any],
    layer_masks: Sequence[Any],
    activation: str,
    bound: float | None,
    gains: Sequence[tuple[Any, Any]] = (),
    skips: Sequence[tuple[int, int]] = (),
    linear: Sequence[int] = (),
) -> Any:
    """The masked network: ``h <- act(g(c) * (M * W) h + V c + b)``, without activation in the last layer.

    ``x`` is ``(D, N)``, ``context`` ``(C, N)`` or None, the result ``(D * outputs, N)``. The network reads
    :func:`read` of x and of the context. ``gains`` holds, for each layer, weight ``(out, C)`` and bias ``(out,)`` of a
    gain ``g(c)`` that is linear in the context (the cMADE of Huang et al. 2018); without it g = 1.

    A residual network (He et al. 2016) has ``skips``, pairs ``(to, from)`` of hidden layers: what layer ``from`` had
    before its activation is added to what layer ``to`` has before its own. Hidden layers in ``linear`` have no
    activation.
    """
    h = read(x, bound)
    c = None if context is None else read(context, bound)
    last = len(weights) - 1
    kept: list[Any] = []
    for layer, (weight, bias, mask) in enumerate(zip(weights, biases, layer_masks, strict=True)):
        h = np.dot(weight * mask, h)
        if gains:
            h = h * (np.dot(gains[layer][0], c) + gains[layer][1][:, None])
        h = h + bias[:, None]
        if c is not None:
            h = h + np.dot(context_weights[layer], c)
        for source in sources(skips, layer):
            h = h + kept[source]
        kept.append(h)
        if layer < last and layer not in linear:
            h = activate(h, activation)
    return h


def spread(out: Any, weight: Any, bias: Any, dim: int) -> Any:
    """The authors' narrow form: C channels a dimension, then one linear map to P pseudo-parameters for all dimensions.

    ``out`` is ``(D * C, N)``, ``weight`` ``(P, C)``, ``bias`` ``(P,)``; the result ``(D, P, N)``.
    """
    channels = np.reshape(out, (dim, value(weight).shape[1], -1))
    return np.matmul(weight, channels) + bias[:, None]
