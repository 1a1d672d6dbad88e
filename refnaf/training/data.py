"""What happens to rows before training: checks, splits, standardisation, hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from typing import Any

import numpy as np

from refnaf.errors import DataWarning
from refnaf.tables import check_pair

#: Fewest training rows a fit accepts.
FEWEST_ROWS = 10

#: At most so many training rows are scored at the end of a fit.
SCORED_ROWS = 100_000


def split_rows(
    n: int, seed: int = 0, test: float = 0.1, validation: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of training, validation and test rows: disjoint, sorted, and together 0..n-1.

    ``test`` is a fraction of all rows, ``validation`` one of the rest. Raises ValueError for fractions outside [0, 1).
    """
    for name, part in (("test", test), ("validation", validation)):
        if not 0 <= part < 1:
            raise ValueError(f"the {name} part must be a fraction in [0, 1), got {part}")
    order = np.random.default_rng(seed).permutation(n)
    n_test = round(test * n)
    n_validation = round(validation * (n - n_test))
    cut = n - n_test - n_validation
    return np.sort(order[:cut]), np.sort(order[cut : n - n_test]), np.sort(order[n - n_test :])


@dataclasses.dataclass
class Rows:
    """Data ``(N, D)`` and their context ``(N, C)`` or None."""

    x: np.ndarray
    context: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: np.ndarray | slice) -> Rows:
        """Those rows, of both."""
        return Rows(self.x[index], None if self.context is None else self.context[index])


def as_rows(x: Any, context: Any = None, *, drop_nonfinite: bool = False, what: str = "x") -> Rows:
    """Data and context, if any, as float64 in C order.

    Takes what :func:`refnaf.tables.check_pair` takes, and refuses what it refuses; the rows with NaN or infinity that
    ``drop_nonfinite`` leaves out are counted in a warning.
    """
    given = len(x) if np.ndim(x) else 0
    table, conditions, _ = check_pair(x, context, drop_nonfinite=drop_nonfinite, what=what)
    if len(table) < given:
        warnings.warn(
            f"{what}: left out {given - len(table):,} of {given:,} rows with NaN or infinity", DataWarning, stacklevel=3
        )
    return Rows(_wide(table), None if conditions is None else _wide(conditions))


def _wide(table: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(table, dtype=np.float64)


def location_and_scale(rows: np.ndarray, what: str = "x") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, float64, safe for any magnitude.

    Raises ValueError where a column is constant.
    """
    largest = np.maximum(np.max(np.abs(rows), axis=0), np.finfo(np.float64).tiny)
    scaled = rows / largest
    mean, scale = scaled.mean(axis=0), scaled.std(axis=0)
    flat = np.flatnonzero((np.ptp(rows, axis=0) == 0) | (scale == 0))
    if len(flat):
        named = ", ".join(str(k) for k in flat[:10])
        raise ValueError(f"{what} has constant columns ({named}), whose density does not exist; remove them")
    return mean * largest, scale * largest


def discrete_columns(rows: np.ndarray) -> list[int]:
    """Columns whose values repeat so much that they look discrete: a density there can grow without bound."""
    sample = rows[:100_000]
    few = 0.05 * len(sample)
    return [k for k in range(rows.shape[1]) if len(np.unique(sample[:, k])) <= few]


def warn_if_discrete(rows: np.ndarray) -> None:
    """Say which columns look discrete."""
    found = discrete_columns(rows)
    if found:
        named = ", ".join(str(k) for k in found[:10]) + (", ..." if len(found) > 10 else "")
        warnings.warn(
            f"columns {named} look discrete (few distinct values): nats may grow without bound; "
            "add uniform noise of one step to compare models on them",
            DataWarning,
            stacklevel=3,
        )


def fingerprint(rows: np.ndarray) -> str:
    """SHA-256 of an array's shape and float64 bytes, -0 taken as 0: equal arrays have equal fingerprints."""
    digest = hashlib.sha256(repr(rows.shape).encode())
    digest.update(np.ascontiguousarray(rows + 0.0, dtype="<f8").tobytes())
    return digest.hexdigest()
