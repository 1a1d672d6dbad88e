"""The columns of a mixture whose sums would underflow: :mod:`refnaf.kernels.mixture_far`, compiled, in float64."""

from __future__ import annotations

import numpy as np

from refnaf.kernels import mixture_far as shared
from refnaf.kernels.cpu.compiler import part
from refnaf.kernels.cpu.elementary import mills
from refnaf.kernels.mixture_far import COMPONENT_ROWS, LOG_SLOPE, RESULTS, Y

__all__ = ["COMPONENT_ROWS", "LOG_SLOPE", "RESULTS", "Y", "mixture_far", "mixture_far_vjp"]

_FAR = shared.make(part, np.float64, mills)
mixture_far, mixture_far_vjp = _FAR.forward, _FAR.vjp
