"""Checks of how the functions behave as functions: shapes, dtypes, purity, rows that do not disturb each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.verify.conformance_report import FAILED, NOTED, PASSED, Result
from refnaf.verify.conformance_returns import Broken, Raised, Skip, array_of, sample_signature, split
from refnaf.verify.conformance_subject import Subject

_ROWS = 12
#: The same row in other company may round differently, and an ill-conditioned flow may make much of that.
_ROUNDING = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3}


def _names(subject: Subject) -> list[str]:
    return [name for name in ("forward", "inverse", "log_prob") if subject.has(name)]


def outputs(subject: Subject, name: str, x: np.ndarray, c: np.ndarray | None) -> list[np.ndarray]:
    """All that one of forward, inverse and log_prob returns, in float64."""
    got = {"forward": subject.forward, "inverse": subject.inverse, "log_prob": subject.log_prob}[name](x, c)
    return [part for part in (got if isinstance(got, tuple) else (got,)) if part is not None]


def gap(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """The largest difference a row, relative to ``1 + |value|``; equal infinities and NaNs do not differ."""
    worst = np.zeros(len(a[0]))
    for one, other in zip(a, b, strict=True):
        off = np.abs(one - other) / (1 + np.abs(other))
        off = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0, np.nan_to_num(off, nan=np.inf))
        worst = np.maximum(worst, off.reshape(len(off), -1).max(axis=1, initial=0))
    return worst


def shapes(subject: Subject) -> Result:
    """(N, D) rows and (N,) nats, for two N."""
    for n in (7, 5):
        for name in _names(subject):
            outputs(subject, name, subject.points(n, 10), subject.contexts(n, 10))
    if subject.has("sample"):
        for n in (7, 5):
            subject.sample(n, 10)
    return Result("shapes", PASSED, detail="(N, D) rows, (N,) nats")


def dtypes(subject: Subject) -> Result:
    """Floating point out, of no narrower dtype than what went in."""
    x, c = subject.points(5, 11).astype(subject.dtype), subject.contexts(5, 11)
    c = None if c is None else c.astype(subject.dtype)
    seen = []
    for name in [*_names(subject), *(["sample"] if subject.has("sample") else [])]:
        got = subject.raw_sample(5, 11, c) if name == "sample" else subject.raw(name, x, c)
        for part in got if isinstance(got, (tuple, list)) else [got]:
            dtype = array_of(name, part).dtype
            seen.append(str(dtype))
            if dtype.kind != "f":
                raise Broken(f"{name} returned {dtype}", "numbers were rounded to whole ones")
            if dtype.itemsize < subject.dtype.itemsize:
                cause = f"float32 leak: a constant, a parameter or an array of {dtype} within, or a cast on the way out"
                raise Broken(f"{name} returned {dtype} for input of {subject.dtype}", cause)
    return Result("dtypes", PASSED, detail=", ".join(dict.fromkeys(seen)))


def deterministic(subject: Subject) -> Result:
    """The same rows give the same numbers, with other rows in between; samples depend on their seed alone."""
    name = "deterministic"
    limit = 0.01 * _ROUNDING[subject.dtype]
    x, c = subject.points(_ROWS, 12), subject.contexts(_ROWS, 12)
    other, other_c = subject.points(_ROWS, 13, 1.5), subject.contexts(_ROWS, 13)
    worst = 0.0
    for function in _names(subject):
        first = outputs(subject, function, x, c)
        between = outputs(subject, function, other, other_c)
        second = outputs(subject, function, x, c)
        for a, b in zip(first, between, strict=True):
            if np.ptp(a) > 0 and np.array_equal(a, b):
                seen = f"{function} returned the same numbers for two different batches"
                return Result(name, FAILED, detail=seen, cause="a stale cache: something computed for an earlier batch")
        off = gap(second, first)
        worst = max(worst, float(off.max()))
        if worst > limit:
            seen = f"two calls of {function} on the same rows differ by {worst:.3g} (1 + |value|)"
            cause = (
                "dropout or noise left on, batch statistics that are updated by a call, or a state kept between calls"
            )
            where = subject.where(x, c, int(off.argmax()))
            return Result(name, FAILED, worst, limit, "differs by", seen, where, cause)
    return _sampling_repeats(subject) or Result(name, PASSED, worst, limit, "differs by")


def _sampling_repeats(subject: Subject) -> Result | None:
    if not subject.has("sample"):
        return None
    name = "deterministic"
    source, _ = sample_signature(subject.functions["sample"])
    first, second = subject.sample(_ROWS, 14)[0], subject.sample(_ROWS, 14)[0]
    if source is not None and gap([first], [second]).max() > 100 * subject.eps:
        cause = "the seed or generator is not what the random numbers come from (a global one is)"
        return Result(name, FAILED, detail="sample with the same seed returned other rows", cause=cause)
    if np.array_equal(first, subject.sample(_ROWS, 15)[0]) or (source is None and np.array_equal(first, second)):
        cause = "the seed or generator is not used, or the generator is made anew in every call"
        return Result(name, FAILED, detail="sample returned the same rows for two seeds or calls", cause=cause)
    return None


def input_kept(subject: Subject) -> Result:
    """The arrays that are passed in are not written to."""
    for name in _names(subject):
        x, c = subject.points(_ROWS, 16).astype(subject.dtype), subject.contexts(_ROWS, 16)
        c = None if c is None else c.astype(subject.dtype)
        x_before, c_before = x.copy(), None if c is None else c.copy()
        subject.raw(name, x, c)
        for what, array, before in (("x", x, x_before), ("the context", c, c_before)):
            if array is not None and before is not None and not np.array_equal(array, before):
                cause = "an operation in place (x -= mean, out=x) on the caller's array"
                raise Broken(
                    f"{name} changed {what}, the array that it was given", cause, subject.where(x_before, c, 0)
                )
    return Result("input kept", PASSED)


def _compare(subject: Subject, name: str, pairs: Any, cause: str) -> Result:
    """Passes where the outputs of every pair (function, got, expected, x, c) agree to rounding.

    Of inverse it is enough if they agree to what its root finding may leave.
    """
    limit = _ROUNDING[subject.dtype]
    worst, seen = 0.0, ("", "")
    for function, got, expected, x, c in pairs:
        off = gap(got, expected)
        if function == "inverse":
            off = off * min(1, limit / (10 * subject.tolerance))
        if len(off) and off.max() > worst:
            worst = float(off.max())
            row = int(off.argmax())
            seen = f"{function} differs by {gap(got, expected)[row]:.3g} (1 + |value|)", subject.where(x, c, row)
    if worst <= limit:
        return Result(name, PASSED, worst, limit, "differs by")
    return Result(name, FAILED, worst, limit, "differs by", *seen, cause)


def batch_independence(subject: Subject) -> Result:
    """Rows permuted, and two rows alone, give what they give in the batch."""
    x, c = subject.points(_ROWS, 17, 1.5), subject.contexts(_ROWS, 17)
    order = subject.rng(17).permutation(_ROWS)

    def pairs() -> Any:
        for name in _names(subject):
            whole = outputs(subject, name, x, c)
            shuffled = outputs(subject, name, x[order], None if c is None else c[order])
            yield name, shuffled, [part[order] for part in whole], x[order], c
            for n in range(2):
                few = slice(n, n + 2)
                c_few = None if c is None else c[few]
                yield name, outputs(subject, name, x[few], c_few), [part[few] for part in whole], x[few], c_few

    cause = (
        "rows depend on the rest of the batch: batch statistics (batch normalisation in training mode), a sum, mean, "
    )
    cause += "softmax or maximum over axis 0, or a cache"
    for name in _names(subject):
        if any(part.ndim == 1 and np.ptp(part) == 0 for part in outputs(subject, name, x, c)):
            cause = f"{name} has one number for all rows, summed or averaged over the batch: sum over axis 1"
    return _compare(subject, "batch independence", pairs(), cause)


def empty_batch(subject: Subject) -> Result:
    """No rows in, no rows out. To refuse them is a limitation; to return something else is wrong."""
    c = None if not subject.context_dim else np.zeros((0, subject.context_dim))
    try:
        for name in _names(subject):
            outputs(subject, name, np.zeros((0, subject.dim)), c)
        if subject.has("sample"):
            subject.sample(0, 18)
    except Raised as error:
        return Result("empty batch", NOTED, detail=f"refused: {error.detail}")
    return Result("empty batch", PASSED)


def batch_of_one(subject: Subject) -> Result:
    """One row alone has the right shapes, and the numbers that it has in a batch."""
    x, c = subject.points(2, 18), subject.contexts(2, 18)
    one = None if c is None else c[:1]
    alone = {}
    for name in _names(subject):
        try:
            alone[name] = outputs(subject, name, x[:1], one)
        except Broken as error:
            cause = "an axis of length one was lost (squeeze): name the axis"
            raise Broken(error.detail, cause, "a batch of one row") from error
    if subject.has("sample"):
        subject.sample(1, 18)

    def pairs() -> Any:
        for name, got in alone.items():
            yield name, got, [part[:1] for part in outputs(subject, name, x, c)], x[:1], one

    cause = "a row alone is not what it is in a batch: statistics over the batch, or an axis that broadcasts"
    return _compare(subject, "batch of one", pairs(), cause)


def memory_layout(subject: Subject) -> Result:
    """Arrays in Fortran order and strided views give what contiguous ones give."""
    x, c = subject.points(_ROWS, 19), subject.contexts(_ROWS, 19)

    def layouts(array: np.ndarray) -> list[np.ndarray]:
        wide = np.zeros((2 * len(array), 3 * array.shape[1]), subject.dtype)
        wide[::2, ::3] = array
        return [np.asfortranarray(array.astype(subject.dtype)), wide[::2, ::3]]

    def pairs() -> Any:
        for name in _names(subject):
            whole = outputs(subject, name, x, c)
            for x_odd, c_odd in zip(layouts(x), [None, None] if c is None else layouts(c), strict=True):
                got = split(name, subject.raw(name, x_odd, c_odd), _ROWS, subject.dim)
                yield name, got, whole, x, c

    cause = "the array's buffer is read as if it were C-contiguous: np.ascontiguousarray it first"
    return _compare(subject, "memory layout", pairs(), cause)


def context(subject: Subject) -> Result:
    """Every row depends on its own context, and on no other's."""
    if not subject.context_dim:
        raise Skip("a flow without a context")
    x, c, other = subject.points(_ROWS, 20), subject.contexts(_ROWS, 20), subject.contexts(_ROWS, 21)
    if c is None or other is None:
        raise Skip("no contexts")
    limit = _ROUNDING[subject.dtype]
    for name in _names(subject):
        whole = outputs(subject, name, x, c)
        if gap(outputs(subject, name, x, other), whole).max() <= 4 * subject.eps:
            cause = "the context is ignored (or its weights are zero, as in a flow not yet trained)"
            raise Broken(f"{name} does not change with the context", cause)
        mixed = c.copy()
        mixed[0] = other[0]
        off = gap(outputs(subject, name, x, mixed), whole)
        if off[1:].max() > limit:
            row = 1 + int(off[1:].argmax())
            cause = "contexts reach other rows: an average over the batch, row 0 used for all, or rows out of step"
            seen = f"a change in the context of row 0 moved {name}'s row {row} by {off[row]:.3g} (1 + |value|)"
            return Result(
                "context", FAILED, float(off[row]), limit, "differs by", seen, subject.where(x, c, row), cause
            )
        if off[0] <= 4 * subject.eps and (subject.given_context is None or not np.array_equal(c[0], other[0])):
            raise Broken(
                f"{name}'s row 0 does not change with its own context", "rows of x and context are out of step"
            )
    return Result("context", PASSED)
