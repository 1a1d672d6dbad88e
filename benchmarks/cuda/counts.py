"""The least work of each kernel, in values moved, elementary functions and multiply-adds, and the time that takes.

Values are those read and written once, as if all between them were held in registers. Elementary functions (exp, log,
log1p, tanh) count as one exponential each. A softplus is two, and its derivative follows from them. Multiply-adds are
those of products and of sums over units, and those of a unit, to within one or two; divisions are left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from rates import Rates

from refnaf.reference.ddsf import layer_sizes, parameter_count
from refnaf.reference.normal import MILLS


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one sample and dimension, or of all of a call: values moved, elementary functions, multiply-adds."""

    values: float
    exps: float = 0.0
    fmas: float = 0.0

    def times(self, count: float) -> Work:
        return Work(self.values * count, self.exps * count, self.fmas * count)

    def moving(self, rates: Rates, dtype: str) -> float:
        """Seconds to move the values."""
        return self.values * np.dtype(dtype).itemsize / rates.copy

    def computing(self, rates: Rates, dtype: str) -> float:
        """Seconds for the arithmetic."""
        return self.exps / rates.exps[dtype] + self.fmas / rates.fmas[dtype]

    def floor(self, rates: Rates, dtype: str) -> float:
        """The larger of both."""
        return max(self.moving(rates, dtype), self.computing(rates, dtype))


def transformer(name: str, what: str, size: int, dtype: str, evaluations: float = 0.0) -> Work:
    """Of one sample and dimension: "forward", "vjp", or "inverse" with so many evaluations on its way to a root.

    ``size``: units or components. Forward writes what its VJP needs. An inverse writes x, log dx/dy and the residual;
    what does not depend on x it computes once.
    """
    return {"affine": _affine, "mog": _mog, "dsf": _dsf, "ddsf": _ddsf}[name](what, size, dtype, evaluations)


def _affine(what: str, _size: int, _dtype: str, _evaluations: float) -> Work:
    # the VJP does not need the shift
    return {"forward": Work(5, 2, 2), "vjp": Work(7, 2, 5), "inverse": Work(6, 2, 2)}[what]


def _mog(what: str, k: int, dtype: str, evaluations: float) -> Work:
    # of a component: its weight, tanh and exponential of the scale, and density; the tail by two polynomials
    tail = sum(len(polynomial) for polynomial in MILLS[np.dtype(dtype)])
    if what == "forward":
        return Work(3 * k + 3, 4 * k + 2, k * (8 + tail))
    if what == "vjp":
        return Work(6 * k + 5, 4 * k, k * (20 + tail))
    return Work(3 * k + 4, 3 * k + evaluations * (k + 3), 2 * k + evaluations * k * (7 + tail))


def _dsf(what: str, d: int, _dtype: str, evaluations: float) -> Work:
    # of a unit: softplus, weight, sigmoid; four sums are kept
    if what == "forward":
        return Work(3 * d + 7, 4 * d + 2, 8 * d)
    if what == "vjp":
        return Work(6 * d + 8, 4 * d, 18 * d)
    return Work(3 * d + 4, 3 * d + evaluations * (d + 3), 2 * d + evaluations * 6 * d)


def _ddsf(what: str, d: int, _dtype: str, evaluations: float) -> Work:
    theta = parameter_count(d, 2)
    exps, fmas = 0.0, 0.0
    for k, (below, width, out) in enumerate(layer_sizes(d, 2)):
        row = below if k else 0
        # three right-hand sides each: S+, S- and the density; u h, its tangent and what normalises them
        products = 3 * (out * width + width * row)
        if what == "inverse":
            exps += 3 * width + row + evaluations * (width + out)
            fmas += 2 * width + width * row + evaluations * (products - width * row + 6 * width)
        elif what == "vjp":
            # forward again, without the last logarithm; and two products for each of its own
            exps += 4 * width + row + (out if out > 1 else 0)
            fmas += 3 * products + 18 * width + 6 * row
        else:
            exps += 4 * width + row + out
            fmas += products + 8 * width + 2 * row
    if what == "inverse":
        return Work(theta + 4, exps + 2 * evaluations, fmas)
    return Work(2 * theta + 5, exps, fmas) if what == "vjp" else Work(theta + 4, exps + 1, fmas)


def activate(name: str | None) -> Work:
    """Of an entry of ``(H, N)``, in place; the biases are few."""
    return Work(2, 1 if name else 0, 1)


def activate_vjp() -> Work:
    """Of an entry: h and the cotangent read, the cotangent written and added up."""
    return Work(3, 0, 2)


def adam() -> Work:
    """Of a parameter: the gradient for its norm; six vectors read and four written."""
    return Work(11, 0, 12)
