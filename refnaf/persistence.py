"""Files: tensors and one JSON header in a safetensors file, checked by SHA-256, written atomically.

A file is a plain safetensors file (any reader of that format opens it) whose only metadata entry, ``"refnaf"``,
holds a JSON object. ``write_archive`` sets these keys of the object, the rest is the caller's:

``format``         the version of this layout, an integer
``sha256``         of the tensors: names, dtypes, shapes and bytes, in the order of their names
``header_sha256``  of the object's other entries, so that a damaged header is noticed too

Nothing is ever unpickled, and the same tensors and header give the same bytes.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = 1
"""The newest layout that this version writes and reads."""

_KEY = "refnaf"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
_DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
_FOREIGN = {  # the first bytes of files that people may confuse with a model
    b"\x93NUMPY": "a NumPy .npy array",
    b"PK\x03\x04": "a zip archive (.npz, or a PyTorch file)",
    b"PK\x05\x06": "an empty zip archive",
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet table",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}


class FileFormatError(ValueError):
    """A file that is not what it should be: damaged, truncated, foreign, or written by a newer refnaf."""


def write_archive(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write named arrays and a JSON header to one safetensors file, atomically and byte for byte reproducibly.

    Parameters
    ----------
    path : path of the file; an existing file is replaced only when the new one is complete.
    tensors : mapping of name to array of booleans, integers or floats (float16 to float64), of any shape, strides
        and byte order.
    header : mapping that ``json`` can write; numpy scalars are taken as numbers. ``format``, ``sha256`` and
        ``header_sha256`` are set here, whatever they were.

    Raises
    ------
    ValueError : a tensor's name or dtype, or a header entry, cannot be stored. Nothing is written.
    OSError : the file cannot be written (see ``check_writable``). What was at ``path`` is still there.
    """
    from safetensors.numpy import save

    # An archive has one byte order (little) and one layout (C). np.asarray keeps 0-d arrays, unlike ascontiguousarray.
    arrays = {}
    for name, value in tensors.items():
        array = np.asarray(value)
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"a tensor's name must be a string other than '__metadata__', not {name!r}")
        if array.dtype.name not in _DTYPES:
            raise ValueError(
                f"tensor {name!r} has dtype {array.dtype}, which cannot be stored: "
                "convert it to a boolean, integer or float dtype (float16, float32 or float64)"
            )
        arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")

    try:
        # Through JSON and back first: the digest is of what a reader will see (keys become strings, tuples lists).
        entries = json.loads(_dumps({**header, "format": FORMAT, "sha256": _tensor_digest(arrays)}))
        entries["header_sha256"] = _header_digest(entries)
        text = _dumps(entries)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header cannot be written as JSON: {error}") from None
    try:
        data = save(arrays, metadata={_KEY: text})
    except UnicodeEncodeError:
        raise ValueError("a tensor's name is not valid Unicode: rename it") from None
    with atomic_write(path) as file:
        file.write(data)


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of ``write_archive``: ``(tensors, header)``, tensors in the order of their names, writable.

    Every byte that matters is checked: what comes back is what was written.

    Raises
    ------
    FileFormatError : the file is damaged, truncated, foreign or of a newer format; one line that names the file.
    FileNotFoundError, OSError : the file does not exist or cannot be read.
    """
    from safetensors.numpy import load

    name = _one_line(os.fspath(path))
    data, length = _read_bytes(path, name)
    outer = _parse(data[8 : 8 + length])
    if outer is None:
        raise FileFormatError(f"{name} is damaged (its header is not valid JSON): restore it from a copy")
    metadata = outer.get("__metadata__")
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise FileFormatError(
            f"{name} is a safetensors file, but not one written by refnaf (it has no '{_KEY}' metadata): "
            "expected a file made by flow.save or refnaf fit"
        )
    header = _parse(text.encode("utf-8", "surrogatepass"))
    version = header.get("format") if header is not None else None
    if header is None or type(version) is not int or version < 1:
        raise FileFormatError(f"{name} is damaged (its refnaf header cannot be read): restore it from a copy")
    if version > FORMAT:
        raise FileFormatError(
            f"{name} has format {version}, and this version of refnaf reads up to {FORMAT}: "
            "upgrade with pip install --upgrade refnaf"
        )
    if header.get("header_sha256") != _header_digest(header):
        raise FileFormatError(f"{name} is damaged (its header does not match its SHA-256): restore it from a copy")
    try:
        loaded = load(data)
    except Exception as error:  # the library has no common base: SafetensorError, KeyError (dtype), ValueError (shape)
        raise FileFormatError(
            f"{name} is damaged or truncated ({_one_line(str(error))}): restore it from a copy"
        ) from None
    if header.get("sha256") != _tensor_digest(loaded):
        raise FileFormatError(f"{name} is damaged (its tensors do not match their SHA-256): restore it from a copy")
    del data  # a large model is not to be held twice for longer than it must
    return {key: np.array(loaded.pop(key), order="C") for key in sorted(loaded)}, header


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Context manager: a binary file that takes the place of ``path`` only when the block ends without an error.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and renamed over ``path``; after an
    error, or an interrupt, the temporary file is removed and what was at ``path`` is untouched. A symbolic link is
    followed, and the mode of an existing file is kept.

    Raises
    ------
    OSError : as ``check_writable``.
    """
    target = _check_target(path)
    temporary, descriptor = _open_temporary(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now if a file cannot be written at ``path`` later; leaves nothing behind.

    Raises
    ------
    ValueError : the path is empty.
    OSError : its folder does not exist (FileNotFoundError) or is no folder (NotADirectoryError), the path is a folder
        (IsADirectoryError), a device or a pipe (OSError), or there is no permission (PermissionError); in one line.
    """
    temporary, descriptor = _open_temporary(_check_target(path))
    os.close(descriptor)
    os.unlink(temporary)


def _check_target(path: str | os.PathLike[str]) -> Path:
    """The file that writing to ``path`` would replace, with links followed; raises if that cannot be."""
    name = os.fspath(path)
    if not name:
        raise ValueError("the output path is empty: name a file")
    shown = _one_line(name)
    target = Path(os.path.realpath(name))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    except NotADirectoryError:
        raise NotADirectoryError(f"cannot write {shown}: {target.parent} is not a folder") from None
    except OSError as error:
        raise type(error)(f"cannot write {shown}: {error.strerror}") from None
    if (mode is not None and stat.S_ISDIR(mode)) or name.endswith(("/", os.sep)):
        raise IsADirectoryError(f"cannot write {shown}: it is a folder; name a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"cannot write {shown}: it is not a regular file; choose another path")
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write {shown}: the file is read-only; choose another path")
    if not target.parent.exists():
        raise FileNotFoundError(f"cannot write {shown}: the folder {target.parent} does not exist; create it first")
    if not target.parent.is_dir():
        raise NotADirectoryError(f"cannot write {shown}: {target.parent} is not a folder")
    return target


def _open_temporary(target: Path) -> tuple[Path, int]:
    """Create a new file beside ``target``, with the permissions that any new file gets."""
    temporary = target.parent / f".refnaf-{secrets.token_hex(8)}.tmp"
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        return temporary, os.open(temporary, flags, 0o666)
    except OSError as error:
        raise type(error)(
            f"cannot write {_one_line(str(target))}: no file can be made in its folder ({error.strerror})"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_bytes(path: str | os.PathLike[str], name: str) -> tuple[bytes, int]:
    """The whole file and the length of its header, once its first bytes look right."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        if not start:
            raise FileFormatError(f"{name} is empty: expected a file made by flow.save or refnaf fit")
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or not 2 <= length <= _MAX_HEADER or start[8:] != b"{":
            kind = next((text for magic, text in _FOREIGN.items() if start.startswith(magic)), "something else")
            raise FileFormatError(
                f"{name} is not a safetensors file ({kind}, or damaged): "
                "expected a file made by flow.save or refnaf fit"
            )
        if 8 + length > size:
            raise FileFormatError(
                f"{name} is truncated ({size} bytes, its header alone needs {8 + length}): restore it from a copy"
            )
        return start + file.read(), length


def _parse(data: bytes) -> dict[str, Any] | None:
    """A JSON object from UTF-8 bytes; None if they are not that."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _dumps(entries: Mapping[str, Any]) -> str:
    """The one way a header is written: sorted keys, ASCII. NaN and infinities stay, as Python's json reads them."""
    return json.dumps(entries, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an entry of type {type(value).__name__} is not a number, string, list or dict")


def _header_digest(header: Mapping[str, Any]) -> str:
    text = _dumps({key: value for key, value in header.items() if key != "header_sha256"})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _tensor_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over C-ordered little-endian arrays. One JSON line says how many bytes follow: no two sets collide."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode("ascii") + b"\n")
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
