"""Adam on a device, which goes on without the host's knowing the loss or the gradient's norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.cuda import adam as kernels
from refnaf.kernels.cuda import arrays
from refnaf.training.adam import Adam


class Tally(NamedTuple):
    """What became of the steps since the last look: taken, left out, and the sum of the losses of those taken."""

    taken: int
    left_out: int
    losses: float


class DeviceAdam(Adam):
    """:class:`refnaf.training.adam.Adam` with ``flat`` on a device; a step that is not finite is left out there.

    The squares of a gradient are added up in its own dtype, and a step left out counts in the corrections for the
    start: the numbers differ from the host's in their last digits.
    """

    def __init__(
        self, flat: Any, *, decay: float = 0.0, decayed: Sequence[slice] | None = None, **options: Any
    ) -> None:
        super().__init__(flat, decay=decay, decayed=decayed, **options)
        where = np.ones(len(flat), flat.dtype)
        if decayed is not None:
            where.fill(0)
            for part in decayed:
                where[part] = 1
        self._decay, self._where = decay, arrays.put(where)
        self._parts_of_squares, self._factor, self._tally = (
            arrays.put(np.zeros(size, flat.dtype)) for size in (kernels.BLOCKS, 1, kernels.TALLY)
        )

    def step_unseen(self, loss: Any, grad: Any, rate: float) -> None:
        """One update with a gradient ``(size,)`` and its loss, a number on the device, if both are finite."""
        self.steps += 1
        kernels.sum_of_squares(grad, self._parts_of_squares)
        found = loss.astype(grad.dtype).reshape(1)
        kernels.judge(self._parts_of_squares, found, self.clip, self._factor, self._tally)
        state = [getattr(self, name) for name in self.STATE]
        kernels.update(*state, grad, self._factor, self._where, *self.numbers(rate, self._decay))

    def look(self) -> Tally:
        """The tally, which begins anew. The one transfer to the host in all of a run's steps."""
        found = arrays.get(self._tally).copy()
        self._tally.fill(0)
        taken, left_out, losses = (float(number) for number in found)
        return Tally(round(taken), round(left_out), losses)

    def state(self) -> dict[str, np.ndarray]:
        held = {name: np.array(arrays.get(getattr(self, name))) for name in self.STATE}
        return held | {"steps": np.array([self.steps])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        for name in self.STATE:
            np.copyto(getattr(self, name), arrays.put(state[name]))
        self.steps = int(state["steps"][0])
