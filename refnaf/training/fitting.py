"""``refnaf.fit``: from rows to a flow."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refnaf import __version__
from refnaf.flows import build, model_options, models
from refnaf.flows.flow import Flow
from refnaf.objective import mean_and_error
from refnaf.parallel import default_threads, serial_algebra
from refnaf.training.data import (
    FEWEST_ROWS,
    SCORED_ROWS,
    Rows,
    as_rows,
    fingerprint,
    location_and_scale,
    split_rows,
    warn_if_discrete,
)
from refnaf.training.gaussian import fit_gaussian, wants_linear, whiten
from refnaf.training.likelihood import train
from refnaf.training.loop import Plan

Progress = Callable[[dict[str, Any]], None]


def fit(
    x: Any,
    model: str = "maf-ddsf",
    *,
    validation: Any = 0.1,
    context: Any = None,
    validation_context: Any = None,
    seed: int = 0,
    dtype: str = "float32",
    epochs: float | None = None,
    max_time: float | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    amsgrad: bool = False,
    clip: float = 10.0,
    averaging: float | None = None,
    threads: int | None = None,
    backend: str | None = None,
    drop_nonfinite: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Flow:
    """Fit a flow to the rows of x ``(N, D)`` by maximum likelihood.

    ``validation`` is a fraction of the rows, rows of their own ``(M, D)`` (with ``validation_context``), or None or 0
    for none; the parameters with the best validation nats are kept. ``context`` ``(N, C)`` makes the density
    conditional. Everything left at None is chosen from the data's size. ``epochs`` bounds the passes over the training
    rows, ``max_time`` the seconds, ``patience`` the evaluations without improvement. ``averaging`` is the decay of the
    exponential moving average of the parameters, which is what is evaluated and returned. ``threads`` (as many as there
    are cores, at most 4) never changes the numbers; ``backend`` ("numba" where it is installed, "numpy", or "cuda")
    changes their last digits. With ``checkpoint`` the state is written there at every evaluation, and ``resume`` goes
    on from it to the same result. ``progress`` is called with a dict for each event. ``options`` go to
    :func:`refnaf.build`; with a context, or fewer than 50 training rows a column, ``linear`` is True unless given.

    Returns a Flow with its ``history`` and ``provenance``. Raises ValueError for data or options that cannot be used,
    and FitError where training failed before it had anything to return.
    """
    rows = as_rows(x, context, drop_nonfinite=drop_nonfinite)
    training, held_out = _split(rows, validation, validation_context, seed, drop_nonfinite)
    dim = rows.x.shape[1]
    context_dim = 0 if rows.context is None else rows.context.shape[1]
    if len(training.x) < max(FEWEST_ROWS, dim + 1):
        raise ValueError(
            f"{len(training.x)} training rows are too few for {dim} columns: "
            f"at least {max(FEWEST_ROWS, dim + 1)} are needed"
        )
    if model == "gaussian":
        # closed form in float64; the numbers are then kept in the dtype asked for
        flow = _standardised(build(model, dim, context_dim, seed=seed, dtype="float64", **options), training)
        flow = fit_gaussian(flow, training).astype(dtype)
        record: dict[str, Any] = {"stopped": "closed form", "epochs": 0}
    else:
        if model in models() and "linear" in model_options(model) and wants_linear(training):
            options = {"linear": True, **options}
        flow = _standardised(build(model, dim, context_dim, seed=seed, dtype=dtype, **options), training)
        flow = whiten(flow, training).replace({}, backend=backend or flow.backend, threads=default_threads(threads))
        warn_if_discrete(training.x)
        plan = Plan.choose(
            len(training.x),
            dim,
            validated=held_out is not None,
            epochs=epochs,
            max_time=max_time,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            clip=clip,
            averaging=averaging,
            seed=seed,
        )
        run = {
            "config": json.loads(json.dumps(flow.config)),
            "backend": flow.backend,
            "plan": plan.identity(),
            "training": fingerprint(training.x),
            "validation": None if held_out is None else fingerprint(held_out.x),
        }
        flow, record = train(
            flow,
            training,
            held_out,
            plan,
            run,
            threads=threads,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
        )
    with serial_algebra():
        head = training.take(slice(SCORED_ROWS))
        scores = {"train": mean_and_error(flow.log_prob(head.x, head.context))}
        if held_out is not None:
            scores["validation"] = mean_and_error(flow.log_prob(held_out.x, held_out.context))
    flow.provenance = {
        "data": {"rows": len(rows), "columns": dim, "sha256": fingerprint(rows.x)},
        "context": None if rows.context is None else {"columns": context_dim, "sha256": fingerprint(rows.context)},
        "seed": seed,
        "training": {"rows": len(training.x), "validation_rows": 0 if held_out is None else len(held_out.x), **record},
        "scores": {name: list(pair) for name, pair in scores.items()},
        "versions": {
            "refnaf": __version__,
            "numpy": np.__version__,
            "backend": flow.backend,
            "python": platform.python_version(),
        },
    }
    return flow


def _split(rows: Rows, validation: Any, validation_context: Any, seed: int, drop: bool) -> tuple[Rows, Rows | None]:
    """Training rows, and validation rows or None."""
    if validation is None or np.ndim(validation) == 0:
        first, second, _ = split_rows(len(rows), seed, test=0.0, validation=float(validation or 0))
        return rows.take(first), rows.take(second) if len(second) else None
    if (rows.context is None) != (validation_context is None):
        raise ValueError("context and validation_context go together where validation rows are given")
    held_out = as_rows(validation, validation_context, drop_nonfinite=drop, what="the validation data")
    dim = rows.x.shape[1]
    if held_out.x.shape[1] != dim:
        raise ValueError(f"the validation data must have {dim} columns like x, got {held_out.x.shape[1]}")
    return rows, held_out


def _standardised(flow: Flow, training: Rows) -> Flow:
    """The flow with mean and scale of the training rows (and of their context) in its first layer."""
    buffers = flow.layers[0].buffers
    buffers["mean"], buffers["scale"] = location_and_scale(training.x)
    if training.context is not None:
        buffers["context_mean"], buffers["context_scale"] = location_and_scale(training.context, "the context")
    return flow
