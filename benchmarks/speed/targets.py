"""What the project set out to reach, beside what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import authors_torch
import lean_jax
import lean_torch
import ours
from timing import Row

#: Peers are called by these names, with or without an optimiser behind them.
PEERS = (lean_torch.EAGER, lean_torch.COMPILED, lean_jax.NAME)


def ratio(row: Row, peers: Sequence[str] = PEERS) -> float:
    """How many times refnaf's seconds the quickest of the peers takes."""
    return min(s for name, s in row.seconds.items() if name.startswith(tuple(peers))) / row.seconds[ours.NAME]


def overhead(row: Row) -> float:
    """What autograd adds to the chain, over the chain's time."""
    return row.seconds["by autograd"] / row.seconds["chain"] - 1


@dataclasses.dataclass(frozen=True)
class Target:
    """Which rows a target is for, the number of each that counts, and what it should be: no less, or no more."""

    text: str
    least: float
    stretch: float | None
    section: str
    work: str
    value: Callable[[Row], float] = ratio
    hidden: int | None = None
    below: bool = False
    form: str = "{:.1f}x"

    def values(self, rows: Sequence[Row], threads: int) -> list[float]:
        """The number of each row of float32 with so many threads."""
        return [self.value(row) for row in rows if self._wanted(row) and row.threads == threads]

    def at_the_limit(self, rows: Sequence[Row], threads: int) -> list[float]:
        """What :meth:`values` would be if refnaf took no longer than the limit; of ratios to peers."""
        if self.value is not ratio:
            return []
        chosen = [row for row in rows if self._wanted(row) and row.threads == threads and row.limit]
        return [ratio(row) * row.seconds[ours.NAME] / row.limit for row in chosen if row.limit]

    def _wanted(self, row: Row) -> bool:
        named = row.section == self.section and row.work.startswith(self.work) and row.dtype == "float32"
        if self.section == "kernels":
            named = named and row.dim == 43 and row.work == self.work
        if self.value is _authors:
            named = named and authors_torch.NAME in row.seconds
        return named and (self.hidden is None or row.hidden == self.hidden)

    def met(self, values: Sequence[float], wanted: float | None) -> bool:
        """Whether all are as they should be."""
        return wanted is not None and all(v <= wanted if self.below else v >= wanted for v in values)


def _authors(row: Row) -> float:
    return ratio(row, (authors_torch.NAME,))


def _naive(row: Row) -> float:
    return ratio(row, ("naive",))


def _library(row: Row) -> float:
    return ratio(row, ("zuko", "nflows"))


def _default_start(row: Row) -> float:
    return max(seconds for name, seconds in row.seconds.items() if name.endswith("backend"))


def _numpy_start(row: Row) -> float:
    return row.seconds["numpy backend"]


def _compiling(row: Row) -> float:
    return row.seconds["cold cache"] - row.seconds["warm cache"]


def _pair(text: str, section: str, work: str, least: float, stretch: float | None, hidden: int | None = None) -> Target:
    return Target(text, least, stretch, section, work, hidden=hidden)


_STEP, _SCORE = "training step, 5 DSF flows", "scoring, 5 DSF flows"
_SECONDS = "{:.2f} s"
TARGETS = (
    _pair("DSF forward", "kernels", "DSF forward", 3, 4),
    _pair("DSF forward + backward", "kernels", "DSF forward + backward", 4, 5),
    _pair("DDSF forward", "kernels", "DDSF forward", 2, 3),
    _pair("DDSF forward + backward", "kernels", "DDSF forward + backward", 2.4, 3),
    Target("DDSF forward, authors' algebra", 20, None, "kernels", "DDSF forward", _authors),
    Target("DDSF forward + backward, authors' algebra", 20, None, "kernels", "DDSF forward + backward", _authors),
    _pair("training step, H = 512", "steps", _STEP, 2.2, 2.5, 512),
    _pair("training step, H = 100", "steps", _STEP, 2.2, 3, 100),
    _pair("scoring, H = 512", "scoring", _SCORE, 2, 2.2, 512),
    _pair("scoring, H = 100", "scoring", _SCORE, 2.4, 3, 100),
    Target("sampling, naive D passes", 40, None, "sampling", "sampling", _naive),
    Target("sampling, nflows and zuko", 15, None, "sampling", "sampling", _library),
    Target("autograd on top of the chain", 0.05, None, "autograd", "gradient", overhead, None, True, "{:.0%}"),
    Target("start to first score, warm cache", 0.75, 0.6, "startup", "process", _default_start, None, True, _SECONDS),
    Target("the same, numpy backend", 0.3, 0.25, "startup", "process", _numpy_start, None, True, _SECONDS),
    Target("compiling for a first score", 4, None, "startup", "refnaf score", _compiling, None, True, _SECONDS),
    Target("compiling for a first fit", 8, None, "startup", "refnaf fit", _compiling, None, True, _SECONDS),
)
#: Largest resident set of training over that of torch eager: at most, and the stretch.
MEMORY = (0.6, 0.5)


def span(form: str, values: Sequence[float]) -> str:
    """The least and the largest of some numbers, or the one."""
    texts = [form.format(v) for v in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _verdict(target: Target, values: Sequence[float]) -> str:
    if target.met(values, target.stretch):
        return "stretch met"
    return "met" if target.met(values, target.least) else "missed"


def table(rows: Sequence[Row], memory: Sequence[tuple[str, float, float]]) -> list[list[str]]:
    """Target, what it asks, what was measured with 1 and 2 threads (every row of it), what refnaf at the limit would
    have with 1 thread, and whether that is enough."""
    out = []
    for target in TARGETS:
        sign = "at most" if target.below else "at least"
        asked = f"{sign} {target.form.format(target.least)}"
        stretch = "" if target.stretch is None else target.form.format(target.stretch)
        found = {threads: target.values(rows, threads) for threads in (1, 2)}
        every = [v for values in found.values() for v in values]
        cells = [
            span(target.form, values) if values else "" for values in (*found.values(), target.at_the_limit(rows, 1))
        ]
        out.append([target.text, asked, stretch, *cells, _verdict(target, every) if every else "not measured"])
    if memory:
        peaks = {name: after for name, _, after in memory}
        share = peaks[ours.NAME] / peaks[lean_torch.EAGER]
        verdict = "stretch met" if share <= MEMORY[1] else "met" if share <= MEMORY[0] else "missed"
        asked, stretch = (f"{limit:.2f}x" for limit in MEMORY)
        out.append(["peak memory of training", f"at most {asked}", stretch, "", f"{share:.2f}x", "", verdict])
    return out
