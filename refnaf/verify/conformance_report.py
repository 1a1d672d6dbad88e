"""What the conformance kit found: one result a check, and the report that prints them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

PASSED, NOTED, FAILED, SKIPPED, INCONCLUSIVE = "passed", "noted", "failed", "skipped", "inconclusive"
STATUSES = (FAILED, NOTED, INCONCLUSIVE, SKIPPED)
WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one check.

    ``status`` is passed, noted (a limitation, and nothing wrong), failed, skipped or inconclusive; ``value`` says how
    badly and ``limit`` what is allowed, both of what ``measure`` names; ``detail`` says what was seen, ``where`` on
    which input, and ``cause`` what that looks like (failed checks only). Of skipped and inconclusive checks ``detail``
    is the reason.
    """

    name: str
    status: str
    value: float | None = None
    limit: float | None = None
    measure: str = ""
    detail: str = ""
    where: str = ""
    cause: str = ""

    @property
    def ok(self) -> bool:
        """Whether the check did not fail."""
        return self.status != FAILED


class Report:
    """The results of all checks, in the order in which they ran.

    ``report.ok`` is False where a check failed; ``report["round trip"]`` is one :class:`Result`; iterating gives all of
    them; ``str(report)`` is a table, and what failed in detail.
    """

    def __init__(self, results: list[Result], subject: str) -> None:
        self.results = tuple(results)
        self.subject = subject

    @property
    def ok(self) -> bool:
        """Whether no check failed. Noted, skipped and inconclusive checks do not count against the flow."""
        return all(result.ok for result in self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """The failed checks; the first is the one to look at first."""
        return tuple(result for result in self.results if not result.ok)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"no check {name!r} was run; there are {', '.join(r.name for r in self.results)}")

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        checks = [dataclasses.asdict(result) for result in self.results]
        return {"ok": self.ok, "subject": self.subject, "checks": checks}

    def __str__(self) -> str:
        width = max((len(result.name) for result in self.results), default=0)
        lines = [self.subject, ""]
        for result in self.results:
            lines += _wrapped(f"{result.name.ljust(width)}  {result.status.ljust(12)}  ", _summary(result))
        for result in self.failed:
            lines += ["", f"{result.name}: failed"]
            for what, text in (("seen", result.detail), ("input", result.where), ("likely cause", result.cause)):
                if text:
                    lines += _wrapped(f"  {what}: ", text)
        return "\n".join([*lines, "", self.conclusion])

    def __repr__(self) -> str:
        return f"<Report {self.conclusion}>"

    @property
    def conclusion(self) -> str:
        """One line: the number of checks of each outcome."""
        counts = {status: sum(r.status == status for r in self.results) for status in STATUSES}
        passed = len(self.results) - sum(counts.values())
        others = "".join(f", {count} {status}" for status, count in counts.items() if count)
        return f"{'conforms' if self.ok else 'does not conform'}: {passed} checks passed{others}"


def _summary(result: Result) -> str:
    if result.status in (SKIPPED, INCONCLUSIVE, NOTED):
        return result.detail
    if result.value is None:
        return result.detail if result.status == PASSED else ""
    allowed = "" if result.limit is None else f" (allowed {result.limit:.2g})"
    note = f"; {result.detail}" if result.status == PASSED and result.detail else ""
    return f"{result.measure} {result.value:.3g}{allowed}{note}"


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * len(start) if len(start) < WIDTH // 2 else "    "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=indent) or [start.rstrip()]
