"""The results as Markdown."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import limits
import ours
import scaling
import targets
from limits import Limits
from timing import Row

import refnaf

VERSIONS = ("numpy", "scipy", "numba", "autograd", "torch", "jax", "zuko", "nflows")

METHOD = """Each row gives all candidates the same inputs, numbers, dtype and threads, in one process for each number of
threads (pinned to as many cores): bursts of calls in turn, in five rounds (three where a call is longer than 0.1 s); a
time is the median of the rounds' medians, without what a candidate compiles. Before anything is timed, values and
gradients of every candidate are compared with refnaf's reference in float64: a run in which they disagree stops.
"Ratio" is the quickest of the peers over refnaf. "Of the limit" is the time in which this machine could do the least
work that the algebra needs (elementary functions and matrix products at the rates of the first table, or moving the
arrays once, if they exceed 16 MiB: `limits.py` counts) over refnaf's time; "at the limit" is the ratio that refnaf
would have there, with 1 thread: what no code of this algebra can pass. Peers run the same lean algebra, each in the
form that was quickest there, feature-major like refnaf; their training steps have neither clipping of the gradient nor
averaging of the parameters, which refnaf's have."""


def machine() -> str:
    """Processor and cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def versions() -> str:
    """Of everything that was measured."""
    found = [f"refnaf {refnaf.__version__}", f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    if shutil.which("g++"):
        found.append(
            f"g++ {subprocess.run(['g++', '-dumpfullversion'], capture_output=True, text=True).stdout.strip()}"
        )
    return ", ".join(found)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns but the first are aligned right."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _spread(rows: Sequence[Row]) -> str:
    spreads = sorted(row.spread for row in rows)
    return (
        f"In nine rows of ten the middle half of the rounds spans at most {spreads[int(0.9 * (len(spreads) - 1))]:.0%}."
    )


def _times(rows: Sequence[Row], scale: float, form: str) -> str:
    """A table of rows of one kind of work: times of all candidates, the ratio, and the part of the limit."""
    names = list(dict.fromkeys(name for row in rows for name in row.seconds))
    out = []
    for row in rows:
        cells = [form.format(row.seconds[name] * scale / row.count) if name in row.seconds else "" for name in names]
        part = f"{row.limit / row.seconds[ours.NAME]:.0%}" if row.limit else ""
        size = [f"{row.dim}", f"{row.rows}", row.dtype, f"{row.threads}"]
        hidden = [] if row.hidden is None else [f"{row.hidden}"]
        out.append([*hidden, *size, *cells, f"{targets.ratio(row):.2f}x", part])
    header = [*([] if rows[0].hidden is None else ["H"]), "D", "N", "dtype", "threads", *names, "ratio", "of the limit"]
    return markdown(header, out)


def _kernels(rows: Sequence[Row]) -> str:
    texts = []
    for work, group in itertools.groupby(sorted(rows, key=_order), key=lambda row: row.work):
        unit = "unit" if work.startswith(("DSF", "mog")) else "sample and dimension"
        texts.append(f"### {work}\n\nNanoseconds a {unit}.\n\n{_times(list(group), 1e9, '{:.2f}')}")
    return "\n\n".join([_spread(rows), *texts])


def _order(row: Row) -> tuple[object, ...]:
    return row.work, row.dtype, row.threads, row.hidden or 0, row.dim, row.rows


def _steps(rows: Sequence[Row]) -> str:
    texts = []
    for work, group in itertools.groupby(sorted(rows, key=_order), key=lambda row: row.work):
        chosen = list(group)
        if chosen[0].section == "steps":
            # the whole batch, not a row of it
            table = _times([dataclasses.replace(row, count=1) for row in chosen], 1e3, "{:.1f}")
            texts.append(f"### {work}\n\nMilliseconds.\n\n{table}")
        else:
            texts.append(f"### {work}\n\nMicroseconds a row.\n\n{_times(chosen, 1e6, '{:.1f}')}")
    return "\n\n".join(texts)


def _sampling(rows: Sequence[Row]) -> str:
    out = []
    for row in rows:
        own = row.seconds[ours.NAME]
        ((peer, theirs),) = ((k, s) for k, s in row.seconds.items() if k in ("zuko", "nflows"))
        naive = row.seconds["naive D passes"]
        times = [f"{seconds * 1e3:.1f}" for seconds in (own, theirs, naive)]
        out.append([peer, f"{row.hidden}", f"{row.threads}", *times, f"{theirs / own:.1f}x", f"{naive / own:.1f}x"])
    header = ["library", "H", "threads", "refnaf ms", "library ms", "naive ms", "library / refnaf", "naive / refnaf"]
    return markdown(header, out)


def _autograd(rows: Sequence[Row]) -> str:
    out = [
        [f"H = {row.hidden}, N = {row.rows}", f"{row.threads}"]
        + [f"{row.seconds[name] * 1e3:.1f}" for name in ("chain", "by autograd")]
        + [f"{targets.overhead(row):.1%}"]
        for row in rows
    ]
    return markdown(["gradient of log_prob, 5 DSF flows", "threads", "chain ms", "by autograd ms", "added"], out)


def _startup(rows: Sequence[Row]) -> str:
    out = [[row.work, row.dtype, name, f"{s:.2f}"] for row in rows for name, s in row.seconds.items()]
    return markdown(["", "dtype", "process", "seconds"], out)


def _memory(memory: Sequence[tuple[str, float, float]]) -> str:
    rows = [[name, f"{before:.0f}", f"{after:.0f}"] for name, before, after in memory]
    return markdown(["training, 5 DSF flows, H = 512, N = 512", "after imports, MiB", "at the peak, MiB"], rows)


def _scaling(rows: Sequence[Row]) -> str:
    found = scaling.curves(rows)
    powers = []
    for model in scaling.MODELS:
        found_powers = [scaling.exponent(found.get((model, size), [])) for size in scaling.SWEEPS]
        powers.append([model, *("" if power is None else f"{power:.2f}" for power in found_powers)])
    base = ", ".join(f"{size} = {value}" for size, value in scaling.BASE.items())
    text = (
        f"A training step of {scaling.FLOWS} flows, one thread, each size in turn changed from {base}. At the upper end"
    )
    return f"{text} the cost grows with this power of the size:\n\n{markdown(['', *scaling.SWEEPS], powers)}"


SECTIONS: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "kernels": ("Transformers", _kernels),
    "steps": ("Training steps", _steps),
    "scoring": ("Scoring", _steps),
    "sampling": ("Sampling of 1,024 rows", _sampling),
    "autograd": ("Autograd on top of the chain", _autograd),
    "startup": ("Fresh processes", _startup),
    "scaling": ("How the cost grows", _scaling),
}


def write(
    rows: Sequence[Row],
    found_limits: Sequence[Limits],
    memory: Sequence[tuple[str, float, float]],
    cut: Sequence[str],
    command: str,
    backend: str,
) -> str:
    """The whole report."""
    head = f'{datetime.date.today().isoformat()}; {versions()}; {machine()}; backend "{backend}".'
    asked = ["work", "asked", "stretch", "1 thread", "2 threads", "at the limit", ""]
    rates = ["threads", "dtype", "products, GFLOP/s", "exp, ns: numpy / torch", "log, ns", "log1p, ns", "copy, GB/s"]
    machine_rows = markdown(rates, limits.table(found_limits))
    parts = [
        f"# Speed\n\n{head}\n\n    {command}\n\n{METHOD}",
        f"## The machine\n\nNanoseconds an element, all threads at work.\n\n{machine_rows}",
        f"## Targets\n\nfloat32, D = 43, d = 16; every batch.\n\n{markdown(asked, targets.table(rows, memory))}",
    ]
    for section, (title, text) in SECTIONS.items():
        chosen = [row for row in rows if row.section == section]
        if chosen:
            parts.append(f"## {title}\n\n{text(chosen)}")
    if memory:
        parts.append(f"## Memory\n\nThe largest resident set of a process of two threads.\n\n{_memory(memory)}")
    if cut:
        parts.append("Left out, since time ran out: " + "; ".join(cut) + ".")
    return "\n\n".join(parts) + "\n"
