"""The high-precision oracle: a flow evaluated in arbitrary precision, straight from its equations.

What refnaf computes in float64 is held against this. Nothing of the fast or the stable forms is used: sigmoids,
softmaxes, logits and derivatives are written as their definitions (:mod:`.oracle_transformers`, :mod:`.oracle_layers`),
from the flow's own numbers, which are taken exactly, and the working precision is raised until the digits asked for
are certain (:mod:`.precision`). It needs mpmath: ``pip install "refnaf[verify]"``. Where gmpy2 is installed as well,
mpmath is faster, and :func:`transform` much: see :mod:`.precision_mpfr`.

>>> import refnaf
>>> from refnaf.verify import oracle
>>> flow = refnaf.build("maf-dsf", dim=2, flows=1, hidden=(4,), units=3, dtype="float64")
>>> oracle.evaluate(flow, [[0.5, 1e30]]).rounded().log_prob.shape
(1,)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from refnaf.flows.flow import Flow
from refnaf.verify import oracle_layers, oracle_transformers
from refnaf.verify.oracle_transformers import Shared
from refnaf.verify.oracle_values import Params, Value
from refnaf.verify.precision import computing_with, exact, mpmath, rounded, settled
from refnaf.verify.precision_mpfr import mpfr

DIGITS = 50


@dataclasses.dataclass(frozen=True)
class OracleLayer:
    """After one layer: ``y (N, D)``, ``logdet (N,)``, ``theta (N, D, P)`` or None where there is no network."""

    y: np.ndarray
    logdet: np.ndarray
    theta: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class OracleResult:
    """Arrays of mpf, or of float64 after :meth:`rounded`.

    ``z (N, D)``, ``logdet (N,)`` and ``log_prob (N,)`` in nats, and ``layers``, what each layer of the flow gives. Of
    an inverse, ``z`` is x, ``logdet`` is ``log|det dx/dz|``, and the layers are listed in the flow's own order.
    """

    z: np.ndarray
    logdet: np.ndarray
    log_prob: np.ndarray
    layers: list[OracleLayer]

    def rounded(self) -> OracleResult:
        """The same, each number rounded to the nearest float64."""
        layers = [
            OracleLayer(rounded(one.y), rounded(one.logdet), None if one.theta is None else rounded(one.theta))
            for one in self.layers
        ]
        return OracleResult(rounded(self.z), rounded(self.logdet), rounded(self.log_prob), layers)


def evaluate(flow: Flow, x: Any, context: Any = None, digits: int = DIGITS) -> OracleResult:
    """A flow from data x ``(N, D)`` (and ``context (N, C)``) to its base, every number good to ``digits`` digits.

    Parameters, buffers and rows are taken exactly as they are in the flow: also of a float32 flow, whose own rounding
    of what lies between is not imitated. Numbers below 1e-330 may come out as zero.

    Raises ValueError for rows that the flow itself would refuse and for layers without an equation in
    :data:`.oracle_layers.LAYERS`, ImportError where mpmath is missing.
    """
    mpmath()
    rows = flow._rows(x, "x", flow.dim)
    own = _parameters(flow)

    def run(row: list[Any], c: list[Any] | None) -> list[Value]:
        values: list[Value] = []
        for layer, params in zip(flow.layers, own, strict=True):
            values.append(oracle_layers.forward(layer, params, values[-1].y if values else row, c))
        return values

    return _result(flow, rows, context, digits, run, sign=1)


def invert(flow: Flow, z: Any, context: Any = None, digits: int = DIGITS) -> OracleResult:
    """A flow from base z ``(N, D)`` to data, as :func:`evaluate`; autoregressive layers by Newton's method.

    ``log_prob`` is that of the x found.
    """
    mpmath()
    rows = flow._rows(z, "z", flow.dim)
    own = _parameters(flow)

    def run(row: list[Any], c: list[Any] | None) -> list[Value]:
        values: list[Value] = []
        for layer, params in zip(reversed(flow.layers), reversed(own), strict=True):
            values.append(oracle_layers.backward(layer, params, values[-1].y if values else row, c))
        return values

    return _result(flow, rows, context, digits, run, sign=-1)


def _parameters(flow: Flow) -> list[Params]:
    return [Params({name: exact(array) for name, array in params.items()}) for params in flow.layer_params()]


def _flat(values: list[Value]) -> list[Any]:
    """Every number of a row, for :func:`settled` to compare."""
    out: list[Any] = []
    for value in values:
        out += [*value.y, value.logdet, *(number for row in value.theta or [] for number in row)]
    return out


def _result(
    flow: Flow,
    rows: np.ndarray,
    context: Any,
    digits: int,
    run: Callable[[list[Any], list[Any] | None], list[Value]],
    sign: int,
) -> OracleResult:
    """Every row run through the layers; ``sign`` is -1 where it starts at the base."""
    mp = mpmath().mp
    conditions = flow._context(context, len(rows))
    found = []
    for n, row in enumerate(exact(rows).tolist()):

        def compute(n: int = n, row: list[Any] = row) -> list[Value]:
            c = None if conditions is None else oracle_layers.standard_context(flow.layers[0], conditions[n])
            values = run(row, c)
            logdet = mp.fsum(value.logdet for value in values)
            base = values[-1].y if sign > 0 else row
            return [*values, Value([], logdet), Value([], _normal_log_prob(base) + sign * logdet)]

        found.append(settled(compute, _flat, digits))
    # base-to-data runs go through the layers from the last to the first
    order = range(len(flow.layers))[::sign]
    layers = [OracleLayer(*(_stack(found, k, name) for name in Value._fields)) for k in order]
    image = _array([values[len(flow.layers) - 1].y for values in found], (len(rows), flow.dim))
    logdet, log_prob = (_array([values[k].logdet for values in found], (len(rows),)) for k in (-2, -1))
    return OracleResult(image, logdet, log_prob, layers)


def _normal_log_prob(z: list[Any]) -> Any:
    """``sum_i log N(z_i; 0, 1)``."""
    mp = mpmath().mp
    return -mp.fsum(value * value for value in z) / 2 - len(z) * mp.log(2 * mp.pi) / 2


def _array(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(shape, dtype=object)
    out[...] = values
    # exact integers become what all else is
    return np.vectorize(mpmath().mp.mpf, otypes=[object])(out) if any(type(v) is int for v in out.flat) else out


def _stack(found: list[list[Value]], k: int, name: str) -> Any:
    values = [getattr(row[k], name) for row in found]
    if not values or values[0] is None:
        return None
    return _array(values, np.shape(np.array(values, dtype=object)))


# transformers on their own


def dsf(x: Any, theta: Any, digits: int = DIGITS, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Deep sigmoidal flow: as :func:`refnaf.reference.dsf.dsf`, in arrays of mpf."""
    return transform("dsf", x, theta, (), options, digits)


