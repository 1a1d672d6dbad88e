"""Mistakes that the numbers show by themselves: tests on tensors, for :mod:`refnaf.verify.signatures`.

Each returns what is to be said beside the mistake's name and how closely it fits (1 is the tolerance), or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refnaf.verify.compare_tensor import Tensor
from refnaf.verify.signatures_mistakes import Given

#: What the median error of a float32 computation stays below, as a multiple of float32's tolerance.
USUAL = 0.03

Found = tuple[str, float] | None


def worst(tensor: Tensor, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> float:
    """The largest error as a multiple of the tolerance; infinite where nothing is left to compare."""
    off = tensor.scaled(values, rows)
    off = off[np.isfinite(tensor.theirs[rows] if tensor.theirs.ndim else tensor.theirs)]
    return float(np.nan_to_num(np.max(off, initial=0.0), nan=np.inf)) if off.size else np.inf


def single_precision(given: Given) -> Found:
    """Right to float32's tolerance, and by far so in most places: rounding errors are much smaller than their bound."""
    found, usual, departs = 0.0, 0.0, False
    for tensor in given.departing:
        if tensor.dtype != np.float64 or tensor.layout:
            return None
        wide, rows = tensor.at("float32"), given.rows(tensor)
        departs |= worst(tensor, tensor.expected[rows], rows) > 1
        found = max(found, worst(wide, tensor.expected[rows], rows))
        usual = max(usual, float(np.median(np.nan_to_num(wide.scaled(tensor.expected[rows], rows), nan=0.0))))
    with np.errstate(over="ignore"):
        exact = any(np.array_equal(t.theirs, t.theirs.astype(np.float32), equal_nan=True) for t in given.departing)
    if not departs or found > 1 or not (exact or usual < USUAL):
        return None
    return "all of them are exact in float32" if exact else "", found


def layout(*layouts: str) -> Callable[[Given], Found]:
    """A tensor whose numbers are right in another layout."""

    def test(given: Given) -> Found:
        found = [t for t in given.departing if t.layout in layouts]
        right = [t for t in found if worst(t, t.expected) <= 1]
        if not right:
            return None
        names = ", ".join(t.name for t in right[:4]) + (", ..." if len(right) > 4 else "")
        return names, max(worst(t, t.expected) for t in right)

    return test


def other_rows(given: Given) -> Found:
    """The same rows in another order."""
    found = []
    for t in given.departing:
        if t.layout or t.theirs.ndim not in (1, 2) or not np.isfinite(t.theirs).all() or len(t.theirs) < 3:
            return None
        theirs, right = (a.reshape(len(a), -1) for a in (t.theirs, t.expected))
        here, there = np.lexsort(theirs.T[::-1]), np.lexsort(right.T[::-1])
        order = np.empty(len(here), dtype=int)
        order[here] = there
        found.append(worst(t, t.expected[order]))
    return ("", max(found)) if found and max(found) <= 1 else None


def tails(given: Given) -> Found:
    """Right in ordinary rows and wrong far out."""
    found = 0.0
    for t in given.departing:
        rows = given.rows(t)
        if t.layout or isinstance(rows, slice) or not rows.any() or not np.isfinite(t.theirs[rows]).all():
            return None
        found = max(found, worst(t, t.expected[rows], rows))
    bad = sum(int(np.sum(~np.isfinite(t.theirs))) for t in given.departing)
    return (f"{bad} numbers NaN or infinite" if bad else "", found) if given.departing and found <= 1 else None


def constant(given: Given) -> Found:
    """One number added to every row."""
    said, found = [], 0.0
    for t in given.departing:
        rows = given.rows(t)
        if t.theirs.ndim != 1 or t.layout or len(t.theirs[rows]) < 4 or not np.isfinite(t.theirs[rows]).all():
            return None
        shift = float(np.median(t.theirs[rows] - t.expected[rows]))
        if worst(t, t.expected[rows] + shift, rows) > 1 or worst(t, np.full_like(t.expected[rows], shift), rows) <= 1:
            return None
        found = max(found, worst(t, t.expected[rows] + shift, rows))
        said.append(f"{t.name} is {'more' if shift > 0 else 'less'} by {abs(shift):.10g} nats")
    return ("; ".join(said), found) if said else None


def _gradients(given: Given) -> list[Tensor]:
    return [t for t in given.departing if t.name.startswith("grads/") and not t.layout]


def _explained(given: Given, change: Callable[[Tensor], np.ndarray | None]) -> Found:
    """All departing gradients, none of which may be zero throughout, are explained by a change of the right ones."""
    found = []
    for t in _gradients(given):
        new = change(t)
        if new is None:
            return None
        found.append(worst(t, new))
    return (", ".join(t.name for t in _gradients(given)[:3]), max(found)) if found and max(found) <= 1 else None


def mean_gradient(given: Given) -> Found:
    """Gradients of the mean over the rows."""
    counts = {int(given.ordinary.sum()), len(given.ordinary)} - {0, 1}

    def mean_of(n: int) -> Found:
        return _explained(given, lambda t: t.expected / n)

    fits = [fit for n in sorted(counts) if (fit := mean_of(n)) is not None]
    return min(fits, key=lambda fit: fit[1]) if fits else None


def negative_gradient(given: Given) -> Found:
    """Gradients of the objective negated, as of a loss."""
    return _explained(given, lambda t: -t.expected)


def unmasked_gradient(given: Given) -> Found:
    """Right where the mask is one, and not zero where it is zero."""

    def change(t: Tensor) -> np.ndarray | None:
        mask = given.masks.get(t.name.removeprefix("grads/params/"))
        if mask is None or not np.isfinite(t.theirs).all():
            return None
        return np.where(mask == 0, t.theirs, t.expected)

    return _explained(given, change)


def any_of(*tests: Callable[[Given], Found]) -> Callable[[Given], Found]:
    """The first of the tests that finds something."""
    return lambda given: next((fit for test in tests if (fit := test(given)) is not None), None)
