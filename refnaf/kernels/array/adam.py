"""The optimiser's step (:class:`refnaf.training.adam.Adam`) on a part of its vectors, and sums of gradients."""

from __future__ import annotations

import numpy as np


def update(
    flat: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    largest: np.ndarray,
    average: np.ndarray,
    grad: np.ndarray,
    factor: float,
    one_less_b1: float,
    one_less_b2: float,
    unbias: float,
    eps: float,
    rate: float,
    shrink: float,
    one_less_keep: float,
) -> None:
    """One step of vectors of one length; ``largest`` is empty unless it is AMSGrad's.

    ``factor`` clips the gradient, ``unbias`` is ``(1 - b2^t)^-1/2``, ``rate`` the learning rate over ``1 - b1^t``,
    ``shrink`` that times the weight decay, and ``one_less_keep`` what the average takes of the new value.
    """
    g = grad * grad.dtype.type(factor)
    work = g - first
    work *= one_less_b1
    first += work
    g *= g
    g -= second
    g *= one_less_b2
    second += g
    if len(largest):
        second = np.maximum(largest, second, out=largest)
    np.sqrt(second, out=work)
    work *= unbias
    work += eps
    np.divide(first, work, out=work)
    work *= rate
    flat -= flat * flat.dtype.type(shrink)
    flat -= work
    np.subtract(flat, average, out=work)
    work *= one_less_keep
    average += work


def gather(total: np.ndarray, other: np.ndarray) -> None:
    """``total = total + other``."""
    total += other


def sum_of_squares(values: np.ndarray) -> float:
    """In float64 for float64, else to the digits of float32."""
    return float(np.dot(values, values))
