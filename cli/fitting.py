"""The work of ``refnaf fit``: read, split, train, score, save, tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import refnaf
from refnaf.datasets.published import PUBLISHED, load
from refnaf.objective import mean_and_error
from refnaf.tables import check_pair
from refnaf.training import SCORED_ROWS, Rows
from refnaf_cli.files import check_fits, read_data
from refnaf_cli.progress import Progress
from refnaf_cli.report import SCORE_NAMES, columns, duration, nats, note, warnings_in_one_line

if TYPE_CHECKING:
    from refnaf import Flow


_OWN_OPTIONS = {
    "epochs",
    "max_time",
    "patience",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "seed",
    "dtype",
    "threads",
    "backend",
    "resume",
    "validation",
    "context",
    "drop_nonfinite",
    "model",
}


@dataclass
class Parts:
    """The three parts of the data; ``total`` rows and their column names in the file they came from."""

    train: Rows
    validation: Rows | None
    test: Rows | None
    total: int
    columns: list[str] | None


def run(
    data: str,
    target: Path,
    picture: Path | None,
    *,
    model: str,
    recipe: str | None,
    options: tuple[tuple[str, Any], ...],
    validation: float | str,
    test: float | str,
    seed: int,
    dtype: str,
    threads: int | None,
    backend: str | None,
    resume: bool,
    quiet: bool,
    drop_nonfinite: bool,
    key: str | None,
    context: str | None,
    context_key: str | None,
    **training: Any,
) -> None:
    """Fits, writes ``target`` and ``picture``, and prints the table. Arguments as the command's options."""
    check_model(model)
    checkpoint = _checkpoint(target, resume, quiet)
    settings = {
        **model_options(options, _OWN_OPTIONS),
        **{name: value for name, value in training.items() if value is not None},
    }
    parts = _read(data, validation, test, seed, drop_nonfinite, quiet, (key, context, context_key))
    progress = Progress(quiet=quiet)
    began = time.monotonic()
    with warnings_in_one_line():
        try:
            flow = refnaf.fit(
                parts.train.x,
                model,
                context=parts.train.context,
                validation=None if parts.validation is None else parts.validation.x,
                validation_context=None if parts.validation is None else parts.validation.context,
                seed=seed,
                dtype=dtype,
                threads=threads,
                backend=backend,
                checkpoint=checkpoint,
                resume=resume and checkpoint.exists(),
                progress=progress,
                **settings,
            )
        except KeyboardInterrupt:
            kept = f"; --resume goes on from {checkpoint}" if checkpoint.exists() else ""
            raise click.ClickException(f"interrupted{kept}") from None
        finally:
            progress.clear()
        seconds = time.monotonic() - began
        scores = _scores(flow, parts, model, seed)
    flow.provenance["scores"] = scores
    if recipe:
        flow.provenance["recipe"] = recipe
    if parts.columns:
        flow.provenance["columns"] = parts.columns
    flow.save(target)
    checkpoint.unlink(missing_ok=True)
    if not quiet:
        for line in _table(data, flow, parts, scores, seconds):
            click.echo(line)
    click.echo(f"wrote       {target}")
    if picture:
        from refnaf.plotting import plot_flow

        shown = parts.test or parts.validation or parts.train
        plot_flow(flow, shown.x, picture, context=shown.context, seed=seed)
        click.echo(f"wrote       {picture}")
    record = flow.provenance["training"]
    if record.get("failed"):
        raise click.ClickException(f"training failed: {record['stopped']}; {target} holds the best model there was")


