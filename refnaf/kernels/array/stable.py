"""Elementwise pieces shared by the transformers, written into given buffers."""

from __future__ import annotations

import numpy as np

from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus

#: Beyond these e^|p| would overflow; the sums of such terms fall under rare.SMALLEST, and the reference takes over.
_LARGEST = {np.dtype(np.float32): 85.0, np.dtype(np.float64): 690.0}


def sigmoid_pair(p: np.ndarray, ws: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """``sigmoid(p)`` and ``sigmoid(-p)`` with one exponential and no branch: ``e = exp(-p)`` gives ``1 / (1 + e)`` and
    ``e / (1 + e)``, neither of which cancels."""
    minus = ws.take(p.shape, p.dtype)
    plus = ws.take(p.shape, p.dtype)
    largest = _LARGEST[p.dtype]
    np.clip(p, -largest, largest, out=minus)
    np.negative(minus, out=minus)
    np.exp(minus, out=minus)
    np.add(minus, 1, out=plus)
    np.reciprocal(plus, out=plus)
    np.multiply(minus, plus, out=minus)
    return plus, minus


def slopes(raw: np.ndarray, ws: Workspace, floor: float = SLOPE_FLOOR) -> tuple[np.ndarray, np.ndarray]:
    """``a = softplus(raw + offset) + floor`` and ``da/draw = sigmoid(raw + offset) = 1 - exp(-softplus)``."""
    a = ws.take(raw.shape, raw.dtype)
    derivative = ws.take(raw.shape, raw.dtype)
    np.add(raw, raw.dtype.type(inverse_softplus(1 - floor)), out=a)
    np.abs(a, out=derivative)
    np.negative(derivative, out=derivative)
    np.exp(derivative, out=derivative)
    np.log1p(derivative, out=derivative)
    np.maximum(a, 0, out=a)
    a += derivative
    np.negative(a, out=derivative)
    np.expm1(derivative, out=derivative)
    np.negative(derivative, out=derivative)
    a += raw.dtype.type(floor)
    return a, derivative


def exp_shifted(raw: np.ndarray, ws: Workspace) -> np.ndarray:
    """``exp(raw - max)`` with the maximum over axis 1: softmax numerators."""
    out = ws.take(raw.shape, raw.dtype)
    np.subtract(raw, np.max(raw, axis=1, keepdims=True), out=out)
    return np.exp(out, out=out)


def clip_logit_vjp(y: np.ndarray, clip: float, ws: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of :func:`refnaf.reference.stable.clip_logit`, and that of the logarithm it returns, at y."""
    plus, minus = sigmoid_pair(y, ws)
    shrunk, rest = plus * (1 - clip) + clip / 2, minus * (1 - clip) + clip / 2
    slope = (1 - clip) * plus * minus / (shrunk * rest)
    return slope, (minus - plus) - (rest - shrunk) * slope
