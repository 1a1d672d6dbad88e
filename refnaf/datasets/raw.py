"""Files of published data, wherever they lie: in a folder, in a .zip or .tar.gz, compressed, or by themselves.

Nothing is ever unpickled. Tables are checked for their columns and for NaN and infinity as they are read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError)


@dataclass(frozen=True)
class Found:
    """A file that was looked for: the name it was wanted by, a label for messages, and how to open it."""

    wanted: str
    label: str
    reader: Callable[[], AbstractContextManager[IO[bytes]]]

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file's bytes, unpacked. Raises ValueError where what they are packed in is damaged."""
        try:
            with self.reader() as file:
                yield file
        except _DAMAGE as error:
            raise ValueError(
                f"{self.label}: the file is damaged or cut short ({' '.join(str(error).split())}); get it again"
            ) from None


def find(where: Path, wanted: Sequence[str]) -> Found | None:
    """The first of the ``wanted`` files that is there; None where there is none of them.

    ``where`` is a folder (``power/data.npy`` is found in it, in its subfolder ``data``, or as ``data.npy`` in a folder
    ``power``), a .zip or .tar.gz with the file anywhere in it, or the file itself, whose name may differ if it has the
    suffix of a wanted one. Each may be compressed (.gz). Raises FileNotFoundError where ``where`` itself is not there.
    """
    if not where.exists():
        raise FileNotFoundError(f"{where}: no such file or folder; check the name and the current folder")
    if where.is_dir():
        return _in_folder(where, wanted)
    with _one_line(where):
        if zipfile.is_zipfile(where) and where.suffix.lower() != ".npz":
            with zipfile.ZipFile(where) as archive:
                members = [info.filename for info in archive.infolist() if not info.is_dir()]
            return _in_archive(where, members, wanted, _zip_member)
        if where.suffix.lower() in (".tar", ".tgz") or where.name.lower().endswith(".tar.gz"):
            with tarfile.open(where) as tar:
                members = [info.name for info in tar if info.isfile()]
            return _in_archive(where, members, wanted, _tar_member)
    return _itself(where, wanted)


def _in_folder(where: Path, wanted: Sequence[str]) -> Found | None:
    for name in wanted:
        path = PurePosixPath(name)
        places = [where / name, where / "data" / name]
        if where.resolve().name == path.parent.name:
            places.append(where / path.name)
        for place in places:
            for file in (place, place.with_name(place.name + ".gz")):
                if file.is_file():
                    return Found(name, str(file), partial(_plain, file))
    return None


def _in_archive(
    where: Path,
    members: list[str],
    wanted: Sequence[str],
    reader: Callable[[Path, str], AbstractContextManager[IO[bytes]]],
) -> Found | None:
    for name in wanted:
        for member in members:
            if f"/{member}".endswith((f"/{name}", f"/{name}.gz")):
                return Found(name, f"{where} ({member})", partial(reader, where, member))
    return None


def _itself(where: Path, wanted: Sequence[str]) -> Found | None:
    plain = where.name.removesuffix(".gz")
    named = [name for name in wanted if PurePosixPath(name).name == plain]
    alike = [name for name in wanted if PurePosixPath(name).suffix == PurePosixPath(plain).suffix]
    chosen = next(iter(named + alike), None)
    return None if chosen is None else Found(chosen, str(where), partial(_plain, where))


@contextlib.contextmanager
def _one_line(where: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"{where}: the archive is damaged ({' '.join(str(error).split())}); get it again") from None


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield file


@contextlib.contextmanager
def _zip_member(where: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(where) as archive, archive.open(member) as file:
        yield _unpacked(member, file)


@contextlib.contextmanager
def _tar_member(where: Path, member: str) -> Iterator[IO[bytes]]:
    with tarfile.open(where) as tar:
        file = tar.extractfile(member)
        if file is None:  # a link to nowhere
            raise ValueError(f"{where}: {member} is not a file; unpack the archive and name the file itself")
        yield _unpacked(member, file)


def _unpacked(name: str, file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if name.endswith(".gz") else file


def read_text(
    found: Found,
    columns: int | Sequence[int],
    *,
    delimiter: str | None = None,
    skip: int = 0,
    rows: int | None = None,
    clean: Callable[[str], str | None] | None = None,
    dtype: Any = np.float64,
) -> np.ndarray:
    """A table of numbers as text ``(N, columns)``.

    ``columns``: how many each row has, or the numbers it may have. ``skip``: first lines that are no rows. ``rows``: at
    most so many. ``clean``: from a line to what is read of it, or None to leave the line out. Raises ValueError for a
    line with other columns or what is no number.
    """
    allowed = [columns] if isinstance(columns, int) else list(columns)
    with found.open() as file, io.TextIOWrapper(file, encoding="latin-1", newline=None) as text:
        lines: Iterator[str] = iter(text)
        for _ in range(skip):
            next(lines, None)
        kept = lines if clean is None else (line for raw in lines if (line := clean(raw)) is not None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a table without rows, which is refused below
                table = np.loadtxt(kept, dtype=dtype, delimiter=delimiter, comments=None, max_rows=rows, ndmin=2)
        except ValueError as error:
            raise ValueError(
                f"{found.label}: expected rows of {_either(allowed)} numbers, got something else "
                f"({' '.join(str(error).split())}); get the original file"
            ) from None
    return checked(table, allowed, found.label)


def read_npy(found: Found, columns: int | Sequence[int]) -> np.ndarray:
    """A table of a .npy with so many columns. Raises ValueError for anything else; a pickle inside is refused."""
    with found.open() as file:
        try:
            table = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{found.label}: expected a NumPy array of numbers, got something else "
                f"({' '.join(str(error).split())[:80]}); get the original file"
            ) from None
    return checked(table, [columns] if isinstance(columns, int) else list(columns), found.label)


def checked(table: np.ndarray, columns: Sequence[int], label: str) -> np.ndarray:
    """The table itself. Raises ValueError unless it is ``(N, columns)`` of finite numbers."""
    if table.ndim != 2 or table.shape[1] not in columns or not len(table):
        raise ValueError(
            f"{label}: expected rows of {_either(columns)} numbers, got an array of shape {table.shape}; "
            "get the original file"
        )
    if table.dtype.kind not in "fiub":
        raise ValueError(f"{label}: expected numbers, got {table.dtype}; get the original file")
    bad = len(table) - int(np.count_nonzero(np.isfinite(table).all(axis=1)))
    if bad:
        raise ValueError(f"{label}: expected finite numbers, got {bad:,} rows with NaN or infinity; get it again")
    return table


def _either(columns: Sequence[int]) -> str:
    return " or ".join(map(str, columns))
