"""How accurate the transformers are, against the oracle, in units of the last place.

Every set of :mod:`.accuracy_sets` is evaluated by the reference (float64) and by the array and the compiled kernels
(float64 and float32), and by the oracle to 30 digits from the same floats. Two numbers are measured:

- the error of y in units of the last place of ``max(1, |y|)``, over ``max(1, condition)``, which must stay within 4 (a
  running sum of d terms may add d / 2 by itself: within 8 for 16 units);
- the error of ``log dy/dx`` over ``max(1, |log dy/dx|)`` and ``max(1, condition)``, which must stay within 1e-13, and
  in float32 within as many eps (450, or 5.4e-5).

The unit stops shrinking at 1: near 0, y is the logarithm of a ratio of numbers near 1/2, and its error is absolute. The
condition is that of :mod:`.condition`. Beside the two stand the largest errors among the well-conditioned sets
(condition at most 10), undivided. Sets whose y is beyond the dtype's largest number are left out.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refnaf.ops import REFERENCE, make
from refnaf.ops_backends import default_backend
from refnaf.verify.accuracy_sets import EXPONENTS, OBJECTS, Batch
from refnaf.verify.accuracy_truth import DIGITS, truths
from refnaf.verify.condition import conditions
from refnaf.verify.precision import mpmath

#: Largest error of log dy/dx, in eps: 1e-13 in float64.
SLOPE_BOUND = 450.0
#: The largest condition that counts as good.
WELL = 10.0

#: What is measured, and in which dtypes: functions of a batch, the transformer's name and its options.
IMPLEMENTATIONS: dict[str, tuple[Callable[[Batch, str, dict[str, Any]], tuple[Any, Any]], tuple[str, ...]]] = {}


def _reference(batch: Batch, name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    y, log_slope = REFERENCE[name](batch.x, batch.theta, *batch.matrices, **options)
    return y, np.broadcast_to(log_slope, y.shape)


def _by(backend: str) -> Callable[[Batch, str, dict[str, Any]], tuple[Any, Any]]:
    def kernels(batch: Batch, name: str, options: dict[str, Any]) -> tuple[Any, Any]:
        theta = np.ascontiguousarray(batch.theta[None])
        y, log_slope, _ = make(backend).transform(name, batch.x[None], theta, batch.matrices, options)
        return y[0], log_slope[0]

    return kernels


IMPLEMENTATIONS["reference"] = _reference, ("float64",)
IMPLEMENTATIONS["array kernels"] = _by("numpy"), ("float64", "float32")
if default_backend() == "numba":
    IMPLEMENTATIONS["compiled kernels"] = _by("numba"), ("float64", "float32")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the report: an implementation of an object in a dtype.

    ``value`` and ``slope`` are the two numbers of this module's docstring, the second in units of 1 (not eps);
    ``value_well`` and ``slope_well`` those among ``well`` of the ``sets``; ``beyond`` sets were left out.
    ``worst`` says in which of the sets that :func:`.accuracy_sets.draw` gives, counted from 0, ``value`` was reached.
    """

    object: str
    implementation: str
    dtype: str
    sets: int
    beyond: int
    well: int
    value: float
    value_well: float
    slope: float
    slope_well: float
    worst: str

    @property
    def value_bound(self) -> float:
        """The largest that ``value`` may be."""
        return OBJECTS[self.object].bound

    @property
    def slope_bound(self) -> float:
        """The largest that ``slope`` may be."""
        return 1e-13 if self.dtype == "float64" else SLOPE_BOUND * float(np.finfo(self.dtype).eps)

    @property
    def ok(self) -> bool:
        """Whether both numbers keep to their bounds."""
        return self.value <= self.value_bound and self.slope <= self.slope_bound


def report(
    samples: int = 1000, seed: int = 0, dtype: str | None = None, cache: str | os.PathLike[str] | None = None
) -> list[Row]:
    """Measure every object, on ``samples`` sets each; of both dtypes, or of one.

    What is true of the sets takes nearly all of the time, and is kept in the folder ``cache``, where one is given, for
    the next time (:mod:`.accuracy_truth`). Raises ValueError for a dtype other than float64 and float32 or fewer than
    one set, ImportError without mpmath, OSError where the folder cannot be written.
    """
    return list(measure(samples, seed, dtype, cache))


