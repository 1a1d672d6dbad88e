"""Tables of numbers from files: .npy, .npz, .csv, and .parquet where pyarrow is installed.

Nothing is ever unpickled. Every refusal is one line that says what was expected, what came, and what to do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refnaf.tables_check import Source, check_pair, check_rows, nonfinite_message, nonfinite_rows
from refnaf.tables_csv import CsvSource, ParquetSource
from refnaf.tables_npy import NpySource, open_npz

__all__ = [
    "SUFFIXES",
    "Source",
    "Table",
    "check_pair",
    "check_rows",
    "nonfinite_message",
    "nonfinite_rows",
    "open_context",
    "open_table",
    "read_context",
    "read_table",
]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


@dataclass
class Table:
    """Rows of real numbers as read from a file; they may hold NaN (see ``check_pair``).

    x: (N, D) float32 or float64, or a memory map of one. columns: their names, if the file has any.
    context: (N, C) or None. notes: things to tell the user.
    """

    x: np.ndarray
    columns: list[str] | None = None
    context: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def open_table(path: str | os.PathLike[str], key: str | None = None, context_key: str | None = None) -> Source:
    """An open table: its shape is known and checked, its rows are read by ``.read()`` or ``.chunks(rows)``.

    A .npz gives the array ``key``, with ``context_key`` as its context. Without a key it gives its only array, or,
    where it holds ``x`` and ``c`` (or ``context``), x with that context.

    Raises FileNotFoundError, IsADirectoryError, PermissionError, or ValueError for everything else: an unknown or
    wrong kind of file, a damaged or empty one, anything but real numbers in one or two dimensions, a wrong key.
    """
    path = Path(path)
    suffix = _check_file(path)
    if suffix == ".npz":
        return open_npz(path, key, context_key)
    for given, option in ((key, "key"), (context_key, "context_key")):
        if given is not None:
            raise ValueError(
                f"{path}: {option} (--{option.replace('_', '-')}) {given!r} chooses an array of a .npz "
                f"archive, got a {suffix} file, which is one table; leave it out"
            )
    if suffix == ".npy":
        return NpySource(path)
    return CsvSource(path) if suffix == ".csv" else ParquetSource(path)


def read_table(
    path: str | os.PathLike[str], key: str | None = None, context_key: str | None = None, mmap: bool = False
) -> Table:
    """The whole table, as ``open_table`` finds it. ``mmap``: map a float .npy instead of reading it."""
    source = open_table(path, key, context_key)
    context = None if source.context is None else source.context.read(mmap)
    return Table(source.read(mmap), source.columns, context, source.notes)


def open_context(path: str | os.PathLike[str], key: str | None = None) -> Source:
    """An open table of contexts: as ``open_table``, but a .npz without a key gives its ``c`` or ``context``, if any."""
    path = Path(path)
    if key is None and _check_file(path) == ".npz":
        from refnaf.tables_npy import npz_names

        key = next((name for name in ("c", "context") if name in npz_names(path)), None)
    source = open_table(path, key)
    return source if source.context is None else source.context


def read_context(path: str | os.PathLike[str], key: str | None = None) -> Table:
    """The whole table of contexts, as ``open_context`` finds it."""
    source = open_context(path, key)
    return Table(source.read(), source.columns, None, source.notes)


def _check_file(path: Path) -> str:
    """The suffix of a file that exists, is not empty and can be read."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder; name one of the files in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; check the name and the current folder")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a file named {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got "
            f"{suffix or 'no suffix'}; save the table as one of these"
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got a device or pipe; write the table to a file first")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected a table, got an empty file (0 bytes); check how it was made")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path}: cannot be read; change its permissions")
    return suffix