def settled(data: str, settings: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The command's settings, with those of its recipe where it left them open; ``given`` are those it did not.

    Raises UsageError for what does not go with a published data set or a recipe.
    """
    if data in PUBLISHED:
        for name in sorted(given & {"validation", "test", "key", "context", "context_key"}):
            raise click.UsageError(
                f"--{name.replace('_', '-')}: {data} is a published data set with a split of its own; leave it out"
            )
        if PUBLISHED[data].nats is None:
            raise click.UsageError(f"{data} holds bits, which have no density; fit another data set")
    if settings["recipe"] is None:
        return settings
    from refnaf.datasets.recipes import recipe

    found, own = recipe(settings["recipe"], data), dict(settings["options"])
    if "model" in given and settings["model"] != found.model:
        raise click.UsageError(
            f"--model {settings['model']}: recipe {settings['recipe']} is for {found.model}; leave one of them out"
        )
    training = {name: v for name, v in found.training.items() if settings.get(name) is None and name not in own}
    options = tuple((name, v) for name, v in found.options.items() if name not in own)
    return {**settings, **training, "model": found.model, "options": options + settings["options"]}


def _checkpoint(target: Path, resume: bool, quiet: bool) -> Path:
    checkpoint = target.with_name(target.name + ".checkpoint")
    if resume and not checkpoint.exists() and not quiet:
        note(f"no checkpoint {checkpoint}; starting from the beginning")
    if not resume and checkpoint.exists():
        raise ValueError(
            f"{checkpoint} holds an interrupted run: go on from it with --resume, or delete it to start afresh"
        )
    return checkpoint


def check_model(model: str) -> None:
    """Raises UsageError for a name that is no model's."""
    if model not in refnaf.models():
        raise click.UsageError(f"--model: expected one of {', '.join(refnaf.models())}, got {model!r}")


def model_options(options: tuple[tuple[str, Any], ...], own: set[str]) -> dict[str, Any]:
    """The model's options by name. Raises UsageError for one given twice, or one of the command's ``own``."""
    found: dict[str, Any] = {}
    for name, value in options:
        if name in own:
            raise click.UsageError(
                f"--option {name}=...: this is an option of the command; write --{name.replace('_', '-')}"
            )
        if name in found:
            raise click.UsageError(f"--option {name}=...: given twice; leave one out")
        found[name] = value
    return found


def _read(
    data: str,
    validation: float | str,
    test: float | str,
    seed: int,
    drop: bool,
    quiet: bool,
    where: tuple[str | None, str | None, str | None],
) -> Parts:
    if data in PUBLISHED:
        known = load(data)
        return Parts(Rows(known.train), Rows(known.validation), Rows(known.test), sum(map(len, known)), None)
    key, context, context_key = where
    table = read_data(data, key, context, context_key)
    notes = list(table.notes)
    x, c, more = check_pair(table.x, table.context, drop_nonfinite=drop, what=data)
    notes += more
    everything, total = Rows(x, c), len(x)
    others: dict[str, Rows | None] = {}
    for name, given in (("validation", validation), ("test", test)):
        if isinstance(given, str):
            other = read_data(given, key, None, context_key)
            check_fits(
                given,
                other.x.shape[1],
                None if other.context is None else other.context.shape[1],
                x.shape[1],
                0 if c is None else c.shape[1],
                of=data,
            )
            rows, contexts, more = check_pair(other.x, other.context, drop_nonfinite=drop, what=given)
            notes += other.notes + more
            others[name] = Rows(rows, contexts)
    index = refnaf.split_rows(
        len(x),
        seed,
        test=0.0 if isinstance(test, str) else test,
        validation=0.0 if isinstance(validation, str) else validation,
    )
    for name, rows_of in (("validation", index[1]), ("test", index[2])):
        others.setdefault(name, everything.take(rows_of) if len(rows_of) else None)
    if not quiet:
        for text in notes:
            note(text)
    return Parts(everything.take(index[0]), others["validation"], others["test"], total, table.columns)


def _scores(flow: Flow, parts: Parts, model: str, seed: int) -> dict[str, list[float]]:
    """Nats of the parts, and of a Gaussian with full covariance on the test rows: [mean, standard error] by name."""
    known = flow.provenance.get("scores", {})
    scores = {name: list(known[name]) for name in ("train", "validation") if name in known}
    if parts.test is None:
        return scores
    scores["test"] = list(mean_and_error(flow.log_prob(parts.test.x, parts.test.context)))
    if model != "gaussian":
        try:
            gaussian = refnaf.fit(parts.train.x, "gaussian", context=parts.train.context, validation=None, seed=seed)
            scores["gaussian_test"] = list(mean_and_error(gaussian.log_prob(parts.test.x, parts.test.context)))
        except (ValueError, ArithmeticError, refnaf.FitError) as error:  # a comparison must not cost the fitted model
            note(f"no Gaussian to compare with: {error}")
    return scores


def _table(data: str, flow: Flow, parts: Parts, scores: dict[str, list[float]], seconds: float) -> list[str]:
    context = f", context of {flow.context_dim}" if flow.context_dim else ""
    training = flow.provenance.get("training", {})
    head = [
        ["data", f"{data}: {parts.total:,} rows, {flow.dim} column{'s' * (flow.dim > 1)}{context}"],
        ["model", f"{flow.model}: {flow.n_params:,} parameters, {flow.dtype}"],
    ]
    rows = {
        "train": len(parts.train),
        "validation": len(parts.validation or ()),
        "test": len(parts.test or ()),
        "gaussian_test": len(parts.test or ()),
    }
    lines = [["", "nats", "", "s.e.", "rows", ""]]
    for name, score in scores.items():
        label, remark = SCORE_NAMES[name], ""
        if name == "gaussian_test":
            label, remark = "Gaussian", "full covariance, on the test rows"
        elif name == "train" and rows[name] > SCORED_ROWS:
            remark = f"scored on the first {SCORED_ROWS:,}"
        lines.append([label.ljust(10), *nats(score), f"{rows[name]:,}", remark])
    epochs = training.get("epochs", 0)
    took = [duration(seconds), f"{epochs:g} epoch{'s' * (epochs != 1)}"]
    took += [f"best {training['best_epoch']:g}"] if "best_epoch" in training else []
    took += [str(training["stopped"])] if "stopped" in training else []
    head = [[row[0].ljust(10), row[1]] for row in head]
    return [*columns(head), *columns(lines, right=(1, 3, 4)), *columns([["time".ljust(10), ", ".join(took)]])]
