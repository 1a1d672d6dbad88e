"""Adam on one flat vector, with clipping, decoupled weight decay and an averaged copy of the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from refnaf import ops
from refnaf.parallel import Workers

#: Numbers that are updated together.
PART = 1 << 17


class Adam:
    """Adam (Kingma and Ba 2015) or AMSGrad (Reddi et al. 2018) with an exponential moving average of the parameters.

    ``flat`` ``(size,)`` is updated in place, by parts that ``workers`` share. ``decay`` is decoupled weight decay
    (Loshchilov and Hutter 2019), of the slices in ``decayed`` alone where these are given. The average is corrected for
    its start: after t steps it is a weighted mean of the t values.
    """

    STATE = ("flat", "first", "second", "largest", "average")

    def __init__(
        self,
        flat: np.ndarray,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip: float = 10.0,
        decay: float = 0.0,
        decayed: Sequence[slice] | None = None,
        amsgrad: bool = False,
        averaging: float = 0.999,
        backend: str = "numpy",
        workers: Workers | None = None,
    ) -> None:
        self.flat = flat
        self.first, self.second = np.zeros_like(flat), np.zeros_like(flat)
        self.largest = np.zeros_like(flat if amsgrad else flat[:0])
        self.average = flat.copy()
        self.betas, self.eps, self.clip, self.averaging = betas, eps, clip, averaging
        self.steps = 0
        self._kernel, self._workers = ops.optimiser(backend), workers or Workers()
        everything = [slice(0, len(flat))]
        decayed = (everything if decayed is None else decayed) if decay else []
        self._parts = [(part, decay) for whole in decayed for part in _cut(whole)]
        self._parts += [(part, 0.0) for whole in _between(decayed, len(flat)) for part in _cut(whole)]

    def norm(self, grad: np.ndarray) -> float:
        """Of a gradient ``(size,)``, as :meth:`step` wants it."""
        jobs = [(grad[part],) for part in _cut(slice(0, len(grad)))]
        return float(np.sqrt(sum(self._workers.map(self._kernel.sum_of_squares, jobs))))

    def step(self, grad: np.ndarray, rate: float, norm: float | None = None) -> None:
        """One update with a gradient ``(size,)`` of that norm."""
        self.steps += 1
        norm = self.norm(grad) if norm is None else norm
        factor = self.clip / norm if norm > self.clip else 1.0

        def update(part: slice, decay: float) -> None:
            arrays = [a[part] if len(a) else a for a in (getattr(self, name) for name in self.STATE)]
            self._kernel.update(*arrays, grad[part], factor, *self.numbers(rate, decay))

        self._workers.map(update, self._parts)

    def numbers(self, rate: float, decay: float) -> tuple[float, ...]:
        """What an update of this step takes from ``one_less_b1`` on (:func:`refnaf.kernels.array.adam.update`)."""
        b1, b2 = self.betas
        keep = min(self.averaging, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
        unbias, corrected = 1 / math.sqrt(1 - b2**self.steps), rate / (1 - b1**self.steps)
        return 1 - b1, 1 - b2, unbias, self.eps, corrected, rate * decay, 1 - keep

    def restart(self, flat: np.ndarray) -> None:
        """Go on from other parameters, with nothing remembered of the steps before."""
        np.copyto(self.flat, flat)
        np.copyto(self.average, flat)
        for array in (self.first, self.second, self.largest):
            array.fill(0)
        self.steps = 0

    def state(self) -> dict[str, np.ndarray]:
        """Everything a checkpoint must keep."""
        return {name: getattr(self, name).copy() for name in self.STATE} | {"steps": np.array([self.steps])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The opposite of :meth:`state`."""
        for name in self.STATE:
            np.copyto(getattr(self, name), state[name])
        self.steps = int(state["steps"][0])


def _cut(whole: slice) -> list[slice]:
    """Parts of fixed size."""
    return [slice(start, min(start + PART, whole.stop)) for start in range(whole.start, whole.stop, PART)]


def _between(slices: Sequence[slice], size: int) -> list[slice]:
    """What ordered slices leave of a vector."""
    edges = [0, *(edge for part in slices for edge in (part.start, part.stop)), size]
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