def ddsf(x: Any, theta: Any, *matrices: Any, clip: float = 0.0, digits: int = DIGITS) -> tuple[np.ndarray, np.ndarray]:
    """Deep dense sigmoidal flow: as :func:`refnaf.reference.ddsf.ddsf`, in arrays of mpf."""
    return transform("ddsf", x, theta, matrices, {"clip": clip}, digits)


def affine(
    x: Any, theta: Any, form: str = "exp", digits: int = DIGITS, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """An affine transformer of a form: as :func:`refnaf.reference.affine.affine`, in arrays of mpf."""
    return transform("affine", x, theta, (), {"form": form, **options}, digits)


def transform(
    name: str, x: Any, theta: Any, matrices: Any = (), options: dict[str, Any] | None = None, digits: int = DIGITS
) -> tuple[np.ndarray, np.ndarray]:
    """A transformer by name: x ``(...)``, raw theta ``(P, ...)``, shared matrices to y and log dy/dx ``(...)``.

    Raises ValueError for an unknown name or theta of another shape.
    """
    if name not in oracle_transformers.TRANSFORMERS:
        known = ", ".join(oracle_transformers.TRANSFORMERS)
        raise ValueError(f"the oracle knows the transformers {known}, not {name!r}")
    mpmath()
    shape = np.shape(x)
    x, theta = np.asarray(x, np.float64), np.asarray(theta, np.float64)
    if theta.shape[1:] != shape:
        raise ValueError(f"theta must have shape (P, *{shape}) for an x of shape {shape}, got {theta.shape}")
    equation = functools.partial(oracle_transformers.TRANSFORMERS[name], **(options or {}))
    points, rows = x.reshape(-1), theta.reshape(len(theta), -1).T
    pairs = _by_mpfr(equation, points, rows, matrices, digits)
    shared = [Shared(exact(matrix)) for matrix in matrices]
    for n, pair in enumerate(pairs):
        if pair is None:
            point, row = exact(points[n]).item(), exact(rows[n]).tolist()
            pairs[n] = settled(lambda p=point, t=row: equation(p, t, shared), tuple, digits)  # type: ignore[misc]
    y, log_slope = np.empty(len(pairs), dtype=object), np.empty(len(pairs), dtype=object)
    y[:], log_slope[:] = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return y.reshape(shape), log_slope.reshape(shape)


def _by_mpfr(
    equation: Callable[..., tuple[Any, Any]], points: np.ndarray, rows: np.ndarray, matrices: Any, digits: int
) -> list[Any]:
    """What :func:`transform` finds at each point, in mpf; None where MPFR's range is too small, or without gmpy2."""
    out: list[Any] = [None] * len(points)
    mp = mpfr()
    if mp is None:
        return out
    with computing_with(mp), mp.active():
        shared = [Shared(mp.exact(matrix)) for matrix in matrices]
        for n, (point, row) in enumerate(zip(mp.exact(points).tolist(), mp.exact(rows).tolist(), strict=True)):
            with contextlib.suppress(ArithmeticError):
                pair = settled(lambda p=point, t=row: equation(p, t, shared), tuple, digits)  # type: ignore[misc]
                out[n] = [mp.to_mpf(number) for number in pair]
    return out
