"""The products of the masked network on a device: whole ones, since a block is a call and few of them fill a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np


class Dense:
    """As :class:`refnaf.kernels.array.staircase.Staircase`, for weights ``(out, in)`` that are zero outside a mask.

    ``mask`` is an array of the device and of the weights' dtype, or None where all of it is one.
    """

    def __init__(self, mask: Any) -> None:
        self._mask = mask
        self.dense = mask is None

    def product(self, weight: Any, x: Any, out: Any, ws: Any) -> None:
        """``out (out, N) = W x`` for x ``(in, N)``."""
        np.dot(weight, x, out=out)

    def transposed(self, weight: Any, grad: Any, out: Any, ws: Any) -> None:
        """``out (in, N) = W^T g`` for g ``(out, N)``."""
        np.dot(weight.T, grad, out=out)

    def outer(self, grad: Any, x: Any, out: Any, ws: Any) -> None:
        """``out (out, in) = mask * (g x^T)``."""
        np.dot(grad, x.T, out=out)
        if self._mask is not None:
            out *= self._mask
