"""``refnaf verify``."""

from __future__ import annotations

import click

from refnaf_cli.params import Positive, seed_option


@click.command(
    epilog="Example: refnaf verify golden.safetensors mine.npz, with golden.safetensors from refnaf vectors and in "
    "mine.npz the z, logdet and log_prob that your implementation gives for its inputs/x. Or of refnaf itself: "
    "refnaf verify --accuracy --samples 2000"
)
@click.argument("vectors", metavar="[VECTORS", required=False)
@click.argument("theirs", metavar="THEIRS]", required=False)
@click.option("--rtol", type=Positive(zero=True), help="Relative tolerance [default: by their dtype].")
@click.option("--atol", type=Positive(zero=True), help="Absolute tolerance [default: by their dtype].")
@click.option("--accuracy", is_flag=True, help="Measure refnaf itself in ULPs instead; takes no files.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=1000, show_default=True, help="With --accuracy: sets an object."
)
@click.option(
    "--dtype", type=click.Choice(["float64", "float32"]), help="With --accuracy: one of the two [default: both]."
)
@seed_option
@click.pass_context
def verify(
    ctx: click.Context,
    vectors: str | None,
    theirs: str | None,
    rtol: float | None,
    atol: float | None,
    accuracy: bool,
    samples: int,
    dtype: str | None,
    seed: int,
) -> None:
    """Compare another implementation's outputs with golden vectors, and name what went wrong.

    VECTORS is a file of refnaf vectors. THEIRS is a .npz or safetensors file of tensors named as there (z, logdet,
    log_prob, layers/1/y, grads/x, ..., any part of them; dots are as good as slashes), or a .npy of z or log_prob.
    Tolerances are 1e-9 for float64, 1e-4 for float32 and 2e-2 for float16, relative to the largest number of the same
    row, plus as much absolute. Exit code 0: all that was compared agrees. 1: it does not.
    """
    if accuracy:
        if vectors is not None:
            raise click.UsageError(f"--accuracy measures refnaf itself and takes no files, got {vectors}; leave it out")
        from refnaf.verify.accuracy import format_report, report

        rows = report(samples=samples, seed=seed, dtype=dtype)
        click.echo(format_report(rows))
        ctx.exit(0 if all(row.ok for row in rows) else 1)
    if vectors is None or theirs is None:
        raise click.UsageError(f"Missing argument {'VECTORS' if vectors is None else 'THEIRS'!r}")
    from refnaf.verify.comparison import compare

    found = compare(vectors, theirs, rtol, atol)
    click.echo(str(found))
    ctx.exit(0 if found.agrees else 1)
