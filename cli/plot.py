"""``refnaf plot``."""

from __future__ import annotations

from pathlib import Path

import click

from refnaf_cli.params import computing_options, limit_threads, seed_option, table_options


@click.command(epilog="Example: refnaf plot power.safetensors data/power.npy --out power.png")
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="[DATA]", required=False)
@click.option("--out", metavar="PNG", help="The picture to write [default: MODEL's name with .png, here].")
@click.option("--title", help="A line above the picture.")
@click.option("--drop-nonfinite", is_flag=True, help="Leave out rows with NaN or infinity.")
@table_options
@seed_option
@computing_options
def plot(
    model: str,
    data: str | None,
    out: str | None,
    title: str | None,
    drop_nonfinite: bool,
    key: str | None,
    context: str | None,
    context_key: str | None,
    seed: int,
    threads: int | None,
    backend: str | None,
) -> None:
    """Picture MODEL, beside the rows of DATA if given.

    In two dimensions a density map with the data over it, in more a pair grid of data against samples; beside it the
    training curve and the calibration (Rosenblatt values against uniform). Needs matplotlib, but no display.
    """
    limit_threads(threads)
    import refnaf
    from refnaf.tables import check_pair
    from refnaf_cli.files import check_fits, check_plot, read_data
    from refnaf_cli.report import note

    target = check_plot(out or f"{Path(model).stem}.png", (model, data, context))
    flow = refnaf.load(model, backend=backend, threads=threads)
    x = contexts = None
    if data is not None:
        table = read_data(data, key, context, context_key)
        check_fits(
            data,
            table.x.shape[1],
            None if table.context is None else table.context.shape[1],
            flow.dim,
            flow.context_dim,
        )
        x, contexts, notes = check_pair(table.x, table.context, drop_nonfinite=drop_nonfinite, what=data)
        for text in [*table.notes, *notes]:
            note(text)
    elif context is not None or key is not None or context_key is not None:
        raise click.UsageError("--key, --context and --context-key go with DATA, got none; name the table too")
    elif flow.context_dim:
        raise click.UsageError(
            f"{model}: the model has a context of {flow.context_dim} columns; give DATA with its context"
        )
    from refnaf.plotting import plot_flow

    plot_flow(flow, x, target, context=contexts, seed=seed, title=title)
    click.echo(f"wrote  {target}")