def measure(
    samples: int = 1000, seed: int = 0, dtype: str | None = None, cache: str | os.PathLike[str] | None = None
) -> Iterator[Row]:
    """The rows of :func:`report`, each as it is known."""
    if dtype is not None and dtype not in EXPONENTS:
        raise ValueError(f"accuracy is measured in {' and '.join(EXPONENTS)}, not {dtype!r}")
    if samples < 1:
        raise ValueError(f"accuracy needs at least one set, got samples={samples}")
    mpmath()
    for name in OBJECTS:
        for kind in EXPONENTS if dtype is None else (dtype,):
            yield from _rows(name, kind, truths(name, samples, seed, kind, None if cache is None else Path(cache)))


def format_report(rows: list[Row]) -> str:
    """A table as text, a line an object, implementation and dtype, with a line of explanation above it."""
    head = ["", "", "", "sets", "y", "bound", "log dy/dx", "bound", "well", "y", "log dy/dx", ""]
    lines = [head]
    for row in rows:
        inside = row.sets - row.beyond
        cells = [row.object, row.implementation, row.dtype, f"{inside:,}", f"{row.value:.2f}", f"{row.value_bound:g}"]
        cells += [f"{row.slope:.1e}", f"{row.slope_bound:.1e}", f"{row.well / max(inside, 1):.0%}"]
        cells += [f"{row.value_well:.2f}", f"{row.slope_well:.1e}", "" if row.ok else "NOT within bounds"]
        lines.append(cells)
    width = [max(len(line[k]) for line in lines) for k in range(len(head))]
    table = [
        "  ".join(
            c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(line, width, strict=True))
        ).rstrip()
        for line in lines
    ]
    said = (
        f"Largest errors against {DIGITS} digits: of y in units of the last place of max(1, |y|), of log dy/dx "
        "relative to max(1, |log dy/dx|);\nboth over max(1, condition), and on the right undivided among the sets that "
        f"are well conditioned (at most {WELL:g})."
    )
    bad = [f"{row.object}, {row.implementation}, {row.dtype}: y is worst in {row.worst}" for row in rows if not row.ok]
    return "\n".join([said, "", *table, *bad])


def _rows(name: str, dtype: str, sets: Iterable[tuple[Batch, np.ndarray]]) -> Iterator[Row]:
    """An object in a dtype, by every implementation that has it."""
    transformer, options, _ = OBJECTS[name]
    tables: dict[str, list[np.ndarray]] = {key: [] for key, (_, dtypes) in IMPLEMENTATIONS.items() if dtype in dtypes}
    worst = dict.fromkeys(tables, (-1.0, ""))
    before = 0
    for batch, numbers in sets:
        true = [numbers[:2], numbers[2:]]
        x, theta, *matrices = (np.asarray(a, np.float64) for a in (batch.x, batch.theta, *batch.matrices))
        known = conditions(transformer, x, theta, matrices, options, float(np.finfo(dtype).eps))
        inside = np.abs(true[0][0]) <= float(np.finfo(dtype).max)
        for key in tables:
            with np.errstate(all="ignore"):
                found = IMPLEMENTATIONS[key][0](batch, transformer, options)
            plain = [_errors(found[0], true[0], dtype), _errors(found[1], true[1], "")]
            over = [error / np.maximum(1, condition) for error, condition in zip(plain, known, strict=True)]
            tables[key].append(np.stack([*over, *plain, *known])[:, inside])
            at = int(np.argmax(np.where(inside, over[0], -1)))
            if inside.any() and over[0][at] > worst[key][0]:
                told = f"set {before + at}: x={batch.x[at]!s}, y={found[0][at]!s}, in truth {true[0][0][at]!s}"
                worst[key] = float(over[0][at]), told
        before += len(batch.x)
    for key, parts in tables.items():
        value, slope, value_plain, slope_plain, value_condition, slope_condition = np.concatenate(parts, axis=1)
        yield Row(
            object=name,
            implementation=key,
            dtype=dtype,
            sets=before,
            beyond=before - len(value),
            well=int(np.sum(value_condition <= WELL)),
            value=float(np.max(value, initial=0)),
            value_well=float(np.max(value_plain[value_condition <= WELL], initial=0)),
            slope=float(np.max(slope, initial=0)),
            slope_well=float(np.max(slope_plain[slope_condition <= WELL], initial=0)),
            worst=worst[key][1],
        )


def _errors(found: np.ndarray, true: np.ndarray, dtype: str) -> np.ndarray:
    """In units of the last place of ``max(1, |true|)``, or relative to it where ``dtype`` is empty; NaN is infinite."""
    high, low = true
    with np.errstate(all="ignore"):
        error = np.abs((np.asarray(found, np.float64) - high) - low)
        size = np.maximum(1, np.abs(high))
        if dtype:
            size = np.spacing(np.minimum(size, np.finfo(dtype).max / 2).astype(dtype)).astype(np.float64)
        return np.where(np.isnan(error), np.inf, error / size)
