"""Where commands read from and write to, checked before any work is done."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

    from refnaf.tables import Source, Table


def check_output(path: str | Path, suffixes: Sequence[str], inputs: Sequence[str | Path | None] = ()) -> Path:
    """``path``, if a file of one of the suffixes can be created there without writing over an input."""
    from refnaf.persistence import check_writable

    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path}: expected an output file named {' or '.join(suffixes)}, got "
            f"{path.suffix or 'no suffix'}; change the name"
        )
    for other in inputs:
        if other is not None and path.exists() and Path(other).exists() and path.samefile(other):
            raise ValueError(f"{path}: the output would replace the input; choose another name with --out")
    check_writable(path)
    return path


def check_plot(path: str | Path, inputs: Sequence[str | Path | None] = ()) -> Path:
    """``path``, if a picture can be made and written there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("plots need matplotlib, which is not installed; pip install 'refnaf[plot]'")
    return check_output(path, (".png",), inputs)


def read_data(path: str, key: str | None, context: str | None, context_key: str | None) -> Table:
    """The table in ``path``; ``context`` names a file whose rows take the place of a context of its own."""
    from refnaf.tables import read_context, read_table

    if context is None:
        return read_table(path, key, context_key)
    table = read_table(path, key)
    contexts = read_context(context, context_key)
    table.context = contexts.x
    table.notes = [text for text in table.notes if "the context" not in text] + contexts.notes
    return table


def open_data(path: str, key: str | None, context: str | None, context_key: str | None) -> Source:
    """As ``read_data``, to be read in chunks."""
    from refnaf.tables import open_context, open_table

    if context is None:
        return open_table(path, key, context_key)
    source = open_table(path, key)
    source.context = open_context(context, context_key)
    return source


def check_fits(
    path: str | Path, columns: int, context: int | None, dim: int, context_dim: int, of: str = "model"
) -> None:
    """Raises UsageError unless a table has the columns and the context that the ``of`` has."""
    if columns != dim:
        raise ValueError(
            f"{path}: expected {dim} columns as in the {of}, got {columns}; give a table with the same columns"
        )
    if context_dim and context is None:
        raise ValueError(
            f"{path}: expected a context of {context_dim} columns as in the {of}, got none; give one "
            f"with --context, or a .npz holding x and c"
        )
    if not context_dim and context is not None:
        raise ValueError(
            f"{path}: expected no context as the {of} has none, got {context} columns of it; leave "
            f"--context out, or read the data alone with --key x"
        )
    if context is not None and context != context_dim:
        raise ValueError(
            f"{path}: expected a context of {context_dim} columns as in the {of}, got {context}; "
            f"give a context with the same columns"
        )


def paired_chunks(source: Source, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Chunks of the data, each with its context or None; the two must have equally many rows."""
    if source.context is None:
        for x in source.chunks(rows):
            yield x, None
        return
    total = 0
    contexts = source.context.chunks(rows)
    for x in source.chunks(rows):
        c = next(contexts, x[:0])
        if len(c) != len(x):
            break
        total += len(x)
        yield x, c
    else:
        if next(contexts, None) is None:
            return
    raise ValueError(
        f"{source.context.path}: expected one context row for each row of {source.path}, got more or "
        f"fewer from row {total:,} on; the two must be in the same order and of the same length"
    )
