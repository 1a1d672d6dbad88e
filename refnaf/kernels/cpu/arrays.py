"""Arrays as compiled kernels take them: of one kind, so that a kernel is compiled once a dtype."""

from __future__ import annotations

import numpy as np

#: Sums of positive terms below these have lost digits to underflow: the log domain takes over.
SMALLEST = {np.dtype(np.float32): 1e-30, np.dtype(np.float64): 1e-280}


def plain(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it that is contiguous and may be written to."""
    if array.flags.c_contiguous and array.flags.writeable:
        return array
    return np.array(array, order="C")


def widest(dtype: np.dtype) -> float:
    """How far out a root is looked for."""
    return min(float(np.finfo(dtype).max) / 4, 1e300)
