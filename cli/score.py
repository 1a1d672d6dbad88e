"""``refnaf score``."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from refnaf_cli.params import computing_options, limit_threads, table_options

if TYPE_CHECKING:
    import refnaf
    from refnaf.tables import Source
    from refnaf_cli.report import Mean

_NUMBERS = 1 << 21  # numbers of the table held at a time
_ROWS = 65536


@click.command(epilog="Example: refnaf score power.safetensors data/power.npy --out power.nats.npy")
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option(
    "--out", metavar="FILE", help="Where to write the nats (.npy) [default: DATA's name with .nats.npy, here]."
)
@click.option(
    "--drop-nonfinite",
    is_flag=True,
    help="Go on past rows with NaN or infinity: they score nan and do not count in the mean.",
)
@table_options
@computing_options
def score(
    model: str,
    data: str,
    out: str | None,
    drop_nonfinite: bool,
    key: str | None,
    context: str | None,
    context_key: str | None,
    threads: int | None,
    backend: str | None,
) -> None:
    """Log-density of every row of DATA under MODEL.

    Writes nats (float64, one a row, in the rows' order) to a .npy, and prints their number, mean and standard
    error. Rows are read as they are needed, so that DATA may be larger than memory.
    """
    limit_threads(threads)
    import refnaf
    from refnaf.persistence import atomic_write
    from refnaf_cli.files import check_fits, check_output, open_data
    from refnaf_cli.report import columns, note

    target = check_output(out or f"{Path(data).stem}.nats.npy", (".npy",), (model, data, context))
    flow = refnaf.load(model, backend=backend, threads=threads)
    source = open_data(data, key, context, context_key)
    check_fits(data, source.dim, source.context.dim if source.context else None, flow.dim, flow.context_dim)
    for text in source.notes:
        note(text)
    with atomic_write(target) as file:
        rows, mean = _stream(flow, source, file, drop_nonfinite)
    lines = [["rows", f"{rows:,}"]]
    if mean.n < rows:
        lines.append(["left out", f"{rows - mean.n:,}"])
    lines += [["mean", f"{mean.mean:.6f} nats"], ["s.e.", f"{mean.error:.6f} nats"], ["wrote", str(target)]]
    for line in columns(lines):
        click.echo(line)


def _stream(flow: refnaf.Flow, source: Source, file: IO[bytes], drop: bool) -> tuple[int, Mean]:
    """Writes a .npy of the nats of all rows to ``file``. Returns the number of rows and the mean over the finite."""
    import numpy as np

    from refnaf.tables import nonfinite_message, nonfinite_rows
    from refnaf_cli.files import paired_chunks
    from refnaf_cli.report import Mean

    mean, rows, bad_count = Mean(), 0, 0
    first: list[int] = []
    start = _write_header(file, 0)
    for x, c in paired_chunks(source, max(1, min(_ROWS, _NUMBERS // (source.dim + flow.context_dim)))):
        bad = nonfinite_rows(x) if c is None else np.union1d(nonfinite_rows(x), nonfinite_rows(c))
        first += [rows + int(i) for i in bad[: 5 - len(first)]]
        bad_count += len(bad)
        rows += len(x)
        if bad_count and not drop:
            continue  # only counts from here on, for the message
        good = np.ones(len(x), bool)
        good[bad] = False
        nats = np.full(len(x), np.nan)
        if good.any():
            nats[good] = flow.log_prob(x[good], None if c is None else c[good])
        mean.add(nats[good])
        file.write(nats.astype("<f8", copy=False).tobytes())
    if bad_count and not drop:
        raise ValueError(nonfinite_message(str(source.path), bad_count, rows, first))
    file.seek(0)
    if _write_header(file, rows) != start:  # numpy pads headers so that the number of rows can be filled in
        raise RuntimeError("the header of the .npy changed its length")
    file.seek(0, 2)
    return rows, mean


def _write_header(file: IO[bytes], rows: int) -> int:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (rows,)})
    return file.tell()
