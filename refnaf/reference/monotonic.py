"""A monotone network of one input, as in zuko's NAF: positive weights and two-way ELUs (Huang et al. 2018, section 3).

    h_0 = act(|W_0| (x, s) + b_0),    h_k = act(|W_k| h_(k-1) + b_k),    y = |W_L| h_(L-1) + b_L

The signal s, the pseudo-parameters, comes from the conditioner; the weights and biases of a dimension are its own, the
same for all samples. Of each hidden layer's n units the first ``ceil(n / 2)`` are ELUs, convex and unbounded above, and
the others ``-ELU(-p)``, concave and unbounded below.

Where no weight vanishes, the image is the whole line and the tails are linear: far out, one kind of unit has the slope
1 in every layer. The other kind's slope is an exponential; tangents are carried with their scale in the log domain, so
that a product of small slopes does not underflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.made import activate


def layer_sizes(signal: int, hidden: Sequence[int]) -> list[tuple[int, int]]:
    """``(out, in)`` of each layer: 1 + signal -> hidden -> 1."""
    return list(zip([*hidden, 1], [1 + signal, *hidden], strict=True))


def signs(n: int) -> numpy.ndarray:
    """1 for the units that are ELUs, -1 for the mirrored ones: ``(n, 1)``."""
    return numpy.repeat([1.0, -1.0], [(n + 1) // 2, n // 2])[:, None]


def two_way_elu(p: Any) -> tuple[Any, Any]:
    """The activation of p ``(..., n, N)``, and the logarithm of its derivative, ``min(p, 0)`` or ``min(-p, 0)``."""
    sign = signs(value(p).shape[-2]).astype(value(p).dtype)
    q = sign * p
    return sign * activate(q, "elu"), q * (value(q) < 0).astype(value(p).dtype)


def monotonic(x: Any, theta: Any, *numbers: Any) -> tuple[Any, Any]:
    """y and ``log dy/dx``, in nats, of the shape of x.

    ``x`` is ``(D, N)``, the signal ``theta`` ``(S, D, N)``, and the numbers ``W_0 (D, n_0, 1 + S), b_0 (D, n_0), W_1,
    b_1, ...``; or all of them for one dimension, without the axis D. Raw weights of any sign are taken by magnitude.
    """
    weights, biases = [np.abs(w) for w in numbers[::2]], [b[..., None] for b in numbers[1::2]]
    inputs = np.concatenate([x[..., None, :], np.moveaxis(theta, 0, -2)], axis=-2)
    p, tangent = np.matmul(weights[0], inputs) + biases[0], weights[0][..., :1]
    log_scale: Any = 0
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        h, log_slope = two_way_elu(p)
        top = numpy.max(value(log_slope), axis=-2, keepdims=True)
        log_scale = log_scale + top
        p, tangent = np.matmul(weight, h) + bias, np.matmul(weight, np.exp(log_slope - top) * tangent)
    # with no hidden layer the tangent is the same for all samples
    return p[..., 0, :], (np.log(tangent) + log_scale)[..., 0, :] + 0 * x


def bracket(y: Any, theta: Any, *numbers: Any) -> tuple[Any, Any]:
    """An interval that holds the x with ``monotonic(x) = y``, for one dimension: y ``(N,)``, theta ``(S, N)``.

    Where every p of a layer is at least some t >= 0, its ELUs are at least t and its mirrored units at least 0. From
    the last layer to the first, the least such t that lifts each unit above what the next layer asks for bounds x from
    above; the mirror image bounds it from below. An end is infinite where weights vanish.
    """
    weights, biases = [numpy.abs(w) for w in numbers[::2]], [b[:, None] for b in numbers[1::2]]
    ends = []
    for side in (-1, 1):
        wanted = side * y
        for weight, bias in zip(weights[:0:-1], biases[:0:-1], strict=True):
            rising = numpy.sum(weight[:, signs(weight.shape[1])[:, 0] == side], axis=1)[:, None]
            wanted = numpy.maximum(numpy.max(_quotient(wanted - side * bias, rising), axis=0), 0)
        offset = side * (weights[0][:, 1:] @ theta + biases[0])
        ends.append(side * numpy.max(_quotient(wanted - offset, weights[0][:, :1]), axis=0))
    return ends[0], ends[1]


def _quotient(wanted: Any, slope: Any) -> Any:
    """``wanted / slope`` for slopes >= 0; infinite, with the sign of what is wanted, where they vanish."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where(slope > 0, wanted / slope, numpy.where(wanted > 0, 1, -1).astype(wanted.dtype) * numpy.inf)
