"""``refnaf fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from refnaf_cli.params import (
    Duration,
    ModelOption,
    Part,
    Positive,
    computing_options,
    limit_threads,
    seed_option,
    table_options,
)


class ModelName(click.ParamType):
    """A model's name. The names are listed when help is asked for, since that imports the library."""

    name = "model"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        import refnaf

        return "[" + "|".join(refnaf.models()) + "]"


@click.command(epilog="Example: refnaf fit data/power.npy --max-time 10m --plot power.png --option hidden=128,128")
@click.argument("data", metavar="DATA")
@click.option("--model", type=ModelName(), default="maf-ddsf", show_default=True, help="Which flow.")
@click.option(
    "--recipe",
    metavar="NAME",
    help="Model, options and training of a row of the published tables, such as maf-ddsf-5; for data of refnaf data. "
    "Other options go before it.",
)
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="An option of the model, such as hidden=64,64 or flows=5; may be repeated.",
)
@click.option("--out", metavar="FILE", help="The model file [default: DATA's name with .safetensors, here].")
@click.option("--plot", metavar="PNG", help="Also draw the fitted flow beside held-out rows (needs matplotlib).")
@click.option(
    "--validation",
    type=Part(),
    default="0.1",
    show_default=True,
    help="Part of the rows, or a file, to stop training by; 0 for none.",
)
@click.option(
    "--test",
    type=Part(),
    default="0.1",
    show_default=True,
    help="Part of the rows, or a file, that training never sees; 0 for none.",
)
@click.option("--epochs", type=Positive(), help="At most so many passes over the training rows.")
@click.option("--max-time", type=Duration(), help="At most so long: 90 (seconds), 90s, 10m, 2h.")
@click.option("--patience", type=click.IntRange(min=1), help="Epochs without a better validation score until it stops.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows a step.")
@click.option("--learning-rate", type=Positive(), help="Adam's step size at its highest.")
@click.option("--weight-decay", type=Positive(zero=True), help="Decay of the weights.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--drop-nonfinite", is_flag=True, help="Leave out rows with NaN or infinity.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an interrupted run (OUT.checkpoint).")
@click.option("--quiet", is_flag=True, help="Only warnings, errors, and the names of the files written.")
@table_options
@seed_option
@computing_options
def fit(
    data: str, out: str | None, plot: str | None, threads: int | None, backend: str | None, **settings: Any
) -> None:
    """Fit a flow to the table DATA and write it to a .safetensors file.

    DATA is a file, or the name of a published data set that refnaf data has prepared, which has a split of its own.

    The rows are split at random (by --seed) into 10% for the test, 10% for validation, and the rest for training.
    At the end a table gives the nats of each part with standard errors, beside those of a Gaussian with full
    covariance fitted to the same training rows. While training, OUT.checkpoint holds what --resume goes on from.
    """
    limit_threads(threads)
    from refnaf_cli.files import check_output, check_plot
    from refnaf_cli.fitting import run, settled

    ctx = click.get_current_context()
    given = {name for name in settings if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    settings = settled(data, settings, given)
    files = [data, *(settings[name] for name in ("validation", "test", "context") if isinstance(settings[name], str))]
    target = check_output(out or f"{Path(data).stem}.safetensors", (".safetensors",), files)
    picture = check_plot(plot, files) if plot else None
    run(data, target, picture, threads=threads, backend=backend, **settings)
