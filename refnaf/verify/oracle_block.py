"""The layer of a block neural autoregressive flow in arbitrary precision (De Cao, Titov and Aziz 2019).

    y_i = F f_i(x_1, ..., x_i; c) + A_i x_i,    f = W_L a(... a(W_1 x + V_1 c + b_1) ...) + V_L c + b_L
    W = exp(gain) w / (|w| + epsilon),    w = exp(raw) within a dimension, raw before it,    a(z) = tanh(z) + leak z

One dimension after the other: its units read those of the dimensions before it. With an epsilon the slopes are Pyro's
(Bingham et al. 2019), whose rows are over ``sqrt(|w|^2 + epsilon)`` and whose gate has epsilon added to both shares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from refnaf.reference.block import SLOPE_LIMIT
from refnaf.verify.oracle_root import solve
from refnaf.verify.oracle_transformers import bent, sigmoid
from refnaf.verify.oracle_values import Params, Value, plus, read, times
from refnaf.verify.precision import mpmath


class _Linear(NamedTuple):
    """What one dimension has in one layer of the network: rows of W ``(r, (i + 1) c)``, and their part within the
    dimension ``(r, c)``, of W itself and as the slopes take it."""

    rows: list[list[Any]]
    inside: list[list[Any]]
    reported: list[list[Any]]


class _Dimension(NamedTuple):
    """A dimension: its part of the network, the shares ``F, A`` of f and x in y, and those that the slopes take."""

    layers: list[_Linear]
    shares: tuple[Any, Any]
    reported: tuple[Any, Any]


def _dimensions(layer: Any, params: Params) -> list[_Dimension]:
    epsilon = mpmath().mp.mpf(layer.epsilon)
    found = []
    for i in range(layer.dim):
        layers = [_linear(layer, params, i, k) for k in range(len(layer.sizes))]
        f, x = _shares(layer, params, i)
        gate = layer.residual == "gated"
        found.append(_Dimension(layers, (f, x), (f + epsilon, x + epsilon) if gate else (f, x)))
    return found


def _linear(layer: Any, params: Params, i: int, k: int) -> _Linear:
    mp = mpmath().mp
    epsilon = mp.mpf(layer.epsilon)
    below, here = layer.sizes[k]
    own = slice(i * here, (i + 1) * here)
    found = _Linear([], [], [])
    for raw, gain in zip(params[f"weight.{k}"][own], params[f"gain.{k}"][own], strict=True):
        w = [*raw[: i * below], *(mp.exp(value) for value in raw[i * below : (i + 1) * below])]
        square, length = mp.fdot(w, w), mp.exp(gain)
        factor, reported = length / (mp.sqrt(square) + epsilon), length / mp.sqrt(square + epsilon)
        found.rows.append([factor * value for value in w])
        found.inside.append(found.rows[-1][i * below :])
        found.reported.append([reported * value for value in w[i * below :]])
    return found


def _shifts(layer: Any, params: Params, context: list[Any] | None) -> list[list[list[Any]]]:
    """``V c + b`` of every dimension and layer of the network."""
    c = None if context is None else read(context, layer.bound)
    whole = []
    for k in range(len(layer.sizes)):
        shift = list(params[f"bias.{k}"])
        whole.append(shift if c is None else plus(shift, times(params[f"context.{k}"], c)))
    return [
        [shift[i * here : (i + 1) * here] for shift, (_, here) in zip(whole, layer.sizes, strict=True)]
        for i in range(layer.dim)
    ]


def _shares(layer: Any, params: Params, i: int) -> tuple[Any, Any]:
    """F and A."""
    mp = mpmath().mp
    one = mp.mpf(1)
    if layer.residual == "gated":
        (gate,) = params["gate"]
        return sigmoid(gate), sigmoid(-gate)
    if layer.residual == "linear":
        return one, mp.exp(bent(params["slope"][i], limit=SLOPE_LIMIT))
    return one, one if layer.residual == "normal" else mp.mpf(0)


class _Network:
    """A layer under a context, gone through dimension after dimension."""

    def __init__(self, layer: Any, params: Params, context: list[Any] | None) -> None:
        self.layer = layer
        self.leak = mpmath().mp.mpf(layer.leak)
        self.dimensions = params.once("dimensions", lambda: _dimensions(layer, params))
        self.shifts = _shifts(layer, params, context)
        #: What each layer of the network reads of the dimensions so far, and how many these are.
        self.before: list[list[Any]] = [[] for _ in layer.sizes]
        self.done = 0

    def evaluate(self, x: Any) -> tuple[Any, Any, Any, list[list[Any]]]:
        """Of the next dimension y, its derivative, the derivative as the layer reports it, and what its layers read."""
        mp = mpmath().mp
        own = self.dimensions[self.done]
        z, slope, reported, kept = [x], [mp.mpf(1)], [mp.mpf(1)], []
        for k, (linear, shift) in enumerate(zip(own.layers, self.shifts[self.done], strict=True)):
            if k:
                # tanh' = 1 - tanh^2 is sech^2
                rates = [mp.sech(value) ** 2 + self.leak for value in z]
                # no leak, not 0 times what may be infinite
                z = [mp.tanh(value) + (self.leak * value if self.leak else 0) for value in z]
                slope, reported = ([a * b for a, b in zip(part, rates, strict=True)] for part in (slope, reported))
            kept.append(z)
            z = plus(times(linear.rows, self.before[k] + z), shift)
            slope, reported = times(linear.inside, slope), times(linear.reported, reported)
        (share_f, share_x), (reported_f, reported_x) = own.shares, own.reported
        y = share_f * z[0] + (share_x * x if share_x else 0)
        return y, share_f * slope[0] + share_x, reported_f * reported[0] + reported_x, kept

    def image(self, x: Any) -> tuple[Any, Any]:
        """y and the logarithm of its derivative, of the next dimension."""
        y, slope, _, _ = self.evaluate(x)
        return y, mpmath().mp.log(slope)

    def advance(self, x: Any) -> tuple[Any, Any]:
        """y and the logarithm of the derivative as reported, of the next dimension, which is then done."""
        y, _, reported, kept = self.evaluate(x)
        self.before = [a + b for a, b in zip(self.before, kept, strict=True)]
        self.done += 1
        return y, mpmath().mp.log(reported)


def block(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """The network with its linear path, and the sum of ``log dy_i/dx_i``."""
    network = _Network(layer, params, context)
    found = [network.advance(value) for value in x]
    return Value([y for y, _ in found], mpmath().mp.fsum(slope for _, slope in found))


def unblock(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The x whose image is y. Raises ValueError for a y outside the image, where that is bounded."""
    mp = mpmath().mp
    network = _Network(layer, params, context)
    x: list[Any] = []
    slopes: list[Any] = []
    for wanted in y:
        if layer.residual == "none" and not layer.leak:
            low, high = (network.evaluate(end)[0] for end in (-mp.inf, mp.inf))
            if not low < wanted < high:
                raise ValueError(
                    'a block layer of residual form "none" has no inverse outside its bounded image: '
                    "give base points within it"
                )
        x.append(solve(network.image, wanted))
        slopes.append(network.advance(x[-1])[1])
    return Value(x, -mp.fsum(slopes))
