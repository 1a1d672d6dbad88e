"""The operations of the backend "cuda": the kernels of :mod:`refnaf.kernels.cuda`, products by cuBLAS.

Arrays are the device's (CuPy's), to which NumPy's own functions pass on: layers are written once. What is fixed (a
permutation, a standardisation) is sent to the device once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from refnaf.kernels.array.staircase import Staircase
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cuda import TWINS, arrays, made
from refnaf.kernels.cuda.compiler import SIMULATED
from refnaf.kernels.cuda.staircase import Dense
from refnaf.ops import ArrayOps


class DeviceOps(ArrayOps):
    """:class:`refnaf.ops.ArrayOps` on a device. One object a thread; each works on a stream of its own, if asked to."""

    by_passes = True

    def __init__(self, own_stream: bool = False) -> None:
        self.workspace = Workspace(arrays.module().empty)
        self._constants: dict[int, tuple[Any, Any]] = {}
        self._stream = None if SIMULATED or not own_stream else arrays.module().cuda.Stream(non_blocking=True)

    @property
    def pieces(self) -> Any:
        return made

    def session(self) -> AbstractContextManager[Any]:
        """Everything inside is done on this object's stream."""
        return nullcontext() if self._stream is None else self._stream

    def put(self, array: Any) -> Any:
        return arrays.put(array)

    def get(self, array: Any) -> np.ndarray:
        return arrays.get(array)

    def constant(self, array: np.ndarray) -> Any:
        kept = self._constants.get(id(array))
        if kept is None:
            # the array is kept with it, so that no other can have its number
            kept = self._constants[id(array)] = array, arrays.put(array)
        return kept[1]

    def _products(self, step: Staircase) -> Dense:
        def make() -> tuple[Staircase, Dense]:
            return step, Dense(None if step.dense else arrays.put(step.mask.astype(step.dtype)))

        return self.workspace.own(("dense", id(step)), make)[1]

    def transform(
        self, name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any], overwrite: bool = False
    ) -> Any:
        twin = TWINS[name]
        how = {"ws": self.workspace, "keep": self.saving, "overwrite": overwrite}
        y, log_slope, saved = twin.forward(x, theta, *shared, **how, **options)
        return y, log_slope, (twin, saved)

    def invert(self, name: str, y: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> Any:
        return TWINS[name].inverse(y, theta, *shared, ws=self.workspace, **options)


def refusal(layers: Sequence[Any]) -> str | None:
    """Why the device cannot compute a flow of these layers, or None where it can."""
    for layer in layers:
        inner = getattr(layer, "layer", layer)
        if inner.kind not in ("standardise", "permutation", "triangular", "autoregressive"):
            return f"layers of kind {inner.kind!r}"
        if inner.kind == "autoregressive":
            twin = TWINS.get(inner.transformer.name)
            if twin is None or not twin.supports(inner.transformer.options):
                return f"the transformer {inner.transformer.config()}"
    return None


__all__ = ["DeviceOps", "refusal"]
