"""The optimiser's step (:class:`refnaf.training.adam.Adam`) in one pass over a part of its vectors; sums of gradients.

Parts are chosen by the caller, and threads may share them: nothing here depends on how many there are.
"""

from __future__ import annotations

import math
from typing import Any

from refnaf.kernels.cpu.compiler import kernel
from refnaf.kernels.cpu.sums import squares


@kernel
def update(
    flat: Any,
    first: Any,
    second: Any,
    largest: Any,
    average: Any,
    grad: Any,
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
    dtype = flat.dtype.type
    clip, c1, c2 = dtype(factor), dtype(one_less_b1), dtype(one_less_b2)
    c3, least, step, fall, new = dtype(unbias), dtype(eps), dtype(rate), dtype(shrink), dtype(one_less_keep)
    amsgrad = len(largest) > 0
    for n in range(len(flat)):
        g = grad[n] * clip
        m = first[n] + (g - first[n]) * c1
        v = second[n] + (g * g - second[n]) * c2
        first[n] = m
        second[n] = v
        if amsgrad:
            v = largest[n] if largest[n] > v else v
            largest[n] = v
        x = flat[n]
        x = (x - x * fall) - m / (math.sqrt(v) * c3 + least) * step
        flat[n] = x
        average[n] += (x - average[n]) * new


@kernel
def gather(total: Any, other: Any) -> None:
    """``total = total + other``."""
    for n in range(len(total)):
        total[n] += other[n]


@kernel
def sum_of_squares(values: Any) -> float:
    """In float64."""
    return squares(values)
