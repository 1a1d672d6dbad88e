"""The training loop: steps, evaluations, early stopping, recovery, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from refnaf import ops as operations
from refnaf.errors import FitError
from refnaf.flows.flow import Flow
from refnaf.objective import Objective
from refnaf.parallel import serial_algebra
from refnaf.training.adam import Adam
from refnaf.training.checkpoint import load_checkpoint, save_checkpoint

#: Failed steps in a row after which a run gives up.
FAILURES = 20

#: Steps on a device between two looks at what became of them.
LOOK = 50


def check_positive(**numbers: float | None) -> None:
    """Raises ValueError for a number that is given and not positive."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be positive, got {number}")


@dataclasses.dataclass
class Plan:
    """The numbers of a run, all settled before it starts."""

    steps: int
    batch_size: int
    every: int
    patience: int | None
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
        check_positive(**{name: given[name] for name in ("max_time", "patience", "batch_size", "learning_rate")})
        check_positive(epochs=epochs)
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


class Task(Protocol):
    """What a run works on."""

    #: Steps an epoch.
    per_epoch: int
    #: Whether there is a score to choose the best parameters by; the latest are kept where there is none.
    judged: bool

    @property
    def objective(self) -> Objective:
        """Makes the flat vector of parameters, and is closed when the run ends."""

    def loss(self, flat: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """The loss of a step, in nats, and its gradient; of the step's number alone, so that a run can be resumed."""

    def score(self, flow: Flow) -> tuple[float, float] | None:
        """Mean nats of the flow with averaged parameters, and how many fewer than the most are as good; or None."""


def optimise(
    flow: Flow,
    task: Task,
    plan: Plan,
    run: dict[str, Any],
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Flow, dict[str, Any]]:
    """Run a plan. Returns the flow with the best averaged parameters, and a record of how it went."""
    try:
        with serial_algebra():
            return _Run(flow, task, plan, run, checkpoint, progress).go(resume)
    finally:
        task.objective.close()


class _Run:
    def __init__(
        self,
        flow: Flow,
        task: Task,
        plan: Plan,
        run: dict[str, Any],
        checkpoint: str | Path | None,
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.flow, self.task, self.plan, self.run = flow, task, plan, run
        self.checkpoint, self.tell = checkpoint, progress or (lambda event: None)
        # on a device steps are taken before anyone has seen their loss
        self.unseen = flow.backend == "cuda"
        flat = task.objective.flat()
        self.adam: Any = _adam(flow.backend)(
            flat,
            clip=plan.clip,
            decay=plan.weight_decay,
            decayed=weights(task.objective.views(flat)),
            amsgrad=plan.amsgrad,
            averaging=plan.averaging,
            backend=flow.backend,
            workers=task.objective.workers,
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
            "failed": 0,
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
            score = self._score()
            if score is not None:
                self._consider(*score)
        first = state["step"]
        while state["step"] < plan.steps:
            if not (self._step_unseen() if self.unseen else self._step()):
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
                if self.task.judged and plan.patience is not None and state["since_best"] >= plan.patience:
                    stopped = f"no improvement in {plan.patience} evaluations"
                    break
        if state["best_score"] is None:
            raise FitError(f"training failed: no loss was finite ({stopped}); lower the learning rate")
        if state["best_step"] == 0:
            stopped = f"nothing was better than the untrained model ({stopped}); lower the learning rate"
            self.tell({"kind": "message", "text": stopped})
        params = self.task.objective.params(self.best)
        record = {
            "epochs": round(state["step"] / self.task.per_epoch, 3),
            "best_epoch": round(state["best_step"] / self.task.per_epoch, 3),
            "stopped": stopped,
            "failed": state["failures"] >= FAILURES,
            "failed_steps": state["failed"],
            **plan.identity(),
        }
        return self.flow.replace(params, history=self.history), record

    def _step(self) -> bool:
        """One update. A step whose loss or gradient is not finite is left out, and after two of them the numbers are
        taken for bad: the run goes on from the best so far. False after too many in a row."""
        state = self.state
        while True:
            loss, grad = self.task.loss(self.adam.flat, state["step"])
            loss = float(loss)
            norm = self.adam.norm(grad)
            if math.isfinite(loss) and math.isfinite(norm):
                break
            state["slowed"] *= 0.5
            state["failures"] += 1
            state["failed"] += 1
            what = "left out"
            if state["failures"] > 1:
                self.adam.restart(self.best)
                what = "gone back to the best so far"
            rate = self.plan.rate(state["step"]) * state["slowed"]
            text = f"step {state['step']}: loss not finite, {what}; learning rate now {rate:.2g}"
            self.tell({"kind": "message", "text": text})
            if state["failures"] >= FAILURES:
                return False
            state["step"] += 1
        state["failures"] = 0
        state["loss_sum"] += loss
        state["loss_count"] += 1
        self.adam.step(grad, self.plan.rate(state["step"]) * state["slowed"], norm)
        return True

    def _step_unseen(self) -> bool:
        """One update, which a device leaves out where it is not finite, and now and then a look at what became of them.

        Where none of the steps since the last look was taken, the run goes on from the best so far.
        """
        state, plan = self.state, self.plan
        loss, grad = self.task.loss(self.adam.flat, state["step"])
        self.adam.step_unseen(loss, grad, plan.rate(state["step"]) * state["slowed"])
        done = state["step"] + 1
        if done % LOOK and done % plan.every and done != plan.steps:
            return True
        tally = self.adam.look()
        state["loss_sum"] += tally.losses
        state["loss_count"] += tally.taken
        state["failed"] += tally.left_out
        state["failures"] = state["failures"] + tally.left_out if not tally.taken else 0
        if tally.left_out:
            state["slowed"] *= 0.5
            what = f"{tally.left_out} of the last steps had a loss that was not finite, and were left out"
            if not tally.taken:
                self.adam.restart(self.best)
                what += "; gone back to the best so far"
            rate = plan.rate(state["step"]) * state["slowed"]
            self.tell({"kind": "message", "text": f"step {done}: {what}; learning rate now {rate:.2g}"})
        return bool(state["failures"] < FAILURES)

    def _score(self) -> tuple[float, float] | None:
        """What the task makes of the averaged parameters."""
        with np.errstate(all="ignore"):
            return self.task.score(self.flow.replace(self.task.objective.params(self.adam.average)))

    def _consider(self, score: float, tolerance: float) -> None:
        """Keep the averaged parameters if they are the best so far, or the latest of equals."""
        state = self.state
        best = state["best_score"]
        better = math.isfinite(score) and (not self.task.judged or best is None or score > best)
        if better or (best is not None and score > best - tolerance):
            np.copyto(self.best, self.adam.average)
            state["best_step"] = state["step"]
        if better:
            state["best_score"], state["since_best"] = score, 0
        else:
            state["since_best"] += 1

    def _evaluate(self, seconds: float, speed: float) -> None:
        state, plan = self.state, self.plan
        train = -state["loss_sum"] / max(state["loss_count"], 1)
        state["loss_sum"], state["loss_count"] = 0.0, 0
        score = self._score()
        self._consider(*(score or (train, 0.0)))
        validation = None if score is None else score[0]
        epoch = round(state["step"] / self.task.per_epoch, 3)
        rate = plan.rate(state["step"]) * state["slowed"]
        self.history.append({"epoch": epoch, "train": train, "validation": validation, "learning_rate": rate})
        left = (plan.steps - state["step"]) / speed
        if plan.max_time is not None:
            left = min(left, plan.max_time - seconds)
        self.tell(
            {
                "kind": "epoch",
                "epoch": epoch,
                "epochs": round(plan.steps / self.task.per_epoch, 3),
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
        # vectors are written whole: how they are stored is the backend's, and may be the machine's
        whole = self.task.objective.whole
        tensors = {f"adam.{k}": whole(v) if self._is_vector(k, v) else v for k, v in self.adam.state().items()}
        tensors["best"] = whole(operations.make(self.flow.backend).get(self.best))
        save_checkpoint(self.checkpoint, tensors, {"numbers": self.state, "history": self.history}, self.run)

    def _is_vector(self, name: str, array: np.ndarray) -> bool:
        return name in self.adam.STATE and len(array) > 0

    def _restore(self) -> None:
        assert self.checkpoint is not None
        tensors, state = load_checkpoint(self.checkpoint, self.run)
        stored, put = self.task.objective.stored, self.task.objective.put
        held = {k[5:]: v for k, v in tensors.items() if k.startswith("adam.")}
        self.adam.restore({k: stored(v) if self._is_vector(k, v) else v for k, v in held.items()})
        np.copyto(self.best, put(stored(tensors["best"])))
        self.state, self.history = state["numbers"], state["history"]
        self.tell({"kind": "message", "text": f"resumed from {self.checkpoint} at step {self.state['step']}"})


def _adam(backend: str) -> type[Adam]:
    if backend != "cuda":
        return Adam
    from refnaf.training.adam_device import DeviceAdam

    return DeviceAdam


def weights(views: Mapping[str, np.ndarray]) -> list[slice]:
    """Where the weights, which alone decay, lie in the flat vector that these are views of."""
    found, start = [], 0
    for name, array in views.items():
        if "weight" in name:
            found.append(slice(start, start + array.size))
        start += array.size
    return found
