"""Another implementation's outputs: the file, the names, and the layouts that can be recognised."""

from __future__ import annotations

import itertools
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refnaf.verify.compare_tensor import Tensor

#: Entries of golden vectors that describe the flow and its inputs, and that nobody needs to give back.
GIVEN = ("inputs/", "params/", "buffers/", "inverse/z")

TRANSPOSED, PARAMETER_MAJOR = "axes in another order", "parameter-major"
NOT_SUMMED, MEAN_OF_ROWS, SUM_OF_ROWS = "not summed over the dimensions", "mean over the rows", "sum over the rows"


def canonical(name: str) -> str:
    """``outputs.layers.1.y`` and ``layers/1/y`` are one name."""
    name = name.replace(".", "/").strip("/")
    return name.removeprefix("outputs/")


def shown(name: str) -> str:
    """The name of a tensor of the vectors, as people are told it."""
    return name.removeprefix("outputs/")


def read_theirs(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npy (under the name ""), .npz or safetensors file.

    Raises ValueError in one line where the file is damaged or of another kind, FileNotFoundError where it is missing.
    """
    with open(path, "rb") as file:  # numpy leaves a file open that it cannot read
        magic = file.read(8)
        file.seek(0)
        try:
            if magic[:6] == b"\x93NUMPY":
                return {"": np.load(file, allow_pickle=False)}
            if magic[:2] == b"PK":
                with np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                return {"": arrays["arr_0"]} if list(arrays) == ["arr_0"] else arrays
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, KeyError) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"{path}: the file is damaged or holds no plain arrays ({text}); save it again") from None
        return _safetensors(path, file.read())


def _safetensors(path: str | os.PathLike[str], data: bytes) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except Exception as error:  # the library has no common base; an unknown dtype is a KeyError
        text = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path}: expected a .npy, .npz or safetensors file of float tensors ({text}); save it again"
        ) from None


def matched(
    vectors: Mapping[str, np.ndarray], theirs: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, np.ndarray]], list[str]]:
    """Their arrays by the names of the vectors (with the names they had), and the names that the vectors lack.

    Raises ValueError where two arrays have one name, where an array is not of real numbers, or where nothing matches.
    """
    known = {canonical(name): name for name in vectors if not name.startswith("oracle/")}
    found: dict[str, tuple[str, np.ndarray]] = {}
    unknown: list[str] = []
    for given, value in theirs.items():
        array = np.asarray(value)
        name = canonical(given or _lone(array, vectors))
        if name not in known:
            unknown.append(given)
            continue
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{given or name}: expected real numbers, got dtype {array.dtype}; save it as float64")
        if known[name] in found:
            raise ValueError(
                f"{given} and {found[known[name]][0]} are both {name} of the vectors: leave one of them out"
            )
        found[known[name]] = (given or name, array)
    if not found:
        some = ", ".join(itertools.islice((canonical(name) for name in named(vectors)), 6))
        got = ", ".join(unknown[:6]) or "nothing"
        raise ValueError(f"no tensor to compare: expected some of {some}, ..., got {got}; rename them")
    return found, unknown


def _lone(array: np.ndarray, vectors: Mapping[str, np.ndarray]) -> str:
    shape = vectors["outputs/z"].shape
    if array.shape == shape[:1]:
        return "log_prob"
    if array.ndim == 2 and (array.shape in (shape, shape[::-1])):
        return "z"
    raise ValueError(
        f"a single array must be z of shape {shape} or log_prob of shape {shape[:1]}, got {array.shape}; "
        "save several arrays in one .npz"
    )


def named(vectors: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Names of what can be compared, in the order in which a flow computes it."""

    def place(name: str) -> tuple[Any, ...]:
        parts = canonical(name).split("/")
        if parts[0] == "layers":
            return 1, int(parts[1]), ("theta", "y", "logdet").index(parts[2])
        order = ["z", "logdet", "log_prob", "inverse", "grads"]
        return (2, order.index(parts[0]), name) if parts[0] in order else (0, 0, name)

    return iter(sorted((n for n in vectors if not n.startswith(("oracle/", *GIVEN))), key=place))


def arranged(name: str, given: str, expected: np.ndarray, theirs: np.ndarray, **tensor: Any) -> Tensor:
    """Their array in the expected shape, by the first known layout in which the numbers agree, or else fit the shape.

    ``tensor`` are the Tensor's other fields. Raises ValueError where the shape is no known layout.
    """
    candidates = []
    for layout, harmless, array, wanted in _layouts(name, expected, theirs):
        candidates.append(
            Tensor(
                shown(name), wanted, array.astype(np.float64), theirs.dtype, layout=layout, harmless=harmless, **tensor
            )
        )
    if not candidates:
        raise ValueError(f"{given}: expected shape {expected.shape}, got {theirs.shape}; save it in the expected shape")
    fitting = [t for t in candidates if np.all(t.scaled(t.expected) <= 1)]
    return (fitting or candidates)[0]


def _layouts(name: str, expected: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray, np.ndarray]]:
    """(layout, whether it is harmless, their array, what to compare it with)."""
    shape = expected.shape
    squeezed = theirs.reshape([n for n in theirs.shape if n != 1])
    if theirs.shape == shape:
        yield "", True, theirs, expected
    elif squeezed.shape == tuple(n for n in shape if n != 1):
        yield f"shape {theirs.shape}", True, theirs.reshape(shape), expected
    if theirs.ndim == expected.ndim:
        for axes in itertools.permutations(range(theirs.ndim)):
            if axes != tuple(range(theirs.ndim)) and tuple(theirs.shape[a] for a in axes) == shape:
                yield TRANSPOSED, False, np.transpose(theirs, axes), expected
    if name.endswith("/theta") and theirs.shape == (shape[0], shape[1] * shape[2]):
        yield f"shape {theirs.shape}", True, theirs.reshape(shape), expected
        swapped = theirs.reshape(shape[0], shape[2], shape[1])
        yield PARAMETER_MAJOR, False, np.transpose(swapped, (0, 2, 1)), expected
    if expected.ndim == 1 and theirs.ndim == 2 and theirs.shape[0] == shape[0]:
        yield NOT_SUMMED, False, theirs.sum(axis=1, dtype=np.float64), expected
    if expected.ndim == 1 and theirs.size == 1:
        yield MEAN_OF_ROWS, False, theirs.reshape(()), np.asarray(np.mean(expected))
        yield SUM_OF_ROWS, False, theirs.reshape(()), np.asarray(np.sum(expected))
