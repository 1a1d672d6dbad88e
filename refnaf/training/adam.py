"""Adam on one flat vector, with clipping, decoupled weight decay and an averaged copy of the parameters."""

from __future__ import annotations

import numpy as np


class Adam:
    """Adam (Kingma and Ba 2015) or AMSGrad (Reddi et al. 2018) with an exponential moving average of the parameters.

    ``flat`` ``(size,)`` is updated in place. ``decay`` is decoupled weight decay (Loshchilov and Hutter 2019), applied
    where ``decayed`` is 1. The average is corrected for its start: after t steps it is a weighted mean of the t values.
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
        decayed: np.ndarray | None = None,
        amsgrad: bool = False,
        averaging: float = 0.999,
    ) -> None:
        self.flat = flat
        self.first, self.second = np.zeros_like(flat), np.zeros_like(flat)
        self.largest = np.zeros_like(flat) if amsgrad else np.zeros(0, flat.dtype)
        self.average = flat.copy()
        self.betas, self.eps, self.clip, self.decay, self.averaging = betas, eps, clip, decay, averaging
        self.decayed = decayed
        self.steps = 0
        self._work = np.empty_like(flat)
        self._room = {name: np.empty_like(getattr(self, name)) for name in self.STATE}

    def step(self, grad: np.ndarray, rate: float) -> None:
        """One update with a gradient ``(size,)``, which is overwritten; :meth:`undo` takes it back."""
        for name in self.STATE:
            np.copyto(self._room[name], getattr(self, name))
        self.steps += 1
        norm = float(np.sqrt(np.dot(grad, grad)))
        if norm > self.clip:
            grad *= grad.dtype.type(self.clip / norm)
        b1, b2 = self.betas
        work = self._work
        np.subtract(grad, self.first, out=work)
        work *= 1 - b1
        self.first += work
        np.multiply(grad, grad, out=grad)
        grad -= self.second
        grad *= 1 - b2
        self.second += grad
        second = self.second
        if len(self.largest):
            second = np.maximum(self.largest, self.second, out=self.largest)
        np.sqrt(second, out=work)
        work *= 1 / np.sqrt(1 - b2**self.steps)
        work += self.eps
        np.divide(self.first, work, out=work)
        work *= rate / (1 - b1**self.steps)
        if self.decay:
            np.multiply(self.flat, self.decay * rate, out=grad)
            if self.decayed is not None:
                grad *= self.decayed
            self.flat -= grad
        self.flat -= work
        keep = min(self.averaging, (1 + self.steps) / (10 + self.steps))
        np.subtract(self.flat, self.average, out=work)
        work *= 1 - keep if self.steps > 1 else 1
        self.average += work

    def undo(self) -> None:
        """Back to before the last :meth:`step`."""
        for name in self.STATE:
            np.copyto(getattr(self, name), self._room[name])
        self.steps = max(self.steps - 1, 0)

    def state(self) -> dict[str, np.ndarray]:
        """Everything a checkpoint must keep."""
        return {name: getattr(self, name).copy() for name in self.STATE} | {"steps": np.array([self.steps])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The opposite of :meth:`state`."""
        for name in self.STATE:
            np.copyto(getattr(self, name), state[name])
        self.steps = int(state["steps"][0])
