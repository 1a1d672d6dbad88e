"""Block neural autoregressive flow (De Cao, Titov and Aziz 2019): a masked network that is monotone in each input.

Unit ``i b + k`` of a layer is the k-th of the b units that belong to dimension i. Weights within a dimension are
positive, those that read earlier dimensions are free, those that read later ones are zero:

    W = exp(gain) w / |w|,      w = exp(raw) in the blocks on the diagonal, raw below them, 0 above

with ``|w|`` the norm of each row, so that ``W`` has rows of length ``exp(gain)``. The network is
``f = W_L a(... a(W_1 x + b_1) ...) + b_L`` with ``a(z) = tanh(z) + leak z``, and of the Jacobian only its diagonal is
needed: the products, one for each dimension, of the diagonal blocks of ``W`` and the slopes of a, taken in the log
domain as in the paper, where leak is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.affine import bend
from refnaf.reference.made import read
from refnaf.reference.stable import log_sigmoid, logsumexp, sigmoid, softplus

#: Logarithms of the linear path's slopes are bent to within this limit. Noise beyond what f reaches is stretched by the
#: inverse of the slope: without a limit a fitted model throws rare samples as far as it likes.
SLOPE_LIMIT = 2.0

RESIDUALS = ("linear", "none", "normal", "gated")


class Network(NamedTuple):
    """The numbers of one flow.

    ``weights`` raw ``(D b', D b)``, ``gains`` and ``biases`` ``(D b')``, ``contexts`` ``(D b', C)``, a list each over
    the layers (``contexts`` empty without a context); ``residual`` one of RESIDUALS, and ``mix`` its raw number: slopes
    ``(D,)`` for "linear", the gate ``(1,)`` for "gated", else None. ``bound`` is that of what is read of the context,
    ``leak`` that of the activation.

    ``epsilon`` makes W and the log-slopes those of Pyro (Bingham et al. 2019): it is added to the norms of rows, in the
    log-slopes to their squares, and there to the shares of a gate. The log-slopes then are not exactly those of y.
    """

    weights: Sequence[Any]
    gains: Sequence[Any]
    biases: Sequence[Any]
    contexts: Sequence[Any]
    residual: str
    mix: Any
    bound: float | None
    leak: float = 0.0
    epsilon: float = 0.0


def plain(net: Network) -> Network:
    """The numbers without their traces."""
    weights, gains, biases, contexts = ([value(a) for a in part] for part in net[:4])
    return net._replace(weights=weights, gains=gains, biases=biases, contexts=contexts, mix=value(net.mix))


@cache
def masks(dim: int, rows: int, columns: int, dtype: Any = numpy.float64) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Where a weight ``(D rows, D columns)`` is within a dimension, and where it reads an earlier one: 0/1."""
    one = numpy.ones((rows, columns), dtype)
    inside = numpy.kron(numpy.eye(dim, dtype=dtype), one)
    before = numpy.kron(numpy.tril(numpy.ones((dim, dim), dtype), -1), one)
    inside.setflags(write=False)
    before.setflags(write=False)
    return inside, before


def diagonal_blocks(weight: Any, dim: int) -> Any:
    """The blocks on the diagonal of a matrix ``(D r, D c)``: ``(D, r, c)``."""
    rows, columns = value(weight).shape[0] // dim, value(weight).shape[1] // dim
    each = numpy.arange(dim)
    return np.reshape(weight, (dim, rows, dim, columns))[each, :, each, :]


def normalised(raw: Any, gain: Any, dim: int, epsilon: float = 0.0) -> tuple[Any, Any]:
    """A layer's weight ``W`` ``(D r, D c)``, and the logarithms of its diagonal blocks ``(D, r, c)`` as the log-slopes
    take them: ``W = exp(gain) w / (|w| + epsilon)`` there, and ``exp(gain) w / sqrt(|w|^2 + epsilon)`` here."""
    rows, columns = value(raw).shape[0] // dim, value(raw).shape[1] // dim
    inside, before = masks(dim, rows, columns, value(raw).dtype)
    top = row_shift(diagonal_blocks(value(raw), dim))
    w = np.exp((raw - top) * inside) * inside + raw * numpy.exp(-top) * before
    square, taken = np.sum(w * w, axis=1), numpy.exp(-top[:, 0])
    scale = np.exp(gain) / (np.sqrt(square) + epsilon * taken)
    shift = gain - 0.5 * np.log(square + epsilon * taken**2) - top[:, 0]
    return scale[:, None] * w, diagonal_blocks(raw, dim) + np.reshape(shift, (dim, rows, 1))


def row_shift(raw_blocks: numpy.ndarray) -> numpy.ndarray:
    """What is taken out of the logarithms of each row of w, ``(D r, 1)``, for diagonal blocks ``(D, r, c)``.

    A common factor of a row cancels; without it exponentials could overflow.
    """
    return numpy.maximum(numpy.max(raw_blocks, axis=2), raw_blocks.dtype.type(-30)).reshape(-1, 1)


def log_tanh_slope(z: Any) -> Any:
    """``log tanh'(z) = log 4 + log sigmoid(2 z) + log sigmoid(-2 z)``, exact for any z."""
    return log_sigmoid(2 * z) + log_sigmoid(-2 * z) + value(z).dtype.type(numpy.log(4))


def activated(z: Any, leak: float) -> tuple[Any, Any]:
    """``a(z) = tanh(z) + leak z``, and ``log a'(z) = log(tanh'(z) + leak)``."""
    if not leak:
        return np.tanh(z), log_tanh_slope(z)
    log_leak = math.log(leak)
    return np.tanh(z) + leak * z, log_leak + softplus(log_tanh_slope(z) - log_leak)


def monotone(x: Any, context: Any, net: Network) -> tuple[Any, Any]:
    """The network f and ``log df_i/dx_i``, both ``(D, N)``, for x ``(D, N)`` and a context ``(C, N)`` or None."""
    dim, n = value(x).shape
    c = None if context is None else read(context, net.bound)
    h, log_slope = x, None
    for k, (raw, gain, bias) in enumerate(zip(net.weights, net.gains, net.biases, strict=True)):
        if log_slope is not None:
            h, fall = activated(h, net.leak)
            log_slope = log_slope + np.reshape(fall, value(log_slope).shape)
        weight, log_blocks = normalised(raw, gain, dim, net.epsilon)
        h = np.dot(weight, h) + bias[:, None]
        if c is not None:
            h = h + np.dot(net.contexts[k], c)
        if log_slope is None:
            log_slope = log_blocks + numpy.zeros(n, value(x).dtype)
        else:
            log_slope = logsumexp(log_blocks[:, :, :, None] + log_slope[:, None], axis=2)
    return h, np.reshape(log_slope, (dim, n))


def mixture(residual: str, mix: Any, epsilon: float = 0.0) -> tuple[Any, Any]:
    """``log F`` and ``log A`` of ``y = F f(x) + A x``: arrays ``(D,)`` or ``(1,)``, or None for 0 and minus infinity.

    none, ``f``; normal, ``x + f``; gated, ``g f + (1 - g) x`` with g a sigmoid: as published. linear, ``a x + f`` with
    a slope for each dimension, ``log a = bend(raw)`` within +-SLOPE_LIMIT. ``epsilon`` is added to F and A of "gated".
    """
    if residual == "gated" and epsilon:
        return np.log(sigmoid(mix) + epsilon), np.log(sigmoid(-mix) + epsilon)
    if residual == "gated":
        return log_sigmoid(mix), log_sigmoid(-mix)
    if residual == "linear":
        return None, bend(mix, limit=SLOPE_LIMIT)
    return None, (numpy.zeros(1) if residual == "normal" else None)


def block(x: Any, context: Any, net: Network) -> tuple[Any, Any]:
    """The flow's ``y`` and ``log dy_i/dx_i``, both ``(D, N)``; their sum over i is the log-determinant, in nats.

    tanh is bounded, and with no leak so is f: all but the residual form "none" map the line onto the line then.
    """
    f, log_slope = monotone(x, context, net)
    log_f, log_a = mixture(net.residual, net.mix)
    slope_f, slope_a = mixture(net.residual, net.mix, net.epsilon)
    if log_f is not None:
        f, log_slope = np.exp(log_f)[:, None] * f, log_slope + slope_f[:, None]
    if log_a is None:
        return f, log_slope
    if net.residual == "normal":
        log_a, slope_a = (a.astype(value(x).dtype) for a in (log_a, slope_a))
    return f + np.exp(log_a)[:, None] * x, slope_a[:, None] + softplus(log_slope - slope_a[:, None])
