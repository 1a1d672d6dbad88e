"""What happens to rows before training: checks, splits, standardisation, hashes."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np

from refnaf.errors import DataWarning

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


def as_rows(x: Any, what: str = "x", drop_nonfinite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Data as ``(N, D)`` float64, C order, and which of the original rows were kept ``(N0,)``.

    One-dimensional input is one column. Raises ValueError for anything that is not a table of finite real numbers;
    with ``drop_nonfinite`` rows with NaN or inf are left out, with a warning.
    """
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        remedy = "take its real and imaginary parts as columns" if array.dtype.kind == "c" else "convert it to numbers"
        raise ValueError(f"{what} must hold real numbers, got dtype {array.dtype}; {remedy}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{what} must be a table of shape (rows, columns), got shape {array.shape}")
    with np.errstate(over="ignore"):
        rows = np.array(array, dtype=np.float64, order="C")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        named = ", ".join(str(k) for k in bad[:5]) + (", ..." if len(bad) > 5 else "")
        if not drop_nonfinite:
            raise ValueError(
                f"{what} has NaN or inf in {len(bad)} of {len(rows)} rows (rows {named}); "
                "remove them, or drop them with drop_nonfinite=True (--drop-nonfinite)"
            )
        warnings.warn(f"{what}: {len(bad)} rows with NaN or inf dropped", DataWarning, stacklevel=3)
        rows = rows[finite]
    return rows, finite


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
    """SHA-256 of an array's shape and float64 bytes."""
    digest = hashlib.sha256(repr(rows.shape).encode())
    digest.update(np.ascontiguousarray(rows, dtype="<f8").tobytes())
    return digest.hexdigest()
