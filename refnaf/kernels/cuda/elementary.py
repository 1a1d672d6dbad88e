"""The functions of :mod:`refnaf.kernels.scalar` for kernels of either dtype."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from refnaf.kernels import scalar
from refnaf.kernels.cuda.compiler import part


@cache
def functions(dtype: Any) -> SimpleNamespace:
    """Those of np.float32 or np.float64."""
    return scalar.make(part, dtype)
