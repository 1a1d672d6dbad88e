"""``refnaf.fit``: from rows to a flow."""

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
from refnaf.flows import build
from refnaf.flows.flow import Flow
from refnaf.objective import mean_and_error
from refnaf.training.data import (
    FEWEST_ROWS,
    SCORED_ROWS,
    as_rows,
    fingerprint,
    location_and_scale,
    split_rows,
    warn_if_discrete,
)
from refnaf.training.gaussian import fit_gaussian
from refnaf.training.loop import Plan, Rows, train

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
    exponential moving average of the parameters, which is what is evaluated and returned. ``threads`` never changes the
    numbers. With ``checkpoint`` the state is written there at every evaluation, and ``resume`` goes on from it to the
    same result. ``progress`` is called with a dict for each event. ``options`` go to :func:`refnaf.build`.

    Returns a Flow with its ``history`` and ``provenance``. Raises ValueError for data or options that cannot be used,
    and FitError where training failed before it had anything to return.
    """
    from threadpoolctl import threadpool_limits

    rows, kept = as_rows(x, "x", drop_nonfinite)
    conditions = _context_rows(context, kept, "the context", drop_nonfinite)
    if conditions is not None and not (fine := np.isfinite(conditions).all(axis=1)).all():
        rows, conditions = rows[fine], conditions[fine]
    training, held_out = _split(rows, conditions, validation, validation_context, seed, drop_nonfinite)
    dim = rows.shape[1]
    context_dim = 0 if conditions is None else conditions.shape[1]
    if len(training.x) < max(FEWEST_ROWS, dim + 1):
        raise ValueError(
            f"{len(training.x)} training rows are too few for {dim} columns: at least {max(FEWEST_ROWS, dim + 1)} are needed"
        )
    if model == "gaussian":
        # closed form in float64; the numbers are then kept in the dtype asked for
        flow = _standardised(build(model, dim, context_dim, seed=seed, dtype="float64", **options), training)
        flow = fit_gaussian(flow, training.x, training.context).astype(dtype)
        record: dict[str, Any] = {"stopped": "closed form", "epochs": 0}
    else:
        flow = _standardised(build(model, dim, context_dim, seed=seed, dtype=dtype, **options), training)
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
            "plan": plan.identity(),
            "training": fingerprint(training.x),
            "validation": None if held_out is None else fingerprint(held_out.x),
        }
        flow, record = train(
            flow, training, held_out, plan, run, threads=threads, checkpoint=checkpoint, resume=resume, progress=progress
        )
    with threadpool_limits(1, "blas"):
        head = None if training.context is None else training.context[:SCORED_ROWS]
        scores = {"train": mean_and_error(flow.log_prob(training.x[:SCORED_ROWS], head))}
        if held_out is not None:
            scores["validation"] = mean_and_error(flow.log_prob(held_out.x, held_out.context))
    flow.provenance = {
        "data": {"rows": len(rows), "columns": dim, "sha256": fingerprint(rows)},
        "context": None if conditions is None else {"columns": context_dim, "sha256": fingerprint(conditions)},
        "seed": seed,
        "training": {"rows": len(training.x), "validation_rows": 0 if held_out is None else len(held_out.x), **record},
        "scores": {name: list(pair) for name, pair in scores.items()},
        "versions": {
            "refnaf": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return flow


def _context_rows(context: Any, kept: np.ndarray, what: str, drop_nonfinite: bool) -> np.ndarray | None:
    """The context of the kept rows; with ``drop_nonfinite`` bad rows are left in, for the caller to drop with the data."""
    if context is None:
        return None
    array = np.asarray(context)
    if array.ndim == 1:
        array = array[:, None]
    if len(array) != len(kept):
        raise ValueError(f"{what} must have as many rows as the data ({len(kept)}), got {len(array)}")
    if drop_nonfinite and array.dtype.kind == "f":
        bad = ~np.isfinite(array).all(axis=1) & kept
        if bad.any():
            warnings.warn(f"{what}: {bad.sum()} rows with NaN or inf dropped", DataWarning, stacklevel=3)
        return np.array(array[kept], dtype=np.float64)
    return as_rows(array, what)[0][kept]


def _split(
    rows: np.ndarray, context: np.ndarray | None, validation: Any, validation_context: Any, seed: int, drop: bool
) -> tuple[Rows, Rows | None]:
    if validation is None or (np.isscalar(validation) and validation == 0):
        return Rows(rows, context), None
    if np.isscalar(validation):
        first, second, _ = split_rows(len(rows), seed, test=0.0, validation=float(validation))
        if not len(second):
            return Rows(rows, context), None
        pick = (lambda k: None) if context is None else (lambda k: context[k])
        return Rows(rows[first], pick(first)), Rows(rows[second], pick(second))
    other, kept = as_rows(validation, "the validation data", drop)
    if other.shape[1] != rows.shape[1]:
        raise ValueError(f"the validation data must have {rows.shape[1]} columns like x, got {other.shape[1]}")
    if (context is None) != (validation_context is None):
        raise ValueError("context and validation_context go together where validation rows are given")
    return Rows(rows, context), Rows(other, _context_rows(validation_context, kept, "the validation context", False))


def _standardised(flow: Flow, training: Rows) -> Flow:
    """The flow with mean and scale of the training rows (and of their context) in its first layer."""
    buffers = flow.layers[0].buffers
    buffers["mean"], buffers["scale"] = location_and_scale(training.x)
    if training.context is not None:
        buffers["context_mean"], buffers["context_scale"] = location_and_scale(training.context, "the context")
    return flow
