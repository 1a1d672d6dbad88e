"""Arrays as compiled kernels take them: of one kind, so that a kernel is compiled once a dtype."""

from __future__ import annotations

import numpy as np


def plain(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it that is contiguous and may be written to."""
    if array.flags.c_contiguous and array.flags.writeable:
        return array
    return np.array(array, order="C")
