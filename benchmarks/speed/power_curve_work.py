"""The work of ``power_curve.py``, and refnaf at it: the flow, the rows of each step, the plan."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import ours

import refnaf
from refnaf.datasets.published import Data
from refnaf.datasets.recipes import Recipe
from refnaf.flows.flow import Flow
from refnaf.objective import NegativeLogLikelihood
from refnaf.training.adam import Adam
from refnaf.training.data import location_and_scale
from refnaf.training.likelihood import VALIDATION_ROWS
from refnaf.training.loop import FAILURES, Plan, weights

#: Test rows that are scored at each evaluation.
TEST_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class Work:
    """What both libraries do: a flow before training, its rows ``(N, D)`` float64, the plan, the threads."""

    flow: Flow
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    plan: Plan
    threads: int

    @classmethod
    def of(cls, data: Data, settings: Recipe, threads: int) -> Work:
        """As ``refnaf.fit`` would settle it with seed 0."""
        train, validation, test = (part.astype(np.float64) for part in data)
        flow = refnaf.build(settings.model, dim=train.shape[1], **settings.options).replace({}, threads=threads)
        buffers = flow.layers[0].buffers
        buffers["mean"], buffers["scale"] = location_and_scale(train)
        usual: dict[str, Any] = {"amsgrad": False, "clip": 10.0, "seed": 0}
        chosen = ("epochs", "max_time", "patience", "batch_size", "learning_rate", "weight_decay", "averaging")
        usual |= dict.fromkeys(chosen)
        plan = Plan.choose(len(train), flow.dim, validated=True, **{**usual, **settings.training})
        return cls(flow, train, validation[:VALIDATION_ROWS], test[:TEST_ROWS], plan, threads)


class Batches:
    """The rows of each step: a new order of all of them each epoch, drawn as ``refnaf.fit`` does."""

    def __init__(self, rows: np.ndarray, plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self.per_epoch = max(len(rows) // plan.batch_size, 1)
        self._epoch, self._order = -1, np.zeros(0, int)

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.plan.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.rows))
        return self.rows[self._order[place * self.plan.batch_size : (place + 1) * self.plan.batch_size]]


class Skips:
    """Steps whose loss or gradient is not finite: they are left out, as ``refnaf.fit`` leaves them out, and counted."""

    def __init__(self) -> None:
        self.total, self._in_a_row = 0, 0

    def is_good(self, step: int, loss: float, norm: float) -> bool:
        """Whether to take a step. Raises FloatingPointError where there were too many bad ones in a row."""
        good = math.isfinite(loss) and math.isfinite(norm)
        self.total += not good
        self._in_a_row = 0 if good else self._in_a_row + 1
        if self._in_a_row >= FAILURES:
            raise FloatingPointError(f"step {step}: loss {loss}, norm of its gradient {norm}; the run ends here")
        return good


class Trainer(Protocol):
    """One library at the work."""

    name: str
    skips: Skips

    def around(self) -> AbstractContextManager[Any]:
        """Steps are taken inside."""

    def gradient(self, step: int) -> tuple[float, np.ndarray]:
        """The loss of a step's rows in nats and its gradient in all numbers, in the order of ``flow.params``."""

    def step(self, step: int) -> None:
        """One update, or none where the loss or its gradient is not finite (:class:`Skips`)."""

    def score(self, rows: np.ndarray) -> float:
        """Mean nats of rows ``(N, D)`` under the averaged parameters."""


class Refnaf:
    """refnaf's own pieces, as its training loop puts them together."""

    name = ours.NAME

    def __init__(self, work: Work) -> None:
        plan, self.flow = work.plan, work.flow
        self.plan, self.batches = plan, Batches(work.train, plan)
        self.objective = NegativeLogLikelihood(work.flow, work.threads)
        self.skips = Skips()
        flat = self.objective.flat()
        self.adam = Adam(
            flat,
            clip=plan.clip,
            decay=plan.weight_decay,
            decayed=weights(self.objective.views(flat)),
            averaging=plan.averaging,
            backend=work.flow.backend,
            workers=self.objective.workers,
        )

    def around(self) -> AbstractContextManager[Any]:
        return ours.one_blas_thread()

    def gradient(self, step: int) -> tuple[float, np.ndarray]:
        with self.around():
            loss, grad = self.objective(self.adam.flat, self.batches[step], None)
        return float(loss), self.objective.whole(grad).copy()

    def step(self, step: int) -> None:
        loss, grad = self.objective(self.adam.flat, self.batches[step], None)
        norm = self.adam.norm(grad)
        if self.skips.is_good(step, float(loss), norm):
            self.adam.step(grad, self.plan.rate(step), norm)

    def score(self, rows: np.ndarray) -> float:
        return float(np.mean(self.flow.replace(self.objective.params(self.adam.average)).log_prob(rows)))
