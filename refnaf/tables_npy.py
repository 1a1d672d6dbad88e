"""NumPy's own files, .npy and .npz, read without pickle and in chunks."""

from __future__ import annotations

import lzma
import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from refnaf.tables_check import Source, shape_notes, short, table_dtype, table_shape, to_table

MAGIC = b"\x93NUMPY"
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError)


@dataclass
class Header:
    """The header of a .npy: shape, order and type of the array whose bytes start at ``offset``."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], what: str) -> Header:
    """The header at the start of ``file``. Raises ValueError in one line."""
    magic = file.read(8)
    if magic[:6] != MAGIC:
        raise ValueError(f"{what}: expected a NumPy .npy file, got {_describe(magic)}")
    read = np.lib.format.read_array_header_1_0 if magic[6:7] == b"\x01" else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header from Python 2 is read all the same
            shape, fortran, dtype = read(file)
        fine = all(n >= 0 for n in shape)
    except Exception as error:  # what the header's parser raises on damaged bytes is not documented
        raise ValueError(
            f"{what}: the .npy header is damaged ({short(str(error), 60)}); save the array again"
        ) from None
    if not fine:
        raise ValueError(f"{what}: the .npy header is damaged (shape {shape}); save the array again")
    return Header(shape, fortran, dtype, file.tell())


def _check(header: Header, size: int, what: str) -> tuple[int, int, np.dtype]:
    dtype = table_dtype(header.dtype, what)
    rows, dim = table_shape(header.shape, what)
    if size - header.offset < header.n_bytes:
        raise ValueError(
            f"{what}: the file is cut short: expected {header.n_bytes:,} bytes for an array of shape "
            f"{header.shape}, got {size - header.offset:,}; copy or save it again"
        )
    return rows, dim, dtype


def _describe(magic: bytes) -> str:
    if not magic:
        return "an empty file (0 bytes); save the array again"
    if magic[:2] == b"PK":
        return "a zip archive; if numpy.savez made it, name it .npz"
    if magic[:1] == b"\x80":
        return "a pickle, which is never read; save the array with numpy.save"
    return "something else; save the array with numpy.save"


def _read_chunks(file: IO[bytes], header: Header, rows: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Chunks of an array in C order from a file that stands at its first number. Raises EOFError if it is cut short."""
    total, dim = table_shape(header.shape)
    for start in range(0, total, rows):
        count = min(rows, total - start)
        data = file.read(count * dim * header.dtype.itemsize)
        if len(data) < count * dim * header.dtype.itemsize:
            raise EOFError("cut short")
        if start + count == total:
            file.read(1)  # the end, where an archive compares its checksum
        yield np.array(to_table(np.frombuffer(data, header.dtype).reshape(count, dim), dtype))


class NpySource(Source):
    """A .npy file: read from start to end, or memory-mapped."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with open(path, "rb") as file:
            self._header = read_header(file, str(path))
        rows, dim, dtype = _check(self._header, size, str(path))
        super().__init__(path, rows, dim, dtype, notes=shape_notes(self._header.shape, str(path)))

    def _map(self) -> np.ndarray:
        header = self._header
        mapped = np.memmap(self.path, header.dtype, "r", header.offset, header.shape, "F" if header.fortran else "C")
        return mapped if mapped.ndim == 2 else mapped[:, None]

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        if self._header.fortran:
            mapped = self._map()
            for start in range(0, len(mapped), rows):
                yield np.array(to_table(mapped[start : start + rows], self.dtype))
            return
        with open(self.path, "rb") as file:  # a map would grow the process by the whole file
            file.seek(self._header.offset)
            try:
                yield from _read_chunks(file, self._header, rows, self.dtype)
            except EOFError:
                raise ValueError(f"{self.path}: the file became shorter while it was read; start again") from None

    def read(self, mmap: bool = False) -> np.ndarray:
        mapped = self._map()
        return mapped if mmap and mapped.dtype == self.dtype else super().read()


class NpzMember(Source):
    """One array of a .npz archive, unpacked as it is read."""

    def __init__(self, path: Path, name: str) -> None:
        self._name, what = name, f"{path} ({name})"
        try:
            with zipfile.ZipFile(path) as archive:
                self._size = archive.getinfo(f"{name}.npy").file_size
                with archive.open(f"{name}.npy") as file:
                    self._header = read_header(file, what)
        except _ZIP_ERRORS as error:
            raise _damaged(what, error) from None
        rows, dim, dtype = _check(self._header, self._size, what)
        super().__init__(path, rows, dim, dtype, notes=shape_notes(self._header.shape, what))

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        header, what = self._header, f"{self.path} ({self._name})"
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self._name}.npy") as file:
                file.read(header.offset)
                if not header.fortran:
                    yield from _read_chunks(file, header, rows, self.dtype)
                    return
                # column by column: the first row is complete only at the end
                data = file.read()
                if len(data) < header.n_bytes:
                    raise EOFError("cut short")
                whole = np.frombuffer(data, header.dtype, math.prod(header.shape)).reshape(header.shape, order="F")
                for start in range(0, len(whole), rows):
                    yield np.array(to_table(whole[start : start + rows], self.dtype))
        except _ZIP_ERRORS as error:
            raise _damaged(what, error) from None


def _damaged(what: str, error: BaseException) -> Exception:
    if isinstance(error, PermissionError):
        return PermissionError(f"{what}: cannot be read ({error.strerror})")
    return ValueError(
        f"{what}: the .npz archive is damaged or of a kind not supported "
        f"({short(str(error) or type(error).__name__, 60)}); copy or save it again with numpy.savez"
    )


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in a .npz. Raises ValueError if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except _ZIP_ERRORS as error:
        with open(path, "rb") as file:
            magic = file.read(8)
        if magic[:6] == MAGIC:
            raise ValueError(f"{path}: expected a .npz archive, got a single array; name it .npy") from None
        if magic[:2] != b"PK":
            got = "a pickle, which is never read" if magic[:1] == b"\x80" else "something else"
            raise ValueError(f"{path}: expected a .npz archive, got {got}; save with numpy.savez") from None
        raise _damaged(str(path), error) from None
    if not names:
        raise ValueError(f"{path}: expected a .npz archive of arrays, found no array in it; save with numpy.savez")
    return names


def open_npz(path: Path, key: str | None, context_key: str | None) -> Source:
    """The array ``key`` and the context ``context_key``; without a key the only array, or x with c (or context)."""
    names = npz_names(path)
    listed = ", ".join(short(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
    for given, option in ((key, "key"), (context_key, "context_key")):
        if given is not None and given not in names:
            raise ValueError(
                f"{path}: no array {given!r} in the archive; {option} "
                f"(--{option.replace('_', '-')}) takes one of: {listed}"
            )
    if key is None:
        contexts = [name for name in ("c", "context") if name in names]
        if "x" in names and (contexts or context_key is not None):
            key = "x"
            context_key = context_key or contexts[0]
        else:
            rest = [name for name in names if name != context_key]
            if len(rest) != 1:
                raise ValueError(f"{path}: expected one array, got {len(rest)}; choose one with key (--key): {listed}")
            key = rest[0]
    source = NpzMember(path, key)
    if context_key is not None:
        source.context = NpzMember(path, context_key)
        source.notes += source.context.notes
        source.notes.append(f"{path}: array {key!r} is the data, array {context_key!r} the context")
    return source
