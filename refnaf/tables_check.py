"""What counts as a table of numbers, and the one-line refusals of what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHECK_ROWS = 65536  # rows looked at together, so that a check never holds a second table
SHOWN_ROWS = 5  # row numbers named in a message

_REFUSED_KINDS = {
    "O": "Python objects, which only pickle could read",
    "U": "strings",
    "S": "byte strings",
    "T": "strings",
    "V": "records (a structured or void type)",
    "M": "dates",
    "m": "time differences",
    "c": "complex numbers",
}
_REMEDIES = {
    "O": "save a plain array, for example numpy.asarray(x, dtype=float)",
    "V": "pick one field, or stack the fields as columns of a plain array",
    "M": "convert to numbers first, for example seconds since the first date",
    "m": "convert to numbers first, for example seconds as float",
    "c": "store the real and the imaginary part as two columns",
}


def table_dtype(dtype: np.dtype, what: str = "data") -> np.dtype:
    """The native float type that numbers of ``dtype`` are read as.

    float32 where that holds every value exactly (bool, 8- and 16-bit integers, float16, float32),
    otherwise float64. Raises ValueError for anything that is not a real number.
    """
    if dtype.kind not in "biuf":
        kind = _REFUSED_KINDS.get(dtype.kind, f"values of type {dtype}")
        remedy = _REMEDIES.get(dtype.kind, "convert to numbers first")
        raise ValueError(f"{what}: expected real numbers, got {kind} (dtype {short(str(dtype))}); {remedy}")
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, "safe") else np.float64)


def table_shape(shape: tuple[int, ...], what: str = "data") -> tuple[int, int]:
    """(rows, columns) of an array of this shape; one dimension is one column. Raises ValueError."""
    if len(shape) not in (1, 2):
        remedy = "put it in an array of shape (1, 1)" if not shape else "reshape it to (rows, columns)"
        got = f"{len(shape)} dimensions {shape}" if shape else "a single number without dimensions"
        raise ValueError(f"{what}: expected an array of shape (rows, columns), got {got}; {remedy}")
    rows, columns = shape if len(shape) == 2 else (shape[0], 1)
    if rows == 0 or columns == 0:
        missing = "rows" if rows == 0 else "columns"
        raise ValueError(
            f"{what}: expected at least one row and one column, got an array of shape {shape} with no "
            f"{missing}; check how the file was made"
        )
    return rows, columns


def shape_notes(shape: tuple[int, ...], what: str = "data") -> list[str]:
    """What to tell the user about the shape."""
    return [f"{what}: a 1-D array of {shape[0]} numbers is taken as one column"] if len(shape) == 1 else []


def to_table(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A fresh or unchanged (N, D) array of native ``dtype`` in C order."""
    with np.errstate(over="ignore", invalid="ignore"):  # a long double beyond float64 becomes inf, which is reported
        out = np.ascontiguousarray(values, dtype=dtype)
    return out.reshape(len(values), -1)


