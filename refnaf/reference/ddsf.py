"""Deep dense sigmoidal flow: layers of sigmoids mixed by positive matrices (slides eq. 29, Huang et al. 2018).

    h_next = logit( w sigmoid(a * (u h) + b) ),    rows of w (out, d) and u (d, in) positive and summing to one

The input is a scalar, so the chain of Jacobians (eq. 30), applied from the right, is a vector: the tangent of the
layer's output. It is carried along as logarithms. Pseudo-parameters of a layer are, in this order, a (d), b (d),
w (d) and u (in); the last two are added to rows of matrices that all samples and dimensions share, before the softmax.
The first layer has one input, so its u is the number 1 and has no pseudo-parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.dsf import clipped, logit_of_mixture
from refnaf.reference.stable import log_softmax, logsumexp, slopes, unclip_logit


def layer_sizes(d: int, layers: int) -> list[tuple[int, int, int]]:
    """``(in, d, out)`` of each layer: 1 -> d -> ... -> d -> 1."""
    return [(1 if k == 0 else d, d, 1 if k == layers - 1 else d) for k in range(layers)]


def parameter_count(d: int, layers: int) -> int:
    """Pseudo-parameters a dimension: 3 d a layer, and d for the u of each layer but the first."""
    return layers * 3 * d + (layers - 1) * d


def split(theta: Any, d: int, layers: int) -> list[tuple[Any, Any, Any, Any]]:
    """Raw pseudo-parameters ``(P, ...)`` as ``(a, b, w, u or None)`` for each layer."""
    parts, start = [], 0
    for index in range(layers):
        a, b, w = (theta[start + k * d : start + (k + 1) * d] for k in range(3))
        start += 3 * d
        u = theta[start : start + d] if index else None
        start += d if index else 0
        parts.append((a, b, w, u))
    return parts


def matrix_plus_row(matrix: Any, row: Any) -> Any:
    """``log softmax_j(U_ij + c_j)``: matrix ``(rows, columns)``, row ``(columns, ...)`` to ``(rows, columns, ...)``."""
    trailing = (1,) * (value(row).ndim - 1)
    # largest entries of 0, or the sum would be rounded at the size of what cancels in the softmax
    matrix = matrix - numpy.max(value(matrix), axis=1, keepdims=True)
    row = row - numpy.max(value(row), axis=0)
    return log_softmax(np.reshape(matrix, matrix.shape + trailing) + row, axis=1)


def layer(h: Any, log_tangent: Any, a: Any, b: Any, log_w: Any, log_u: Any) -> tuple[Any, Any]:
    """Equation 29 with one link of the chain of equation 30.

    ``h`` and ``log_tangent`` are ``(in, ...)``; ``a > 0`` and ``b`` ``(d, ...)``; ``log_w`` ``(out, d, ...)``;
    ``log_u`` ``(d, in, ...)`` or None where ``in`` is 1. Returns the next h and the logarithm of its tangent,
    ``(out, ...)``.
    """
    if log_u is None:
        v, log_dv = h, log_tangent
    else:
        v = np.sum(np.exp(log_u) * h, axis=1)
        log_dv = logsumexp(log_u + log_tangent, axis=1)
    return logit_of_mixture(a * v + b, np.log(a) + log_dv, log_w)


def pairs(matrices: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The shared raw matrices ``W_1, U_2, W_2, U_3, ...`` as ``(U or None, W)`` for each layer."""
    return [(None, matrices[0]), *zip(matrices[1::2], matrices[2::2], strict=True)]


def ddsf(x: Any, theta: Any, *matrices: Any, clip: float = 0.0) -> tuple[Any, Any]:
    """The transformer on raw pseudo-parameters ``(P, ...)``.

    ``matrices`` are the shared raw matrices in the order ``W_1, U_2, W_2, ...``, with U ``(d, in)`` and W ``(out, d)``.
    ``clip`` is the delta of the NAF authors' code, applied to every layer's output (see :func:`.stable.clip_logit`).
    Returns ``y`` and ``log dy/dx``, each of the shape of x, in nats.
    """
    layers = pairs(matrices)
    d = layers[0][1].shape[1]
    h, log_tangent = x[None], 0 * x[None]
    for (a, b, w, u), (shared_u, shared_w) in zip(split(theta, d, len(layers)), layers, strict=True):
        log_u = None if u is None else matrix_plus_row(shared_u, u)
        h, log_tangent = layer(h, log_tangent, slopes(a), b, matrix_plus_row(shared_w, w), log_u)
        h, log_tangent = clipped(h, log_tangent, clip)
    return h[0], log_tangent[0]


def bracket(y: Any, theta: Any, *matrices: Any, clip: float = 0.0) -> tuple[Any, Any]:
    """An interval that holds the x with ``ddsf(x) = y``.

    Each output of a layer is a generalised mean of its p_j, and each v_j a convex combination of the layer's inputs:
    from the last layer to the first, some input lies at or below ``max_j (high - b_j) / a_j`` and some at or above
    ``min_j (low - b_j) / a_j``; the first layer's input is x.
    """
    layers = pairs(matrices)
    low = high = y
    for a, b, _, _ in reversed(split(theta, layers[0][1].shape[1], len(layers))):
        if clip:
            low, high = unclip_logit(low, clip), unclip_logit(high, clip)
        low, high = np.min((low - b) / slopes(a), axis=0), np.max((high - b) / slopes(a), axis=0)
    return low, high
