"""One tensor of another implementation beside what it should be, and how far apart is too far."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

#: Relative and absolute tolerance by the dtype of their numbers. That of float32 is what the rounding of inputs and
#: weights costs a flow of several layers; that of float64 leaves room for formulas that lose half of their digits.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2}
#: Gradients are sums over rows, which may cancel: their relative tolerance is so much wider.
GRADIENTS = 100


def tolerances(name: str, dtype: str) -> tuple[float, float]:
    """``(rtol, atol)`` of a tensor given in that dtype; integers count as float64."""
    own = TOLERANCES.get(dtype, TOLERANCES["float64"])
    return own * (GRADIENTS if name.startswith("grads/") else 1), own


def size_of(name: str, values: np.ndarray) -> np.ndarray:
    """What errors are measured against, of a shape that fits the values.

    The largest entry of the same row, as rounding errors of one entry reach the others; of a parameter or its gradient,
    the largest entry of all.
    """
    if values.size == 0:
        return np.zeros(values.shape)
    whole = name.startswith(("params/", "buffers/", "grads/params/"))
    axes = tuple(range(0 if whole else 1, values.ndim))
    return np.asarray(np.max(np.abs(values), axis=axes, keepdims=True)) if axes else np.abs(values)


@dataclass(frozen=True)
class Tensor:
    """Theirs in float64 and of the expected shape, with the mistake of layout that had to be undone for that.

    ``terms`` ``(N,)`` are the largest of the terms that each row of the tensor is a sum of, or 0; ``skipped`` ``(N,)``
    marks rows that do not count.
    """

    name: str
    expected: np.ndarray
    theirs: np.ndarray
    dtype: np.dtype
    rtol: float
    atol: float
    terms: np.ndarray | float = 0.0
    layout: str = ""
    harmless: bool = False
    skipped: np.ndarray | None = None

    def size(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What errors of some rows are measured against: their largest entry, or the largest term of their sum."""
        terms = np.asarray(self.terms)
        if values.ndim == 0:
            return np.maximum(np.abs(values), np.max(terms))
        terms = terms[rows] if terms.ndim else terms
        return np.maximum(
            size_of(self.name, values), terms.reshape(terms.shape + (1,) * (values.ndim - 1 if terms.ndim else 0))
        )

    def scaled(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """``|theirs - values|`` of some rows, as a multiple of the tolerance; NaN where theirs is."""
        theirs = self.theirs[rows] if self.theirs.ndim else self.theirs
        with np.errstate(all="ignore"):
            off = np.abs(theirs - values) / (self.atol + self.rtol * self.size(values, rows))
            same = np.asarray(values).astype(self.dtype) == theirs
        if self.skipped is not None and theirs.ndim:
            same |= self.skipped[rows].reshape((-1,) + (1,) * (theirs.ndim - 1))
        return np.where(same, 0.0, off)

    @property
    def of(self) -> str:
        """What kind of numbers these are, for the tolerance."""
        return ("gradients, " if self.name.startswith("grads/") else "") + self.dtype.name

    def at(self, dtype: str) -> Tensor:
        """The same at another dtype's tolerance."""
        rtol, atol = tolerances(self.name, dtype)
        return replace(self, rtol=rtol, atol=atol)

    def agrees(self) -> bool:
        """Whether every number is within the tolerance, and the layout is right or a matter of taste."""
        return bool(np.all(self.scaled(self.expected) <= 1)) and (not self.layout or self.harmless)
