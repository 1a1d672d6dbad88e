"""``refnaf data``: the published data sets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from refnaf_cli.progress import Line, bar

F = TypeVar("F", bound=Callable[..., Any])

_cache: Callable[[F], F] = click.option(
    "--cache",
    metavar="FOLDER",
    help="Where prepared data lie [default: $REFNAF_DATA, or refnaf/data in the user's cache folder].",
)
_name: Callable[[F], F] = click.argument("name", metavar="NAME")


@click.group(
    invoke_without_command=True,
    epilog="Example: refnaf data prepare power --from household_power_consumption.txt, then refnaf data check power "
    "and refnaf fit power --recipe maf-5.",
)
@click.pass_context
def data(ctx: click.Context) -> None:
    """The data sets of the published tables, preprocessed as in Papamakarios et al. 2017.

    They are power, gas, hepmass, miniboone, bsds300, and mnist (binarised). Once prepared, refnaf fit takes the name in
    place of a file, with the published split.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@data.command(name="list", epilog="Example: refnaf data list")
@_cache
def list_(cache: str | None) -> None:
    """What there is, and what is prepared."""
    from refnaf.datasets.published import PUBLISHED, cache_folder, prepared_path
    from refnaf_cli.report import columns

    lines = [["name", "training", "validation", "test", "columns", "prepared", "what"]]
    for name, entry in PUBLISHED.items():
        there = "yes" if prepared_path(name, cache).exists() else "no"
        lines.append([name, *(f"{rows:,}" for rows in entry.rows), str(entry.dim), there, entry.title])
    for line in columns(lines, right=(1, 2, 3, 4)):
        click.echo(line)
    click.echo(f"in {cache_folder(cache)}")


@data.command(epilog="Example: refnaf data prepare power --from household_power_consumption.txt")
@_name
@click.option(
    "--from", "where", metavar="PATH", required=True, help="Folder, .zip, .tar.gz or file with the original data."
)
@_cache
def prepare(name: str, where: str, cache: str | None) -> None:
    """Preprocess original files and keep the result.

    PATH holds household_power_consumption.txt, ethylene_CO.txt, 1000_train.csv and 1000_test.csv, MiniBooNE_PID.txt,
    BSDS300.hdf5 or binarized_mnist_*.amat, or it is the MAF authors' data.tar.gz, packed or unpacked. For mnist it may
    be a .npz of packed bits.
    """
    _prepare(name, where, cache)


@data.command(epilog="Example: refnaf data fetch power")
@_name
@click.option("--url", "urls", multiple=True, metavar="URL", help="Another place to download from; once for each file.")
@click.option(
    "--sha256", "digests", multiple=True, metavar="HEX", help="What the download must be; once for each file."
)
@_cache
def fetch(name: str, urls: tuple[str, ...], digests: tuple[str, ...], cache: str | None) -> None:
    """Download original files, and prepare them.

    An interrupted download goes on where it was when the command is repeated. The files are kept in the folder
    downloads beside the prepared data, each with its SHA-256.
    """
    from refnaf.datasets.fetch import download, file_name
    from refnaf.datasets.published import cache_folder, published

    sources = urls or published(name).urls
    for option, given in (("--url", urls), ("--sha256", digests)):
        if given and len(given) != len(published(name).urls):
            raise click.UsageError(f"{option}: expected {len(published(name).urls)} for {name}, got {len(given)}")
    folder = cache_folder(cache) / "downloads" / name
    for k, url in enumerate(sources):
        target = folder / file_name(url)
        progress = _Download(target.name)
        try:
            digest = download(url, target, sha256=digests[k] if digests else None, progress=progress)
        finally:
            progress.line.clear()
        click.echo(f"got         {target}")
        click.echo(f"SHA-256     {digest}")
    _prepare(name, str(folder / file_name(sources[0]) if len(sources) == 1 else folder), cache)


@data.command(epilog="Example: refnaf data check power")
@_name
@_cache
def check(name: str, cache: str | None) -> None:
    """Hold prepared data against what was published: rows, columns, the test nats of a Gaussian with full covariance.

    Exit code 1 where they are off: the preprocessing is then not the published one.
    """
    from refnaf.datasets import published as sets
    from refnaf_cli.report import columns

    findings = sets.check(name, cache)
    lines = [["", "here", "published", ""]]
    lines += [[f.what, f.found, f.published, "" if f.good else "differs"] for f in findings]
    for line in columns(lines, right=(1, 2)):
        click.echo(line)
    entry = sets.published(name)
    if entry.nats is not None:
        click.echo(f"nats, with two standard errors; may be off by {entry.tolerance:g} ({entry.remark})")
    wrong = [f.what for f in findings if not f.good]
    if wrong:
        raise click.ClickException(
            f"{name} is not as published ({', '.join(wrong)}); prepare it from the original files"
        )


def _prepare(name: str, where: str, cache: str | None) -> None:
    from refnaf.datasets.published import load, prepare, published

    path = prepare(name, where, cache)
    rows = [len(part) for part in load(name, cache)]
    click.echo(f"prepared    {name}: {rows[0]:,} training, {rows[1]:,} validation, {rows[2]:,} test rows")
    click.echo(f"wrote       {path}")
    if tuple(rows) != published(name).rows:
        from refnaf_cli.report import note

        note(f"these are not the published numbers of rows; refnaf data check {name} shows what differs")


class _Download:
    """Progress of a download on a terminal: how much is there, of how much."""

    def __init__(self, name: str) -> None:
        self.name, self.text, self.line = name, "", Line()

    def __call__(self, have: int, total: int | None) -> None:
        if not sys.stderr.isatty():
            return
        parts = [self.name, f"{have / 1e6:,.1f} MB" + (f" of {total / 1e6:,.1f} MB" if total else "")]
        if total:
            parts.insert(1, bar(have / total))
        text = "  ".join(parts)
        if text != self.text:
            self.line.draw(text)
            self.text = text
