"""Arrays on the device: CuPy's, which NumPy's functions pass on to CuPy; under the simulator NumPy's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.cuda.compiler import SIMULATED


def module() -> Any:
    """cupy; under the simulator numpy."""
    if SIMULATED:
        return np
    import cupy

    return cupy


def put(array: Any) -> Any:
    """The array on the device, C-contiguous, as kernels may write to it."""
    return module().array(array, order="C")


def get(array: Any) -> np.ndarray:
    """An array of the device in the host's memory. It waits for what is being computed."""
    return array if isinstance(array, np.ndarray) else array.get()


def wait() -> None:
    """Until everything asked for on the current stream is done."""
    if not SIMULATED:
        module().cuda.get_current_stream().synchronize()


def plain(array: Any) -> Any:
    """The array, or a copy of it that is C-contiguous."""
    return array if array.flags.c_contiguous else array.copy()
