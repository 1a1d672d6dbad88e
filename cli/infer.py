"""``refnaf infer``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from refnaf_cli.fit import ModelName
from refnaf_cli.params import Duration, ModelOption, Positive, computing_options, limit_threads, seed_option

if TYPE_CHECKING:
    from refnaf import Flow

_OWN_OPTIONS = {
    "dim",
    "model",
    "location",
    "scale",
    "steps",
    "batch_size",
    "anneal",
    "path_derivative",
    "samples",
    "max_time",
    "learning_rate",
    "seed",
    "dtype",
    "threads",
    "backend",
}


class Numbers(click.ParamType):
    """Numbers separated by commas, or one for all dimensions."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"expected numbers separated by commas such as 0,2.5, got {value!r}", param, ctx)


class Fraction(click.ParamType):
    """A part of the steps, from 0 to below 1."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            part = float(value)
        except ValueError:
            part = -1.0
        if not 0 <= part < 1:
            self.fail(f"expected a part of the steps from 0 to below 1, got {value!r}", param, ctx)
        return part


@click.command(
    epilog="Example: refnaf infer refnaf.datasets.energies:u1 --dim 2 --anneal 0.5 --plot u1.png. Or in mymodel.py: "
    "import autograd.numpy as np; def log_density(z): return -0.5 * np.sum(z**2, axis=1); then refnaf infer "
    "mymodel:log_density --dim 3"
)
@click.argument("log_density", metavar="MODULE:FUNCTION")
@click.option("--dim", type=click.IntRange(min=1), required=True, help="How many dimensions the function's rows have.")
@click.option("--model", type=ModelName(), default="iaf-dsf", show_default=True, help="Which flow.")
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="An option of the model, such as hidden=64,64 or flows=5; may be repeated.",
)
@click.option("--out", metavar="FILE", default="posterior.safetensors", show_default=True, help="The model file.")
@click.option("--plot", metavar="PNG", help="Also draw the fitted flow (needs matplotlib).")
@click.option("--location", type=Numbers(), help="Where the base is centred: a number a dimension, with commas.")
@click.option("--scale", type=Numbers(), help="How wide the base is: a number a dimension, with commas.")
@click.option("--steps", type=click.IntRange(min=1), default=3000, show_default=True, help="How many steps to take.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Samples a step.")
@click.option(
    "--anneal",
    type=Fraction(),
    default="0",
    show_default=True,
    help="Part of the steps over which the target is cooled, from nearly flat; helps to find all modes.",
)
@click.option(
    "--path-derivative",
    is_flag=True,
    help="Leave the score out of the gradients of the second half: less noise, more time a step.",
)
@click.option(
    "--samples", type=click.IntRange(min=2), default=20_000, show_default=True, help="Samples for the final table."
)
@click.option("--max-time", type=Duration(), help="At most so long: 90 (seconds), 90s, 10m, 2h.")
@click.option("--learning-rate", type=Positive(), help="Adam's step size at its highest.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--quiet", is_flag=True, help="Only warnings, errors, and the names of the files written.")
@seed_option
@computing_options
def infer(
    log_density: str,
    dim: int,
    model: str,
    options: tuple[tuple[str, Any], ...],
    out: str,
    plot: str | None,
    quiet: bool,
    threads: int | None,
    backend: str | None,
    **settings: Any,
) -> None:
    """Fit a flow to an unnormalised log-density by variational inference (reverse KL).

    FUNCTION, in MODULE of the current folder or installed, takes z of shape (N, D) and returns (N,) nats, written with
    autograd.numpy. The table at the end gives the ELBO, the log normaliser by importance sampling, both with standard
    errors, and the effective sample size.
    """
    limit_threads(threads)
    from refnaf_cli.files import check_output, check_plot
    from refnaf_cli.fitting import check_model, model_options
    from refnaf_cli.named import find_object

    target = check_output(out, (".safetensors",))
    picture = check_plot(plot) if plot else None
    check_model(model)
    chosen = model_options(options, _OWN_OPTIONS)
    function = find_object(log_density, "log_density")
    import refnaf
    from refnaf_cli.progress import Progress
    from refnaf_cli.report import warnings_in_one_line

    progress = Progress(quiet=quiet, epoch="step")
    given = {name: value for name, value in settings.items() if value is not None}
    began = time.monotonic()
    with warnings_in_one_line():
        try:
            flow = refnaf.fit_variational(
                function, dim, model, threads=threads, backend=backend, progress=progress, **given, **chosen
            )
        finally:
            progress.clear()
    seconds = time.monotonic() - began
    flow.save(target)
    if not quiet:
        for line in _table(log_density, flow, seconds):
            click.echo(line)
    click.echo(f"{'wrote':14}  {target}")
    if picture:
        from refnaf.plotting import plot_flow

        plot_flow(flow, None, picture, seed=settings["seed"])
        click.echo(f"{'wrote':14}  {picture}")
    record = flow.provenance["training"]
    if record.get("failed"):
        raise click.ClickException(f"training failed: {record['stopped']}; {target} holds the best model there was")


def _table(log_density: str, flow: Flow, seconds: float) -> list[str]:
    from refnaf_cli.report import SCORE_NAMES, columns, duration, nats

    training, found = flow.provenance["training"], flow.provenance["importance"]
    head = [
        ["target", f"{log_density}, {flow.dim} dimension{'s' * (flow.dim > 1)}"],
        ["model", f"{flow.model}: {flow.n_params:,} parameters, {flow.dtype}"],
    ]
    remarks = {"elbo": "a lower bound on the log normaliser", "log_normaliser": "by importance sampling"}
    scores = flow.provenance["scores"]
    lines = [["", "nats", "", "s.e.", ""], *([SCORE_NAMES[k], *nats(scores[k]), remarks[k]] for k in scores)]
    took = (
        f"{duration(seconds)}, {training['epochs']:,g} steps, best {training['best_epoch']:,g}, {training['stopped']}"
    )
    tail = [
        ["ESS", f"{found['ess']:,.1f} of {found['samples']:,} samples, Pareto k {found['pareto_k']:.2f}"],
        ["time", took],
    ]
    wide = [[name.ljust(14), text] for name, text in [*head, *tail]]
    return [*columns(wide[:2]), *columns(lines, right=(1, 3)), *columns(wide[2:])]
