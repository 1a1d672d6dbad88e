"""What a flow's functions are called with and return, and what is wrong where they return something else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


class Broken(Exception):
    """A check has failed before it could measure anything: what was seen, where, and the likely cause."""

    def __init__(self, detail: str, cause: str = "", where: str = "") -> None:
        super().__init__(detail)
        self.detail, self.cause, self.where = detail, cause, where


class Raised(Broken):
    """A function of the flow raised an exception."""

    def __init__(self, detail: str, where: str) -> None:
        super().__init__(detail, "the flow's own code refuses this input, or fails on it", where)


class Skip(Exception):
    """A check cannot be done; the message says why."""


class Inconclusive(Exception):
    """A check was done and cannot tell; the message says why."""


def sample_signature(function: Callable[..., Any]) -> tuple[str | None, str]:
    """How sample takes its randomness: a parameter's name (with ``=`` in front: by keyword) or None, and seed or rng.

    ``rng``, ``generator`` and ``random_state`` get a numpy Generator; ``seed``, ``key``, or any other second parameter
    without a default a whole number; a function of n alone draws by itself.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return None, "seed"
    for parameter in parameters:
        for names, kind in ((("rng", "generator", "random_state"), "rng"), (("seed", "key"), "seed")):
            if parameter.name in names:
                generator = kind == "rng" or "Generator" in str(parameter.annotation)
                return f"={parameter.name}", "rng" if generator else "seed"
    first = parameters[0] if parameters else None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if first and first.kind in positional and first.default is inspect.Parameter.empty and first.name != "context":
        return first.name, "seed"
    return None, "seed"


def array_of(name: str, value: Any) -> np.ndarray:
    """A function's output as an array of real numbers."""
    try:
        array = np.asarray(value)
    except Exception as error:
        kind = type(value).__name__
        raise Broken(f"{name} returned a {kind} that numpy cannot read: {error}", "return NumPy arrays") from error
    if array.dtype.kind not in "fiub":
        raise Broken(f"{name} returned dtype {array.dtype}, expected real numbers", "return NumPy arrays of floats")
    return array


def split(name: str, got: Any, n: int, dim: int) -> list[np.ndarray]:
    """The arrays that a function must return for n rows, in float64, or :class:`Broken`."""
    if name == "forward" and not (isinstance(got, (tuple, list)) and len(got) == 2):
        kind = type(got).__name__
        raise Broken(f"forward returned a {kind}, expected a pair (z, log-determinant)", "return z and logdet")
    if name == "inverse" and isinstance(got, (tuple, list)) and len(got) != 2:
        raise Broken(f"inverse returned {len(got)} things, expected x or a pair (x, log-determinant)")
    values = list(got) if isinstance(got, (tuple, list)) and name != "log_prob" else [got]
    if name == "log_prob":
        kinds: list[tuple[str, tuple[int, ...]]] = [("log_prob's nats", (n,))]
    else:
        kinds = [("z" if name == "forward" else "x", (n, dim)), (f"{name}'s log-determinant", (n,))][: len(values)]
    out = []
    for value, (what, shape) in zip(values, kinds, strict=True):
        array = array_of(name, value)
        if array.shape != shape:
            raise Broken(f"{what} has shape {array.shape}, expected {shape}", _shape_cause(array.shape, shape, dim))
        out.append(array.astype(np.float64))
    return out


def _shape_cause(got: tuple[int, ...], expected: tuple[int, ...], dim: int) -> str:
    n = expected[0]
    if len(expected) == 1:
        if got == ():
            return "one number for the whole batch: it was summed (or averaged) over rows too; sum over axis 1 only"
        if got == (n, 1):
            return "a trailing axis was kept (keepdims=True): drop it"
        if got == (n, dim):
            return "one number per dimension: sum over axis 1"
        if got == (dim,):
            return "one number per dimension: it was summed over the rows rather than over the dimensions (axis 1)"
        if len(got) == 1:
            return "the batch of another call: a stale cache, or a fixed batch size"
    elif got == expected[::-1]:
        return "transposed: features come first; return (N, D)"
    elif len(got) == 1:
        return "an axis was lost (squeeze)"
    return ""


def wrong_sample(x: np.ndarray, n: int) -> str:
    """What is wrong with the shape of n samples, in words."""
    if x.ndim == 2 and x.shape[1] == n:
        return "transposed: rows are samples"
    return "the number of rows is not n" if len(x) != n else "columns are not the flow's dimensions"
