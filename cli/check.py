"""``refnaf check``."""

from __future__ import annotations

import json
from typing import Any

import click

from refnaf_cli.named import find_object
from refnaf_cli.params import Positive, seed_option


@click.command(
    epilog="Example: refnaf check mypackage.flows:flow --dim 3, where flow is an object, a module or a dict with "
    "forward, inverse, log_prob, sample (any part of them), or forward itself. Or: refnaf check power.safetensors"
)
@click.argument("flow", metavar="MODULE:FLOW")
@click.option("--dim", type=click.IntRange(min=1), help="Dimensions [default: the flow's own dim, where it has one].")
@click.option(
    "--context-dim", type=click.IntRange(min=0), help="Columns of context [default: the flow's own context_dim, or 0]."
)
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32"]),
    help="Of the arrays it is given, and how exact it should be [default: the flow's own dtype, or float64].",
)
@click.option(
    "--rows", type=click.IntRange(min=200), default=2000, show_default=True, help="Samples for statistical checks."
)
@click.option("--center", type=float, help="Middle of the data [default: found by inverse or sample, or 0].")
@click.option("--scale", type=Positive(), help="Scale of the data [default: found by inverse or sample, or 1].")
@click.option("--tolerance", type=Positive(), help="Relative error that inverse may leave [default: by dtype].")
@click.option("--autoregressive", is_flag=True, help="The Jacobian must be triangular in some order.")
@click.option("--check", "checks", metavar="NAME", multiple=True, help="Only this check; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@seed_option
@click.pass_context
def check(
    ctx: click.Context,
    flow: str,
    dim: int | None,
    context_dim: int | None,
    dtype: str | None,
    rows: int,
    center: float | None,
    scale: float | None,
    tolerance: float | None,
    autoregressive: bool,
    checks: tuple[str, ...],
    as_json: bool,
    seed: int,
) -> None:
    """Is a normalising flow, given as Python functions on NumPy arrays, right?

    MODULE:FLOW is imported from this folder or from what is installed; a .safetensors file of refnaf is checked too.
    forward(x) gives (z, log-determinant), inverse(z) gives x or (x, log-determinant), log_prob(x) nats, sample(n, seed)
    rows; with a context c they take (x, c), and sample context=c. Exit code 0: it conforms. 1: it does not. 2: it
    cannot be imported.
    """
    found = _load(flow)
    from refnaf.verify import check_flow

    report = check_flow(
        found,
        dim=_own(found, "dim", dim),
        context_dim=_own(found, "context_dim", context_dim) or 0,
        dtype=dtype or _own_dtype(found),
        rows=rows,
        center=center,
        scale=scale,
        tolerance=tolerance,
        autoregressive=autoregressive,
        checks=checks or None,
        seed=seed,
    )
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    ctx.exit(0 if report.ok else 1)


def _own(flow: Any, name: str, given: int | None) -> int | None:
    if given is not None:
        return given
    value = getattr(flow, name, None)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if name == "dim":
        raise click.UsageError("the flow does not say how many dimensions it has: pass --dim")
    return None


def _own_dtype(flow: Any) -> str:
    return "float32" if str(getattr(flow, "dtype", "")) == "float32" else "float64"


def _load(text: str) -> Any:
    """The object that ``package.module:name`` or a file's name stands for."""
    if text.endswith(".safetensors"):
        import refnaf

        return refnaf.load(text)
    return find_object(text, "flow")