def nonfinite_rows(x: np.ndarray) -> np.ndarray:
    """Numbers of the rows of ``x`` (N, D) that hold NaN or an infinity, ascending, int64."""
    found = [
        start + np.flatnonzero(~np.isfinite(x[start : start + CHECK_ROWS]).all(axis=1))
        for start in range(0, len(x), CHECK_ROWS)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def nonfinite_message(what: str, count: int, rows: int, first: list[int]) -> str:
    """The one line about rows that are not finite; ``first`` are the first few row numbers."""
    names = ", ".join(str(i) for i in first) + (", ..." if count > len(first) else "")
    return (
        f"{what}: expected finite numbers, got NaN or infinity in {count:,} of {rows:,} rows (row"
        f"{'s' if count > 1 else ''} {names}, counted from 0); repair them, or leave them out with "
        f"drop_nonfinite=True (--drop-nonfinite)"
    )


def check_rows(
    x: Any, *, drop_nonfinite: bool = False, minimum: int = 1, what: str = "data"
) -> tuple[np.ndarray, list[str]]:
    """``x`` as a finite (N, D) array of native float32 or float64 in C order, and notes for the user.

    Takes anything numpy takes: lists, data frames of numbers, boolean, integer, big-endian, Fortran-ordered and
    half-precision arrays; masked entries count as NaN. Raises ValueError for anything but real numbers in one or
    two dimensions, for NaN or infinities unless ``drop_nonfinite``, and for fewer than ``minimum`` rows.
    """
    kept, _, notes = check_pair(x, None, drop_nonfinite=drop_nonfinite, minimum=minimum, what=what)
    return kept, notes


def check_pair(
    x: Any, context: Any = None, *, drop_nonfinite: bool = False, minimum: int = 1, what: str = "data"
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """As ``check_rows`` for rows with a context (N, C) or None: rows are dropped from both together."""
    table, notes = _as_table(x, what)
    tables = [table]
    if context is not None:
        other, more = _as_table(context, f"context of {what}")
        if len(other) != len(table):
            raise ValueError(
                f"{what}: expected one context row for each of the {len(table):,} rows, got "
                f"{len(other):,}; the two must be in the same order and of the same length"
            )
        tables.append(other)
        notes += more
    bad = np.unique(np.concatenate([nonfinite_rows(t) for t in tables]))
    if len(bad):
        if not drop_nonfinite:
            raise ValueError(nonfinite_message(what, len(bad), len(table), bad[:SHOWN_ROWS].tolist()))
        keep = np.ones(len(table), bool)
        keep[bad] = False
        tables = [t[keep] for t in tables]
        notes.append(f"{what}: left out {len(bad):,} of {len(table):,} rows with NaN or infinity")
    if len(tables[0]) < minimum:
        left = " finite" if len(bad) else ""
        raise ValueError(f"{what}: expected at least {minimum:,}{left} rows, got {len(tables[0]):,}; give more rows")
    return tables[0], tables[1] if context is not None else None, notes


def _as_table(x: Any, what: str) -> tuple[np.ndarray, list[str]]:
    masked = hasattr(x, "mask") and hasattr(x, "filled")  # numpy.asarray would show what a mask hides
    try:
        array = np.asarray(x.astype(np.float64).filled(np.nan) if masked else x)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{what}: expected a table of numbers with rows of equal length, got something else "
            f"({short(str(error), 60)}); pass an array of shape (rows, columns)"
        ) from None
    dtype = table_dtype(array.dtype, what)
    table_shape(array.shape, what)
    return to_table(array, dtype), shape_notes(array.shape, what)


def short(text: str, limit: int = 40) -> str:
    """``text`` on one line, cut to ``limit`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Source:
    """An open table that can be read whole or in chunks of rows.

    rows: their number, or None where only reading to the end tells (.csv). dim: columns. dtype: float32 or float64.
    columns: their names or None. notes: things to tell the user. context: the Source of the context, or None.
    """

    def __init__(
        self,
        path: Path,
        rows: int | None,
        dim: int,
        dtype: np.dtype,
        *,
        columns: list[str] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.path, self.rows, self.dim, self.dtype = path, rows, dim, dtype
        self.columns = columns
        self.notes = list(notes or [])
        self.context: Source | None = None

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        """Consecutive (at most ``rows``, dim) arrays of ``dtype``; may raise ValueError on the way."""
        raise NotImplementedError

    def read(self, mmap: bool = False) -> np.ndarray:
        """All rows, (N, dim) of ``dtype``. With ``mmap`` a memory map where the file allows one."""
        if self.rows is None:
            return np.concatenate(list(self.chunks(CHECK_ROWS)))
        out = np.empty((self.rows, self.dim), self.dtype)
        start = 0
        for chunk in self.chunks(CHECK_ROWS):
            out[start : start + len(chunk)] = chunk
            start += len(chunk)
        return out
