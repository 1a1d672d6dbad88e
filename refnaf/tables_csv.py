"""Text tables (.csv), and .parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refnaf.tables_check import Source, short

_DELIMITERS = ("\t", ";", ",")  # in this order, so that decimal commas between semicolons are not taken for columns
_SAMPLE_LINES = 20
_READ_ROWS = 8192  # rows of text turned into numbers at a time


class CsvSource(Source):
    """Numbers as text, one row a line. A first line without a number is a header; an empty cell is NaN."""

    def __init__(self, path: Path) -> None:
        self._delimiter = _sniff(path)
        rows = self._lines(path)
        _, first = next(rows, (0, []))
        if not first:
            raise ValueError(f"{path}: expected a table, got a file without rows; check how it was made")
        self._header = _is_header(first)
        columns = [cell.strip() for cell in first] if self._header else None
        if self._header and next(rows, None) is None:
            raise ValueError(f"{path}: expected rows of numbers below the header, got none; check how it was made")
        super().__init__(path, None, len(first), np.dtype(np.float64), columns=columns)

    def _lines(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """(line number counted from 1, cells) of the lines that are not blank."""
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=self._delimiter)
                for cells in reader:
                    if len(cells) > 1 or (cells and cells[0].strip()):
                        yield reader.line_num, cells
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{path}: expected a text table in UTF-8, got something else "
                f"({short(str(error), 60)}); export it again as CSV in UTF-8"
            ) from None

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        lines = self._lines(self.path)
        if self._header:
            next(lines)
        numbers: list[int] = []
        cells: list[list[str]] = []
        parts: list[np.ndarray] = []
        held = 0
        for number, row in lines:
            if len(row) != self.dim:
                raise ValueError(
                    f"{self.path}: line {number} has {len(row)} cells, expected {self.dim} as in the "
                    f"first line; repair or remove it"
                )
            numbers.append(number)
            cells.append(row)
            held += 1
            if len(cells) == _READ_ROWS or held == rows:
                parts.append(self._numbers(numbers, cells))
                numbers, cells = [], []
            if held == rows:
                yield np.concatenate(parts)
                parts, held = [], 0
        if cells:
            parts.append(self._numbers(numbers, cells))
        if parts:
            yield np.concatenate(parts)

    def _numbers(self, numbers: list[int], cells: list[list[str]]) -> np.ndarray:
        try:
            return np.array(cells, dtype=np.float64)
        except ValueError:
            return np.array(
                [
                    [self._number(cell, line, column) for column, cell in enumerate(row)]
                    for line, row in zip(numbers, cells, strict=True)
                ],
                dtype=np.float64,
            )

    def _number(self, cell: str, line: int, column: int) -> float:
        value = _float(cell)
        if value is not None:
            return value
        name = f"column {column + 1}" + (f" ({short(self.columns[column])!r})" if self.columns else "")
        if _float(cell.replace(",", ".")) is not None and "," in cell:
            remedy = "write decimals with a point"
        elif self.dim == 1 and len(cell.split()) > 1:
            remedy = "separate cells by commas, semicolons or tabs"
        else:
            remedy = "write a number, leave the cell empty if it is missing, or remove the column"
        raise ValueError(f"{self.path}: line {line}, {name} holds {short(cell)!r}, expected a number; {remedy}")


def _float(cell: str) -> float | None:
    """The number in a cell, NaN for an empty one, None for anything else."""
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _is_header(cells: list[str]) -> bool:
    # A single cell that is not a number among numbers is more likely a damaged row than a header: it is read as
    # a row, and refused by name, rather than silently dropped.
    filled = [cell for cell in cells if cell.strip()]
    return bool(filled) and all(_float(cell) is None for cell in filled)


def _sniff(path: Path) -> str:
    """The delimiter that cuts the first lines into equally many, more than one, cells; else the first line."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        text = [line for _, line in zip(range(_SAMPLE_LINES), file, strict=False) if line.strip()]
    found = ","
    for delimiter in reversed(_DELIMITERS):
        try:
            counts = [len(row) for row in csv.reader(text, delimiter=delimiter)]
        except csv.Error:
            continue
        if counts and counts[0] > 1 and len(set(counts)) == 1:
            found = delimiter
    if found == "," and text and "," not in text[0]:
        found = next((d for d in _DELIMITERS if d in text[0]), ",")
    return found


class ParquetSource(Source):
    """Numeric columns of a .parquet file; nulls are NaN."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet  # type: ignore[import-not-found]
        except ImportError:
            raise ValueError(
                f"{path}: reading .parquet needs pyarrow, which is not installed; pip install pyarrow, or "
                f"save the table as .npy or .csv"
            ) from None
        try:
            self._file: Any = parquet.ParquetFile(path)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{path}: the .parquet file is damaged or of another kind ({short(str(error), 60)}); save it again"
            ) from None
        schema = self._file.schema_arrow
        if not len(schema) or not self._file.metadata.num_rows:
            raise ValueError(
                f"{path}: expected at least one row and one column, got {self._file.metadata.num_rows} "
                f"rows of {len(schema)} columns; check how the file was made"
            )
        for field in schema:
            kind = str(field.type)
            if not kind.startswith(("int", "uint", "float", "double", "halffloat", "bool")):
                raise ValueError(
                    f"{path}: column {short(field.name)!r} holds {short(kind)}, expected numbers; remove "
                    f"the column or encode it as numbers"
                )
        super().__init__(
            path, self._file.metadata.num_rows, len(schema), np.dtype(np.float64), columns=list(schema.names)
        )

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        held = np.empty((0, self.dim), self.dtype)
        try:
            for batch in self._file.iter_batches(batch_size=rows):
                columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in range(self.dim)]
                # a null is NaN already, or None in a column of booleans, which astype makes NaN
                held = np.concatenate([held, np.stack([c.astype(np.float64) for c in columns], axis=1)])
                if len(held) >= rows:  # a batch may end early, where the file's own groups of rows do
                    yield held[:rows]
                    held = held[rows:]
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{self.path}: the .parquet file is damaged ({short(str(error), 60)}); save it again"
            ) from None
        if len(held):
            yield held
