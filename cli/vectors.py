"""``refnaf vectors``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refnaf_cli.params import ModelOption, seed_option

if TYPE_CHECKING:
    from refnaf import Flow


@click.command(
    epilog="Example: refnaf vectors power.safetensors --rows 64 -o golden.safetensors, or of an unfitted flow: "
    "refnaf vectors maf-ddsf --dim 3 --option flows=2 --option hidden=16,16"
)
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "-o", "--out", metavar="FILE", help="The file [default: MODEL's name with .vectors.safetensors, in this folder]."
)
@click.option("--rows", type=click.IntRange(min=1), default=32, show_default=True, help="Rows of inputs.")
@click.option(
    "--digits",
    type=click.IntRange(min=20, max=1000),
    default=50,
    show_default=True,
    help="Digits to which the oracle's numbers are certain, before they are rounded to float64.",
)
@click.option("--dim", type=click.IntRange(min=1), help="Of an unfitted flow: columns.")
@click.option("--context-dim", type=click.IntRange(min=0), help="Of an unfitted flow: columns of context [default: 0].")
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="Of an unfitted flow: an option of the model, such as hidden=16,16 or flows=2; may be repeated.",
)
@click.option("--shipped", metavar="FOLDER", help="Make the files that come with the package, in FOLDER; no MODEL.")
@seed_option
def vectors(
    model: str | None,
    out: str | None,
    rows: int,
    digits: int,
    dim: int | None,
    context_dim: int | None,
    options: tuple[tuple[str, Any], ...],
    shipped: str | None,
    seed: int,
) -> None:
    """Write golden vectors of MODEL: inputs, outputs, gradients and the high-precision truth, in one safetensors file.

    MODEL is a model file, or a model's name (see refnaf fit --help) for an unfitted flow of --dim columns, moved away
    from the identity by noise of the seed. `refnaf verify` compares another implementation with the file; its layout,
    and how to read it from NumPy, PyTorch, JAX and C++, are in refnaf/verify/README.md. Needs mpmath.
    """
    given = {"--dim": dim, "--context-dim": context_dim, "--option": options or None}
    if shipped is not None:
        _refuse({"MODEL": model, "--out": out, **given}, "with --shipped, whose files have their own settings")
        from refnaf.verify.vectors import write_shipped

        if not Path(shipped).is_dir():
            raise ValueError(f"{shipped}: expected a folder that exists; create it first")
        for path in write_shipped(shipped):
            click.echo(f"wrote  {path}")
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'")
    import refnaf
    from refnaf.verify.vectors import write_vectors
    from refnaf_cli.files import check_output

    unfitted = model in refnaf.models()
    if unfitted and dim is None:
        raise click.UsageError(f"{model} is a model's name: say how many columns with --dim, or give a model file")
    if not unfitted:
        _refuse(given, f"with the model file {model}, which has its own")
    target = check_output(out or f"{Path(model).stem}.vectors.safetensors", (".safetensors",), (model,))
    flow = _unfitted(model, dim or 1, context_dim or 0, seed, options) if unfitted else refnaf.load(model)
    write_vectors(flow, target, rows=rows, seed=seed, digits=digits)
    click.echo(f"wrote  {target}")


def _refuse(given: dict[str, Any], why: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} cannot be combined {why}; leave it out")


def _unfitted(model: str, dim: int, context_dim: int, seed: int, options: tuple[tuple[str, Any], ...]) -> Flow:
    from refnaf.verify.vectors import example_flow

    names = [name for name, _ in options]
    for name in names:
        if name in ("model", "dim", "context_dim", "seed", "dtype"):
            raise click.UsageError(f"--option {name}=...: this is no option of a model; see refnaf vectors --help")
        if names.count(name) > 1:
            raise click.UsageError(f"--option {name}=...: given twice; leave one out")
    return example_flow(model, dim, context_dim, seed, **dict(options))
