"""The training loop: steps, evaluations, early stopping, recovery, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refnaf.errors import FitError
from refnaf.flows.flow import Flow
from refnaf.objective import NegativeLogLikelihood
from refnaf.training.adam import Adam
from refnaf.training.checkpoint import load_checkpoint, save_checkpoint
from refnaf.training.data import Rows

#: Rows of the validation part that are scored at each evaluation.
VALIDATION_ROWS = 50_000
#: Failed steps in a row after which a run gives up.
FAILURES = 20


@dataclasses.dataclass
class Plan:
    """The numbers of a run, all settled before it starts."""

    steps: int
    batch_size: int
    every: int
    patience: int
    learning_rate: float
    weight_decay: float
    amsgrad: bool
    clip: float
    averaging: float
    seed: int
    max_time: float | None

    @classmethod
    def choose(cls, rows: int, dim: int, *, validated: bool, epochs: float | None, **given: Any) -> Plan:
        """Fill in what was left at None. Raises ValueError for numbers that make no sense."""
        for name in ("max_time", "patience", "batch_size", "learning_rate"):
            if given[name] is not None and not given[name] > 0:
                raise ValueError(f"{name} must be positive, got {given[name]}")
        if epochs is not None and not epochs > 0:
            raise ValueError(f"epochs must be positive, got {epochs}")
        batch = min(given["batch_size"] or (128 if rows < 5000 else 256 if rows < 50_000 else 512), rows)
        per_epoch = max(rows // batch, 1)
        every = int(np.clip(per_epoch, 20, 1000))
        if epochs is not None:
            steps = max(round(epochs * per_epoch), 1)
            every = min(every, per_epoch if epochs < 20 else every, steps)
        else:
            steps = (
                int(np.clip(40 * per_epoch, 3000, 60_000)) if validated else int(np.clip(20 * per_epoch, 1000, 30_000))
            )
        return cls(
            steps=steps,
            batch_size=batch,
            every=every,
            patience=given["patience"] or 30,
            learning_rate=given["learning_rate"] or 2e-2,
            weight_decay=1e-4 if given["weight_decay"] is None else given["weight_decay"],
            amsgrad=given["amsgrad"],
            clip=given["clip"],
            averaging=0.99 if given["averaging"] is None else given["averaging"],
            seed=given["seed"],
            max_time=given["max_time"],
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed; the time limit may change."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "max_time"}

    def rate(self, step: int) -> float:
        """Learning rate: a short linear warm-up, then half a cosine down to 1% of the peak."""
        warm = min(1.0, (step + 1) / min(100, max(self.steps // 10, 1)))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (0.01 + 0.99 * fall)


class _Batches:
    """Minibatches by step number: a new order of the rows each epoch, drawn from seed and epoch alone."""

    def __init__(self, rows: Rows, plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self.per_epoch = max(len(rows.x) // plan.batch_size, 1)
        self._epoch, self._order = -1, np.zeros(0, int)

    def __call__(self, step: int) -> Rows:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.rows.x)),
            )
        index = self._order[place * self.plan.batch_size : (place + 1) * self.plan.batch_size]
        return self.rows.take(index)


def train(
    flow: Flow,
    training: Rows,
    validation: Rows | None,
    plan: Plan,
    run: dict[str, Any],
    *,
    threads: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Flow, dict[str, Any]]:
    """Run a plan. Returns the flow with the best averaged parameters, and a record of how it went."""
    from threadpoolctl import threadpool_limits

    threads = threads or min(os.cpu_count() or 1, 4)
    loss = NegativeLogLikelihood(flow, threads)
    try:
        # one thread of linear algebra for each of ours: no oversubscription, and the same bits for any number
        with threadpool_limits(1, "blas"):
            return _Run(flow, training, validation, plan, run, loss, checkpoint, progress).go(resume)
    finally:
        loss.close()


class _Run:
    def __init__(
        self,
        flow: Flow,
        training: Rows,
        validation: Rows | None,
        plan: Plan,
        run: dict[str, Any],
        loss: NegativeLogLikelihood,
        checkpoint: str | Path | None,
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.flow, self.plan, self.run, self.loss = flow, plan, run, loss
        self.validation = None if validation is None else validation.take(slice(VALIDATION_ROWS))
        self.batches = _Batches(training, plan)
        self.checkpoint, self.tell = checkpoint, progress or (lambda event: None)
        decayed = np.concatenate(
            [np.full(a.size, "weight" in name, flow.dtype) for name, a in flow.params.items()]
            or [np.zeros(0, flow.dtype)]
        )
        self.adam = Adam(
            loss.flat(),
            clip=plan.clip,
            decay=plan.weight_decay,
            decayed=decayed,
            amsgrad=plan.amsgrad,
            averaging=plan.averaging,
        )
        self.best = self.adam.flat.copy()
        # plain numbers, all of them written into a checkpoint
        self.state: dict[str, Any] = {
            "step": 0,
            "best_score": None,
            "best_step": 0,
            "since_best": 0,
            "slowed": 1.0,
            "failures": 0,
            "undone": 0,
            "loss_sum": 0.0,
            "loss_count": 0,
        }
        self.history: list[dict[str, Any]] = []

    def go(self, resume: bool) -> tuple[Flow, dict[str, Any]]:
        if resume and self.checkpoint is not None and Path(self.checkpoint).exists():
            self._restore()
        began, stopped = time.monotonic(), "all steps taken"
        state, plan = self.state, self.plan
        if state["step"] == 0:
            # the untrained flow is the first to beat
            self._consider(self._validation_score())
        first = state["step"]
        while state["step"] < plan.steps:
            if not self._step():
                stopped = (
                    f"{FAILURES} steps in a row had a loss or gradient that was not finite; "
                    "the best model so far was kept"
                )
                self.tell({"kind": "message", "text": f"training stopped: {stopped}"})
                break
            state["step"] += 1
            self.tell({"kind": "step", "step": state["step"], "steps": plan.steps, "every": plan.every})
            seconds = time.monotonic() - began
            timed_out = plan.max_time is not None and seconds >= plan.max_time
            if state["step"] % plan.every == 0 or state["step"] == plan.steps or timed_out:
                self._evaluate(seconds, (state["step"] - first) / max(seconds, 1e-9))
                self._save()
                if timed_out:
                    stopped = "the time limit was reached"
                    break
                if self.validation is not None and state["since_best"] >= plan.patience:
                    stopped = f"no improvement in {plan.patience} evaluations"
                    break
        if state["best_score"] is None:
            raise FitError(f"training failed: no loss was finite ({stopped}); lower the learning rate")
        if state["best_step"] == 0:
            stopped = f"nothing was better than the untrained model ({stopped}); lower the learning rate"
            self.tell({"kind": "message", "text": stopped})
        params = self.loss.views(self.best)
        record = {
            "epochs": round(state["step"] / self.batches.per_epoch, 3),
            "best_epoch": round(state["best_step"] / self.batches.per_epoch, 3),
            "stopped": stopped,
            "failed": state["failures"] >= FAILURES,
            "undone_steps": state["undone"],
            **plan.identity(),
        }
        return self.flow.replace(params, history=self.history), record

    def _step(self) -> bool:
        """One update; a step whose loss or gradient is not finite is undone. False after too many in a row."""
        state = self.state
        while True:
            batch = self.batches(state["step"])
            loss, grad = self.loss(self.adam.flat, batch.x, batch.context)
            with np.errstate(over="ignore", invalid="ignore"):
                fine = math.isfinite(loss) and math.isfinite(float(np.dot(grad, grad)))
            if fine:
                break
            # the numbers that gave this loss came from the step before: take that one back too
            self.adam.undo()
            state["slowed"] *= 0.5
            state["failures"] += 1
            state["undone"] += 1
            rate = self.plan.rate(state["step"]) * state["slowed"]
            self.tell(
                {
                    "kind": "message",
                    "text": f"step {state['step']}: loss not finite, undone; learning rate now {rate:.2g}",
                }
            )
            if state["failures"] >= FAILURES:
                return False
            state["step"] += 1
        state["failures"] = 0
        state["loss_sum"] += loss
        state["loss_count"] += 1
        self.adam.step(grad, self.plan.rate(state["step"]) * state["slowed"])
        return True

    def _validation_score(self) -> float | None:
        """Mean nats of the validation rows under the averaged parameters."""
        if self.validation is None:
            return None
        averaged = self.flow.replace(self.loss.views(self.adam.average))
        with np.errstate(all="ignore"):
            return float(np.mean(averaged.log_prob(self.validation.x, self.validation.context)))

    def _consider(self, score: float | None) -> None:
        """Keep the averaged parameters if they are the best so far, or the latest where nothing is held out."""
        state = self.state
        if score is None:
            return
        best = state["best_score"]
        if math.isfinite(score) and (self.validation is None or best is None or score > best):
            np.copyto(self.best, self.adam.average)
            state["best_score"], state["best_step"], state["since_best"] = score, state["step"], 0
        else:
            state["since_best"] += 1

    def _evaluate(self, seconds: float, speed: float) -> None:
        state, plan = self.state, self.plan
        train = -state["loss_sum"] / max(state["loss_count"], 1)
        state["loss_sum"], state["loss_count"] = 0.0, 0
        validation = self._validation_score()
        self._consider(train if validation is None else validation)
        epoch = round(state["step"] / self.batches.per_epoch, 3)
        rate = plan.rate(state["step"]) * state["slowed"]
        self.history.append({"epoch": epoch, "train": train, "validation": validation, "learning_rate": rate})
        left = (plan.steps - state["step"]) / speed
        if plan.max_time is not None:
            left = min(left, plan.max_time - seconds)
        self.tell(
            {
                "kind": "epoch",
                "epoch": epoch,
                "epochs": round(plan.steps / self.batches.per_epoch, 3),
                "train": train,
                "validation": validation,
                "best": state["best_score"],
                "seconds": seconds,
                "seconds_left": max(left, 0.0),
            }
        )

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {f"adam.{k}": v for k, v in self.adam.state().items()} | {"best": self.best}
        save_checkpoint(self.checkpoint, tensors, {"numbers": self.state, "history": self.history}, self.run)

    def _restore(self) -> None:
        assert self.checkpoint is not None
        tensors, state = load_checkpoint(self.checkpoint, self.run)
        self.adam.restore({k[5:]: v for k, v in tensors.items() if k.startswith("adam.")})
        np.copyto(self.best, tensors["best"])
        self.state, self.history = state["numbers"], state["history"]
        self.tell({"kind": "message", "text": f"resumed from {self.checkpoint} at step {self.state['step']}"})
