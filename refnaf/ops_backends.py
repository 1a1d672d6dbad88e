"""Which backends there are, whether this machine can run them, and how work is cut for them.

What they compute is in :mod:`refnaf.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from refnaf.errors import DEVICE_EXTRA

BACKENDS = ("numpy", "numba", "cuda")


def default_backend() -> str:
    """``"numba"`` where it is installed, else ``"numpy"``."""
    return "numba" if find_spec("numba") else "numpy"


def check(backend: str) -> None:
    """Raises ValueError for a name that is not a backend's, ImportError for one that this machine has not."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "numba" and not find_spec("numba"):
        raise ImportError("backend 'numba' needs the package numba: install it, or ask for backend 'numpy'")
    if backend == "cuda":
        lacks = _device_lacks()
        if lacks:
            raise ImportError(f"backend 'cuda' cannot run here: {lacks}")


def _device_lacks() -> str | None:
    """What is missing for a device, in one line, or None."""
    if not find_spec("numba_cuda"):
        return f"the package numba-cuda is missing, {DEVICE_EXTRA}"
    from refnaf.kernels.cuda import compiler

    return compiler.missing()


def check_layers(backend: str, layers: Sequence[Any]) -> None:
    """Raises ValueError where a backend cannot compute a flow of these layers."""
    if backend == "cuda":
        from refnaf.ops_device import refusal

        found = refusal(layers)
        if found:
            raise ValueError(f"backend 'cuda' has no kernels for {found}: use backend 'numba' or 'numpy'")


def chunk_rows(backend: str) -> tuple[int, int]:
    """How many rows of a batch are differentiated together, at least and at most.

    An operation on arrays costs its call before anything else; a device takes the whole batch.
    """
    return {"numba": (128, 256), "numpy": (256, 256), "cuda": (1 << 20, 1 << 20)}[backend]


def scored_rows(backend: str, width: int) -> int:
    """How many rows go through a network together without a VJP, by the width of its widest layer: vectors of them."""
    values, most = {"numba": (1 << 20, 960), "numpy": (1 << 19, 1 << 12), "cuda": (1 << 26, 1 << 16)}[backend]
    return min(max(values // width // 64 * 64, 64), most)


def workers(backend: str, threads: int) -> int:
    """How many chunks of rows are in work at a time: on a device two, one to be copied while another is computed."""
    if backend != "cuda":
        return threads
    from refnaf.kernels.cuda.compiler import SIMULATED

    return 1 if SIMULATED else 2


def place(backend: str, params: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The layers' parameters where a backend reads them, for any thread."""
    if backend != "cuda":
        return params
    from refnaf.kernels.cuda import arrays

    placed = [{name: arrays.put(array) for name, array in own.items()} for own in params]
    arrays.wait()
    return placed
