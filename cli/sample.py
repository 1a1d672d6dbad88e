"""``refnaf sample``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refnaf_cli.params import computing_options, limit_threads, seed_option

if TYPE_CHECKING:
    import numpy as np


@click.command(epilog="Example: refnaf sample power.safetensors -n 10000 --out samples.csv")
@click.argument("model", metavar="MODEL")
@click.option(
    "-n",
    "--rows",
    "n",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Rows to draw; with --context, rows for each row of the context.",
)
@click.option(
    "--out",
    metavar="FILE",
    help=".npy (the rows), .npz (x, with log_prob and c as there are) or .csv [default: samples.npy, or "
    "samples.npz with --log-prob or --context].",
)
@click.option("--context", metavar="FILE", help="Table of contexts; N consecutive rows are drawn for each.")
@click.option("--context-key", metavar="NAME", help="Array of the .npz that holds the context.")
@click.option("--log-prob", is_flag=True, help="Also write each row's log-density in nats (.npz or .csv).")
@seed_option
@computing_options
def sample(
    model: str,
    n: int,
    out: str | None,
    context: str | None,
    context_key: str | None,
    log_prob: bool,
    seed: int,
    threads: int | None,
    backend: str | None,
) -> None:
    """Draw rows from MODEL, in the units of the data it was fitted to.

    A .csv has the data's column names where they are known. A .npz holds x, and c and log_prob where there are any,
    so that `refnaf score MODEL samples.npz --key x` reads it back.
    """
    limit_threads(threads)
    import numpy as np

    import refnaf
    from refnaf.tables import check_rows, read_context
    from refnaf_cli.files import check_fits, check_output
    from refnaf_cli.report import columns, note

    suffixes = (".npz", ".csv") if log_prob else (".npy", ".npz", ".csv")
    target = check_output(out or ("samples.npz" if log_prob or context else "samples.npy"), suffixes, (model, context))
    flow = refnaf.load(model, backend=backend, threads=threads)
    contexts = None
    if context is not None:
        table = read_context(context, context_key)
        check_fits(context, flow.dim, table.x.shape[1], flow.dim, flow.context_dim)
        contexts, _ = check_rows(table.x, what=context)
        for text in table.notes:
            note(text)
        contexts = np.repeat(contexts, n, axis=0)
    elif flow.context_dim:
        raise click.UsageError(
            f"{model}: the model has a context of {flow.context_dim} columns, got none; give one with --context FILE"
        )
    total = n if contexts is None else len(contexts)
    drawn = flow.sample(total, seed=seed, context=contexts, return_log_prob=log_prob)
    arrays = {"x": drawn[0] if log_prob else drawn}
    if contexts is not None:
        arrays["c"] = contexts
    if log_prob:
        arrays["log_prob"] = drawn[1]
    _write(target, arrays, flow.provenance.get("columns"))
    lines = [["rows", f"{total:,}"], ["columns", f"{flow.dim}"], ["wrote", str(target)]]
    for line in columns(lines):
        click.echo(line)


def _write(path: Path, arrays: dict[str, np.ndarray], names: list[str] | None) -> None:
    import numpy as np

    from refnaf.persistence import atomic_write

    with atomic_write(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, arrays["x"], allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            np.savez(file, **arrays)  # type: ignore[arg-type]
        else:
            dim = arrays["x"].shape[1]
            header = list(names) if names and len(names) == dim else [f"x{i + 1}" for i in range(dim)]
            header += [f"c{i + 1}" for i in range(arrays["c"].shape[1])] if "c" in arrays else []
            header += ["log_prob"] if "log_prob" in arrays else []
            parts = [a if a.ndim == 2 else a[:, None] for a in arrays.values()]
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(header)
            for row in np.concatenate(parts, axis=1, dtype=np.float64):
                writer.writerow([repr(value) for value in row.tolist()])
            text.detach()
