"""What was measured on the card, as Markdown."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence

from card import REPEATS
from device_kernels import KernelRow
from device_steps import NAME, StepRow
from rates import Rates

#: What a kernel is to reach of its floor, and by how much a step is to be quicker than the best of torch.
FRACTION, RATIO = 0.70, 2.0

METHOD = f"""Kernels: the median of {REPEATS} calls, each between two events of its own. The card is held busy until all
have been asked for, so that what a launch costs the host is not in the times; the second-level cache is overwritten
before each call. The floor is the larger of two times at the rates of the first table: to move the values that must be
read and written, and to compute the exponentials and multiply-adds (`counts.py` has the formulas). "Of the floor" is
the floor over the time. What lies between the events of an empty kernel is in every time, so that no small call can
reach the target. An inverse is that of all dimensions' columns in one call, with as many evaluations as the same method
takes on the host; sampling calls it dimension by dimension.

Steps and scoring: candidates in turn, medians of rounds of bursts by the host's clock, from before the first launch
until the card is done. "Ratio" is the quickest of torch over refnaf. torch runs the same lean algebra on the same
numbers and rows, in float32 without TF32, with its fused Adam, and without the clipping and averaging of refnaf's step.
Scoring begins and ends in the host's memory. Before anything was timed, values, gradients and inverses were compared
with refnaf's reference, and torch's with refnaf's."""


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns but the first are aligned right."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _limits(rates: Rates) -> str:
    rows = [["copy, GB/s read and written", f"{rates.copy / 1e9:.0f}"]]
    rows.append(["float32 products without TF32, TFLOP/s", f"{rates.products / 1e12:.1f}"])
    for dtype, rate in rates.exps.items():
        rows.append([f"exponentials in {dtype}, 1e9/s", f"{rate / 1e9:.0f}"])
        rows.append(["the same by refnaf's own, 1e9/s", f"{rates.own_exps[dtype] / 1e9:.0f}"])
        rows.append([f"multiply-adds in {dtype}, 1e9/s", f"{rates.fmas[dtype] / 1e9:.0f}"])
    rows.append(["an empty kernel between two events, us", f"{rates.empty * 1e6:.1f}"])
    rows.append(["its launch, for the host, us", f"{rates.launch * 1e6:.1f}"])
    return _markdown(["limit", "measured"], rows)


def _targets(kernels: Sequence[KernelRow], steps: Sequence[StepRow]) -> str:
    rows = []
    for (name, what), group in itertools.groupby(sorted(kernels, key=_kind), key=_kind):
        fractions = [row.fraction for row in group]
        low, high = min(fractions), max(fractions)
        rows.append([f"{name} {what}", f"{FRACTION:.0%}", f"{low:.0%} to {high:.0%}", _said(low, high, FRACTION)])
    ratios = [row.ratio for row in steps if row.ratio is not None]
    if ratios:
        low, high = min(ratios), max(ratios)
        said = [f"{RATIO:g}x", f"{low:.2f}x to {high:.2f}x", _said(low, high, RATIO)]
        rows.append(["steps and scoring against the best of torch", *said])
    return _markdown(["work", "target", "measured", ""], rows)


def _said(low: float, high: float, target: float) -> str:
    return "met" if low >= target else "met by some" if high >= target else "missed"


def _kind(row: KernelRow) -> tuple[str, str]:
    return row.name, row.what


def _order(row: KernelRow) -> tuple[object, ...]:
    return row.name, row.what, row.dtype, row.rows


def _kernels(rows: Sequence[KernelRow]) -> str:
    out = [
        [
            f"{row.name} {row.what}",
            row.dtype,
            f"{row.dim}",
            f"{row.rows}",
            f"{row.seconds * 1e6:.1f}",
            f"{row.floor * 1e6:.1f}",
            row.bound,
            f"{row.fraction:.0%}",
        ]
        for row in sorted(rows, key=_order)
    ]
    return _markdown(["kernel", "dtype", "D or H", "N", "us", "floor, us", "by", "of the floor"], out)


def _steps(rows: Sequence[StepRow]) -> str:
    names = list(dict.fromkeys([NAME, *(name for row in rows for name in row.seconds)]))
    out = []
    for row in rows:
        times = [f"{row.seconds[name] * 1e3:.2f}" if name in row.seconds else "" for name in names]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        out.append([f"{row.work}, {row.model}", f"{row.rows}", *times, ratio, f"{row.products * 1e3:.2f}"])
    header = ["work", "N", *(f"{name}, ms" for name in names), "ratio", "products alone, ms"]
    return _markdown(header, out)


def write(
    about: Mapping[str, str],
    command: str,
    rates: Rates,
    kernels: Sequence[KernelRow],
    steps: Sequence[StepRow],
    notes: Sequence[str],
) -> str:
    """The whole report; ``notes`` are what was left out, or went wrong, and why."""
    head = "\n".join(f"- {name}: {value}" for name, value in about.items())
    parts = [f"# Speed on a GPU\n\n{head}\n\n    {command}\n\n{METHOD}", f"## The card\n\n{_limits(rates)}"]
    if kernels or steps:
        parts.append(f"## Targets\n\nOver all batches and both dtypes.\n\n{_targets(kernels, steps)}")
    if kernels:
        middle = statistics.median(row.fraction for row in kernels)
        parts.append(f"## Kernels\n\nHalf of the rows reach {middle:.0%} of their floor.\n\n{_kernels(kernels)}")
    if steps:
        parts.append(f"## Training steps and scoring\n\n{_steps(steps)}")
    if notes:
        listed = "\n".join(f"- {note}" for note in notes)
        parts.append(f"## Left out\n\n{listed}")
    return "\n\n".join(parts) + "\n"
