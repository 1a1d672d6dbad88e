"""Maximum likelihood as a task of the training loop: minibatches of rows, and validation rows to judge by."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.flow import Flow
from refnaf.objective import NegativeLogLikelihood
from refnaf.parallel import default_threads
from refnaf.training.data import Rows
from refnaf.training.loop import Plan, optimise

#: Rows of the validation part that are scored at each evaluation.
VALIDATION_ROWS = 50_000


class _Likelihood:
    """Losses by step number: a new order of the rows each epoch, drawn from seed and epoch alone."""

    def __init__(self, flow: Flow, training: Rows, validation: Rows | None, plan: Plan, threads: int) -> None:
        self.objective = NegativeLogLikelihood(flow, threads)
        # a device keeps them all, and takes each step's from there
        put = self.objective.put
        self.training = Rows(put(training.x), None if training.context is None else put(training.context))
        self.plan = plan
        self.validation = None if validation is None else validation.take(slice(VALIDATION_ROWS))
        self.judged = validation is not None
        self.per_epoch = max(len(training.x) // plan.batch_size, 1)
        self._epoch, self._order = -1, np.zeros(0, int)

    def _batch(self, step: int) -> Rows:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.plan.seed, epoch])
            self._epoch, self._order = epoch, self.objective.put(rng.permutation(len(self.training.x)))
        index = self._order[place * self.plan.batch_size : (place + 1) * self.plan.batch_size]
        return self.training.take(index)

    def loss(self, flat: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        batch = self._batch(step)
        return self.objective(flat, batch.x, batch.context)

    def score(self, flow: Flow) -> tuple[float, float] | None:
        if self.validation is None:
            return None
        return float(np.mean(flow.log_prob(self.validation.x, self.validation.context))), 0.0


def train(
    flow: Flow,
    training: Rows,
    validation: Rows | None,
    plan: Plan,
    run: dict[str, Any],
    *,
    threads: int | None = None,
    **options: Any,
) -> tuple[Flow, dict[str, Any]]:
    """Fit a flow by a plan; ``options`` as of :func:`refnaf.training.loop.optimise`, which see for the result."""
    task = _Likelihood(flow, training, validation, plan, default_threads(threads))
    return optimise(flow, task, plan, run, **options)
