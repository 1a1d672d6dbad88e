"""``refnaf.fit_variational``: a flow fitted to a log-density instead of rows."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refnaf import __version__
from refnaf.errors import DataWarning
from refnaf.flows import build, model_options, models
from refnaf.flows.flow import Flow
from refnaf.objective import FreeEnergy, mean_and_error
from refnaf.parallel import default_threads, serial_algebra
from refnaf.reference.variational import annealed
from refnaf.training.data import fingerprint
from refnaf.training.importance import Importance, importance
from refnaf.training.loop import Plan, check_positive, optimise
from refnaf.training.target import Target

#: Samples at which a log-density is tried first, and those at which each evaluation scores the averaged parameters.
FIRST_SAMPLES, SCORED_SAMPLES = 64, 2048
# what is drawn from a seed
_STEP, _SCORE, _REPORT = 1, 2, 3


def fit_variational(
    log_density: Callable[[Any], Any],
    dim: int,
    model: str = "iaf-dsf",
    *,
    location: Any = None,
    scale: Any = None,
    seed: int = 0,
    dtype: str = "float32",
    steps: int = 3000,
    batch_size: int = 256,
    anneal: float = 0.0,
    path_derivative: bool = False,
    samples: int = 20_000,
    max_time: float | None = None,
    patience: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    clip: float = 10.0,
    averaging: float | None = None,
    threads: int | None = None,
    backend: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Flow:
    """Fit a flow to an unnormalised log-density by variational inference.

    Minimises the free energy ``E_q[log q(x) - log p(x)]``, which is the reverse KL divergence less ``log Z``, by
    reparameterised samples of the flow (slides eq. 5-7 and 31-37, Rezende and Mohamed 2015, Huang et al. 2018).

    ``log_density`` takes x ``(N, dim)`` float64 and returns ``(N,)`` nats up to a constant, each row by itself, finite
    everywhere, written with ``autograd.numpy``. Any model works; those that sample in one pass are fast: ``iaf``,
    ``iaf-dsf``, ``iaf-ddsf``, and ``planar``, whose ``direction`` is "sampling" here unless it is given.
    ``location`` and ``scale`` ``(dim,)`` move and stretch the base, to start where the mass is.

    Each of ``steps`` steps draws ``batch_size`` samples. With ``anneal`` the target is ``p^beta``, beta rising linearly
    from 0.01 to 1 over that part of the steps, which helps to find all modes. ``path_derivative`` leaves the score out
    of the gradient in the second half of the steps (Roeder, Wu and Duvenaud 2017): less noise near the optimum, for
    more time a step; far from it, it can be more noise. ``max_time`` bounds the seconds, ``patience`` the evaluations
    without improvement. ``samples`` are drawn at the end for what is reported. The rest is as for :func:`refnaf.fit`;
    ``options`` go to :func:`refnaf.build`.

    Returns a Flow. In its ``history``, and in the events that ``progress`` is called with, an epoch is one step,
    "train" is the batches' ELBO (the free energy with the other sign, at the beta of the time) and "validation" that of
    the averaged parameters. Kept are the latest of those within a standard error of the best. ``provenance["scores"]``
    has "elbo" and "log_normaliser" (by importance sampling), each [nats, standard error], from fresh samples;
    ``provenance["importance"]`` their number, the effective sample size and Pareto k of the weights.

    Raises ValueError for a log-density or options that cannot be used, and FitError where training failed before it had
    anything to return. Warns (DataWarning) where the weights are too uneven for the log normaliser to be trusted.
    """
    check_positive(steps=steps, batch_size=batch_size, learning_rate=learning_rate, max_time=max_time)
    check_positive(patience=patience)
    if backend == "cuda":
        raise ValueError("variational fits run on the host: choose backend 'numba' or 'numpy'")
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}")
    if not 0 <= anneal < 1:
        raise ValueError(f"anneal must be a part of the steps in [0, 1), got {anneal}")
    if model in models() and "direction" in model_options(model):
        options = {"direction": "sampling", **options}
    flow = _centred(build(model, dim, seed=seed, dtype=dtype, **options), location, scale)
    flow = flow.replace({}, backend=backend or flow.backend, threads=default_threads(threads))
    target = Target(log_density)
    with serial_algebra():
        points = flow.sample(FIRST_SAMPLES, seed=seed)
        target.check(points)
        values = target.values(points)
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        every=int(np.clip(steps // 50, 20, 1000)),
        patience=patience,
        learning_rate=learning_rate or 5e-3,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        clip=clip,
        averaging=0.99 if averaging is None else averaging,
        seed=seed,
        max_time=max_time,
    )
    settings = {"anneal": anneal, "path_derivative": path_derivative}
    run = {
        "config": json.loads(json.dumps(flow.config)),
        "backend": flow.backend,
        "plan": {**plan.identity(), **settings},
        "location and scale": fingerprint(np.stack(list(flow.layers[0].buffers.values()))),
        "log density": fingerprint(values),
    }
    task = _ReverseKL(flow, target, plan, anneal, path_derivative, default_threads(threads))
    flow, record = optimise(flow, task, plan, run, checkpoint=checkpoint, resume=resume, progress=progress)
    with serial_algebra():
        found = importance(_log_weights(flow, target, samples, seed, _REPORT))
    if found.distrust:
        warnings.warn(
            f"{found.distrust}: do not trust the log normaliser; more steps, anneal=0.5 or another model may help",
            DataWarning,
            stacklevel=2,
        )
    flow.provenance = {
        "target": {"log_density": target.name, "columns": dim},
        "seed": seed,
        "training": {**record, **settings},
        **_reported(found),
        "versions": {"refnaf": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    return flow


class _ReverseKL:
    """The free energy as a task of the training loop: samples of a step from seed and step alone."""

    per_epoch = 1
    judged = True

    def __init__(self, flow: Flow, target: Target, plan: Plan, anneal: float, path: bool, threads: int) -> None:
        self.objective = FreeEnergy(flow, target, threads)
        self.target, self.plan = target, plan
        self.rising, self.path_from = anneal * plan.steps, plan.steps // 2 if path else plan.steps

    def beta(self, step: int) -> float:
        """The power of the target."""
        return annealed(step, self.rising)

    def loss(self, flat: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        rng = np.random.default_rng([self.plan.seed, _STEP, step])
        z = rng.standard_normal((self.plan.batch_size, self.objective.flow.dim))
        return self.objective(flat, z, self.beta(step), path=step >= self.path_from)

    def score(self, flow: Flow) -> tuple[float, float]:
        # samples cannot be learnt by heart, so that the latest parameters are the best as far as noise can tell
        return mean_and_error(_log_weights(flow, self.target, SCORED_SAMPLES, self.plan.seed, _SCORE))


def _log_weights(flow: Flow, target: Target, n: int, seed: int, purpose: int) -> np.ndarray:
    """``log p(x) - log q(x)`` ``(n,)`` at samples of the flow."""
    drawn = int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
    x, log_q = flow.sample(n, seed=drawn, return_log_prob=True)
    return target.values(x) - log_q


def _centred(flow: Flow, location: Any, scale: Any) -> Flow:
    """The flow with another location and scale in its first layer, where they are given."""
    for name, given in (("mean", location), ("scale", scale)):
        if given is None:
            continue
        what = "location" if name == "mean" else "scale"
        numbers = np.asarray(given)
        if numbers.dtype.kind not in "fiu" or numbers.shape != (flow.dim,) or not np.isfinite(numbers).all():
            raise ValueError(f"{what} must be {flow.dim} finite numbers, one a dimension, got {given!r}")
        if name == "scale" and not np.all(numbers > 0):
            raise ValueError(f"scale must be positive in every dimension, got {given!r}")
        flow.layers[0].buffers[name] = numbers.astype(np.float64)
    return flow


def _reported(found: Importance) -> dict[str, Any]:
    return {
        "scores": {"elbo": list(found.elbo), "log_normaliser": list(found.log_normaliser)},
        "importance": {
            "samples": found.samples,
            "ess": found.ess,
            "pareto_k": found.pareto_k,
            "lost": found.lost,
        },
    }
