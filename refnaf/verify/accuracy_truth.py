"""What is true of the sets of :mod:`.accuracy_sets`, by the oracle, which may be kept in files.

A file ``{object}-{dtype}-{seed}-{samples}.npz`` of a cache holds ``true (4, samples)``, the values of y and of log
dy/dx as sums of two float64 each, and ``digest``, the SHA-256 of the sets and the digits. A file of other sets,
as another version may draw them, is computed again.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refnaf.persistence import atomic_write
from refnaf.verify import oracle
from refnaf.verify.accuracy_sets import OBJECTS, Batch, draw
from refnaf.verify.precision import mpmath, rounded

#: Digits that are certain.
DIGITS = 30


def truths(
    name: str, samples: int, seed: int, dtype: str, cache: Path | None = None
) -> Iterator[tuple[Batch, np.ndarray]]:
    """The batches of :func:`.accuracy_sets.draw` and what is true of each: ``(4, n)``, see this module's docstring.

    With a folder for a cache, which is made where it is missing, what it lacks is written when the last batch is done.
    """
    path = None if cache is None else cache / f"{name}-{dtype}-{seed}-{samples}.npz"
    digest = _digest(draw(name, samples, seed, dtype)) if path else ""
    known = _read(path, digest, samples) if path else None
    found: list[np.ndarray] = []
    start = 0
    for batch in draw(name, samples, seed, dtype):
        if known is None:
            pair = oracle.transform(OBJECTS[name].transformer, *batch, OBJECTS[name].options, DIGITS)
            found.append(np.concatenate([split(part) for part in pair]))
        else:
            found = [known[:, start : start + len(batch.x)]]
        start += len(batch.x)
        yield batch, found[-1]
    if path and known is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, true=np.concatenate(found, axis=1), digest=np.array(digest))


def split(numbers: np.ndarray) -> np.ndarray:
    """mpf numbers ``(n,)`` as sums of two float64 ``(2, n)``, of which the second is 0 where the first is infinite."""
    mp = mpmath().mp
    high = rounded(numbers)
    with mp.workdps(DIGITS + 10):
        low = [a - mp.mpf(b) if np.isfinite(b) else mp.mpf(0) for a, b in zip(numbers, high.tolist(), strict=True)]
        return np.stack([high, rounded(low)])


def _digest(batches: Iterator[Batch]) -> str:
    found = hashlib.sha256(f"{DIGITS} digits".encode())
    for batch in batches:
        for array in (batch.x, batch.theta, *batch.matrices):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _read(path: Path, digest: str, samples: int) -> np.ndarray | None:
    """The numbers of a file, or None where there is none, or one of other sets, or one that is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            same = file["digest"].item() == digest and file["true"].shape == (4, samples)
            return np.asarray(file["true"], np.float64) if same else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
