"""The one way a kernel is compiled for an NVIDIA GPU and launched, and what is missing where that cannot be.

Kernels are made for a dtype (and, where they hold arrays of their own, for sizes): constants of another dtype would put
float64 instructions into a float32 kernel. Each says what it takes in a word of letters, a letter an argument: 1, 2 or
3 for an array of the dtype with so many axes, ``f`` for a number of the dtype, ``i`` for a whole number, ``b`` for a
truth value. So it can be compiled where there is no GPU.

With ``NUMBA_ENABLE_CUDASIM=1`` kernels run in Python, thread after thread, on NumPy's arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numba import cuda, types
from numba.cuda.core import config

from refnaf.errors import DEVICE_EXTRA

SIMULATED = bool(config.ENABLE_CUDASIM)

# few blocks are no mistake: a small batch has no more
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

#: Threads of a block, along the samples: a power of two. To the simulator each is one of Python's.
THREADS = 4 if SIMULATED else 128

#: What a function that kernels call goes through. It must not name ``cuda``: the simulator runs it as it is.
part: Callable[[Any], Any] = (lambda function: function) if SIMULATED else cuda.jit(device=True, forceinline=True)


@cache
def missing() -> str | None:
    """What this machine lacks for the backend "cuda" besides numba-cuda, and what to do about it; None for nothing."""
    if SIMULATED:
        return None
    if not find_spec("cupy"):
        return f"the package cupy is missing, {DEVICE_EXTRA}"
    error = cuda.cuda_error()
    if error is not None:
        return "no NVIDIA driver was found: install one for this machine's GPU, or use backend 'numba'"
    if not len(cuda.gpus):
        return "the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use backend 'numba'"
    if not cuda.is_available():
        return f"libraries of the CUDA compiler are missing, {DEVICE_EXTRA}"
    return None


class Kernel:
    """A compiled kernel of one dtype."""

    def __init__(self, function: Callable[..., None], dtype: Any, takes: str) -> None:
        self.function, self.dtype, self.takes = function, dtype, takes
        self._dispatcher = cuda.jit(function)

    def signature(self) -> Any:
        """Numba's types of the arguments."""
        number = types.float32 if self.dtype is np.float32 else types.float64
        kinds = {"f": number, "i": types.int64, "b": types.boolean}
        return types.void(*(kinds[c] if c in kinds else types.Array(number, int(c), "C") for c in self.takes))

    def __call__(self, blocks: tuple[int, ...], *arguments: Any, threads: int = THREADS) -> None:
        """Run it on the current stream with so many blocks along each axis; arrays must be C-contiguous."""
        if 0 in blocks:
            return
        casts = {"f": self.dtype, "i": int, "b": bool}
        given = [casts[c](a) if c in casts else _launched(a) for c, a in zip(self.takes, arguments, strict=True)]
        self._dispatcher[blocks, threads, _stream()](*given)

    def columns(self, dims: int, count: int, *arguments: Any) -> None:
        """Run it with a thread for each of ``count`` samples of each of ``dims`` dimensions."""
        self((-(-count // THREADS), dims), *arguments, threads=THREADS)

    def each(self, count: int, *arguments: Any) -> None:
        """Run it with so many threads."""
        self((-(-count // THREADS),), *arguments, threads=THREADS)


def kernel(dtype: Any, takes: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a dtype from a function, and the letters of what it takes."""
    return lambda function: Kernel(function, dtype, takes)


#: Arrays as launches take them, by place, shape and dtype, and how many are kept: buffers come again in every step.
_LAUNCHED: dict[Any, Any] = {}
_MOST_LAUNCHED = 4096


def _launched(array: Any) -> Any:
    """CuPy's array as one of Numba's. Left to Numba, each launch would wait for the stream that it is used on."""
    if SIMULATED:
        return array
    key = array.data.ptr, array.shape, array.dtype.str
    found = _LAUNCHED.get(key)
    if found is None:
        if len(_LAUNCHED) >= _MOST_LAUNCHED:
            _LAUNCHED.clear()
        interface = {"shape": array.shape, "strides": None, "typestr": array.dtype.str, "version": 3}
        interface["data"] = array.data.ptr, False
        found = _LAUNCHED[key] = cuda.from_cuda_array_interface(interface, sync=False)
    return found


def _stream() -> Any:
    """CuPy's current stream, as Numba takes it."""
    if SIMULATED:
        return 0
    import cupy

    pointer = cupy.cuda.get_current_stream().ptr
    return _external(pointer) if pointer else 0


@cache
def _external(pointer: int) -> Any:
    return cuda.external_stream(pointer)
