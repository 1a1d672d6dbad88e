"""The conformance kit: is a normalising flow, given as functions on NumPy arrays, right?

    report = check_flow(forward, inverse, log_prob, sample, dim=3)
    print(report)

A flow in PyTorch (after ``flow.double().eval()``) or in JAX (with ``jax_enable_x64``) is wrapped in a line a function:

    forward = lambda x: [t.detach().numpy() for t in flow(torch.tensor(x))]
    forward = lambda x: [np.asarray(a) for a in jax.vmap(row_to_noise_and_logdet)(x)]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from refnaf.verify import (
    checks_calls,
    checks_density,
    checks_image,
    checks_inverse,
    checks_jacobian,
    checks_samples,
)
from refnaf.verify.conformance_report import FAILED, INCONCLUSIVE, SKIPPED, Report, Result
from refnaf.verify.conformance_returns import Broken, Inconclusive, Skip
from refnaf.verify.conformance_subject import Subject, functions_of

__all__ = ["CHECKS", "assert_conforms", "check_flow"]


@dataclasses.dataclass(frozen=True)
class _Check:
    run: Callable[[Subject], Result]
    needs: tuple[str, ...] = ()
    #: Whether the numbers of later checks mean nothing once this one has failed.
    gate: bool = False


#: Every check by name, in the order in which they run.
CHECKS: dict[str, _Check] = {
    "shapes": _Check(checks_calls.shapes, gate=True),
    "dtypes": _Check(checks_calls.dtypes),
    "deterministic": _Check(checks_calls.deterministic, gate=True),
    "input kept": _Check(checks_calls.input_kept),
    "empty batch": _Check(checks_calls.empty_batch),
    "batch of one": _Check(checks_calls.batch_of_one),
    "context": _Check(checks_calls.context),
    "batch independence": _Check(checks_calls.batch_independence, gate=True),
    "memory layout": _Check(checks_calls.memory_layout),
    "precision": _Check(checks_jacobian.precision, ("forward",)),
    "float32": _Check(checks_jacobian.float32),
    "triangular": _Check(checks_jacobian.triangular, ("forward",)),
    "positive diagonal": _Check(checks_jacobian.diagonal, ("forward",)),
    "monotone": _Check(checks_jacobian.monotone, ("forward",)),
    "log-determinant": _Check(checks_jacobian.log_det, ("forward",)),
    "log_prob": _Check(checks_density.log_prob, ("forward", "log_prob")),
    "image": _Check(checks_image.image, ("forward",)),
    "round trip": _Check(checks_inverse.round_trip, ("forward", "inverse")),
    "round trip of noise": _Check(checks_inverse.round_trip_of_noise, ("forward", "inverse")),
    "inverse log-determinant": _Check(checks_inverse.inverse_log_det, ("forward", "inverse")),
    "tails": _Check(checks_inverse.tails, ("forward",)),
    "normalisation": _Check(checks_density.normalisation),
    "samples": _Check(checks_samples.samples, ("sample",)),
    "sample log_prob": _Check(checks_samples.sample_log_prob, ("sample",)),
}


def check_flow(
    forward: Any = None,
    inverse: Callable[..., Any] | None = None,
    log_prob: Callable[..., Any] | None = None,
    sample: Callable[..., Any] | None = None,
    *,
    dim: int | None = None,
    context: ArrayLike | None = None,
    context_dim: int = 0,
    seed: int = 0,
    dtype: DTypeLike = "float64",
    checks: Sequence[str] | None = None,
    rows: int = 2000,
    center: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    autoregressive: bool | Sequence[int] = False,
    tolerance: float | None = None,
) -> Report:
    """Whether a normalising flow from data x to standard normal noise z is right, by some two dozen checks.

    The flow is given as functions on arrays of rows; those that are missing (None) have their checks skipped:

    - ``forward(x)``, x ``(N, D)``: ``(z (N, D), log|det dz/dx| (N,))`` in nats. It may be None where log_prob or sample
      is given. An object or a mapping with functions of these four names (a refnaf Flow) may stand for all of them.
    - ``inverse(z)``: x ``(N, D)``, or ``(x, log|det dx/dz|)``.
    - ``log_prob(x)``: ``(N,)`` nats. The base is the standard normal; a flow with a normal base of standard deviation s
      is one with ``z / s`` and ``logdet - D log s``.
    - ``sample(n, ...)``: ``(n, D)``. A parameter called ``rng``, ``generator`` or ``random_state`` is given a NumPy
      Generator; one called ``seed`` or ``key``, or else a second parameter without default, a whole number; where there
      is none, sample draws by itself.

    With ``context_dim`` C each takes a context as its second argument, ``forward(x, c)``, c ``(N, C)``, and sample
    takes ``context=``; ``context`` ``(M, C)`` gives rows to draw contexts from (standard normals otherwise).

    ``dtype`` is that of the arrays which the functions get, and says how exact they should be: float64, or float32.
    ``rows`` is the number of samples for the statistical checks, all of which together raise a false alarm in one run
    of ten thousand. ``center`` and ``scale`` (numbers or ``(D,)``) say where the data of the flow are; they are found
    by inverse or sample where not given, or else taken as 0 and 1. ``autoregressive=True`` makes it a failure if the
    Jacobian is triangular in no order, an order such as ``range(D)`` if it is not triangular in that one; without, the
    Jacobian of a general flow may be dense. ``tolerance`` is the relative error that inverse may leave (1e-6, or 1e-3
    in float32). ``checks`` are names of the checks to run, of :data:`CHECKS`; all by default.

    The same seed makes the same checks. Raises ValueError where the arguments do not make sense; whatever the flow's
    functions raise fails the check it happened in.
    """
    functions = _functions(forward, inverse, log_prob, sample)
    width, given = _width(dim, forward), _context(context, context_dim)
    selected = _selected(checks)
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, not {np.dtype(dtype)}")
    if rows < 200:
        raise ValueError(f"the statistical checks need at least 200 rows, got {rows}")
    if not isinstance(autoregressive, (bool, np.bool_)):
        autoregressive = [int(i) for i in autoregressive]
        if sorted(autoregressive) != list(range(width)):
            raise ValueError(f"autoregressive must be True, False or an order of 0..{width - 1}, got {autoregressive}")
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
    subject = Subject(
        functions,
        width,
        context_dim if given is None else given.shape[1],
        context=given,
        seed=seed,
        dtype=dtype,
        rows=rows,
        center=center,
        scale=scale,
        autoregressive=autoregressive,
        tolerance=tolerance,
    )
    results, blocked = [], ""
    for name in selected:
        result = Result(name, SKIPPED, detail=blocked) if blocked else _run(name, subject)
        results.append(result)
        if not result.ok and CHECKS[name].gate:
            blocked = f"says nothing while {name!r} fails"
    context_words = f", context of {subject.context_dim}" if subject.context_dim else ""
    title = f"flow of {width} dimensions{context_words}, {subject.dtype}: {', '.join(functions)}; seed {seed}"
    return Report(results, title)


def assert_conforms(*args: Any, **options: Any) -> Report:
    """:func:`check_flow` for a test suite: AssertionError with the printed report where the flow does not conform.

    Takes the same arguments, and returns the report where it does.
    """
    report = check_flow(*args, **options)
    if not report.ok:
        raise AssertionError(f"the flow does not conform\n\n{report}")
    return report


def _run(name: str, subject: Subject) -> Result:
    check = CHECKS[name]
    missing = [function for function in check.needs if not subject.has(function)]
    if missing:
        return Result(name, SKIPPED, detail=f"no {' and no '.join(missing)} was given")
    try:
        with np.errstate(all="ignore"):  # infinities and NaNs are looked for, and told
            result = check.run(subject)
    except Skip as reason:
        return Result(name, SKIPPED, detail=str(reason))
    except Inconclusive as reason:
        return Result(name, INCONCLUSIVE, detail=str(reason))
    except Broken as broken:
        return Result(name, FAILED, detail=broken.detail, where=broken.where, cause=broken.cause)
    return dataclasses.replace(result, name=name)


def _functions(forward: Any, inverse: Any, log_prob: Any, sample: Any) -> dict[str, Callable[..., Any]]:
    alone = inverse is None and log_prob is None and sample is None
    if alone and forward is not None:
        return functions_of(forward)
    given = {"forward": forward, "inverse": inverse, "log_prob": log_prob, "sample": sample}
    return functions_of({name: function for name, function in given.items() if function is not None})


def _width(dim: Any, flow: Any) -> int:
    found = getattr(flow, "dim", None) if dim is None else dim
    if not isinstance(found, (int, np.integer)) or isinstance(found, bool) or found < 1:
        raise ValueError(f"dim must be the flow's number of dimensions, got {found!r}: pass dim=")
    return int(found)


def _context(context: ArrayLike | None, context_dim: int) -> np.ndarray | None:
    if context_dim < 0:
        raise ValueError(f"context_dim must not be negative, got {context_dim}")
    if context is None:
        return None
    rows = np.asarray(context, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1] or context_dim not in (0, rows.shape[1]):
        expected = f"(M, {context_dim or 'C'}) with at least two rows"
        raise ValueError(f"the context must have shape {expected}, got {rows.shape}")
    return rows


def _selected(checks: Sequence[str] | None) -> list[str]:
    if checks is None:
        return list(CHECKS)
    names = [checks] if isinstance(checks, str) else list(checks)
    unknown = [name for name in names if name not in CHECKS]
    if unknown or not names:
        raise ValueError(f"checks must be some of {', '.join(CHECKS)}; got {unknown[0] if unknown else 'none'!r}")
    return [name for name in CHECKS if name in names]
