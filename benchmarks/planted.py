"""Every planted bug, and what caught it: ``python benchmarks/planted.py [--out benchmarks/PLANTED.md]``.

From a clone, since the bugs are the tests' own: those of tests/verify/planted.py, in a flow that one check of the
conformance kit then has to catch, and those of tests/verify/mistakes.py, in another implementation whose
outputs are compared with golden vectors. A bug is named where the report's likely cause, or one of its causes, is the
one that the tests demand. Exit code 1 where a bug is missed or not named. Seeded; a minute or two on one core.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnaf import __version__
from refnaf.persistence import atomic_write
from refnaf.verify import check_flow, compare

TEXT = """# Planted bugs

{date}; refnaf {refnaf}, NumPy {numpy}, Python {python}, {machine}.

    python benchmarks/planted.py --out benchmarks/PLANTED.md

## In a flow: `check_flow`

{flow_caught} of {flow_bugs} bugs caught by the check that is there for them, {flow_named} of them with the right
likely cause. One line of [a small correct flow](../tests/verify/planted.py) is wrong at a time; the flow without
a bug passes. "Measured" is what the check holds against its limit: an error, or of samples a p-value.

{flow_table}

## In another implementation: `compare`

{port_caught} of {port_bugs} mistakes depart from the golden vectors, {port_named} of them are named, {port_first} as
the closest cause. One method of [a second implementation](../tests/verify/port.py) is written otherwise at a time.
"Nats" are the median error of log p on ordinary rows; "closeness" is the error of the named mistake's own prediction of
the numbers, 1 where it reaches what is allowed. Mistakes of what is handed over rather than of a line (transposed, in
another order, float32 as float64, ...) are in [test_signatures.py](../tests/verify/test_signatures.py).

{port_table}
"""


class Caught(NamedTuple):
    """A row of a table: its cells, and whether the bug was caught, named, and named first."""

    cells: list[str]
    caught: bool
    named: bool
    first: bool


def in_a_flow() -> list[Caught]:
    """Every bug of tests/verify/bugs.py, by the conformance kit."""
    bugs = importlib.import_module("tests.verify.bugs")
    rows = []
    for bug, (_, check, words) in bugs.BUGS.items():
        flow, options = bugs.planted(bug)
        result = check_flow(flow, checks=[check], rows=2000 if check == "samples" else 400, **options)[check]
        caught = result.status == ("noted" if bug in bugs.NOTED else "failed")
        off = "" if result.value is None or result.limit is None else f"{result.value:.3g} ({result.limit:.1g})"
        named = caught and words in result.cause
        by = f"{check}{' (noted)' if bug in bugs.NOTED else ''}" if caught else f"{check}: missed"
        cells = [bug, by, off, result.cause]
        rows.append(Caught(cells, caught, named, named))
        print(*cells, sep=" | ", file=sys.stderr, flush=True)
    return rows


def in_a_port() -> list[Caught]:
    """Every mistake of tests/verify/mistakes.py, by golden vectors."""
    mistakes = importlib.import_module("tests.verify.mistakes")
    rows = []
    for name, flow, methods, detail in mistakes.PLANTED:
        (tensors, header), given = mistakes.golden(flow), mistakes.mistaken(flow, **methods)
        report = compare((tensors, header), given)
        known = [cause for cause in report.causes if cause.name == name and detail in cause.detail]
        first = bool(known) and known[0] is report.causes[0]
        usual = tensors["inputs/kind"] == 0
        cells = [
            f"{name}{f' ({detail})' if detail else ''}",
            flow,
            f"{np.median(np.abs(given['log_prob'] - tensors['outputs/log_prob'])[usual]):.2g}",
            f"{known[0].closeness:.0e}" if known else "not named",
            "" if first else ", ".join(cause.name for cause in report.causes if cause not in known),
        ]
        rows.append(Caught(cells, not report.agrees, bool(known), first))
        print(*cells, sep=" | ", file=sys.stderr, flush=True)
    return rows


def _table(head: list[str], rows: list[Caught]) -> str:
    lines = [head, ["---"] * len(head), *(row.cells for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _text(flow: list[Caught], port: list[Caught]) -> str:
    known: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "refnaf": __version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for kind, rows in (("flow", flow), ("port", port)):
        known[f"{kind}_bugs"] = len(rows)
        known |= {f"{kind}_{what}": sum(getattr(row, what) for row in rows) for what in ("caught", "named", "first")}
    known["flow_table"] = _table(["bug", "caught by", "measured (limit)", "likely cause, as reported"], flow)
    known["port_table"] = _table(["mistake, as named", "model", "nats", "closeness", "named before it"], port)
    return TEXT.format(**known)


def main() -> None:
    """Print the two tables, or write them; the rows to standard error as they are known."""
    parser = argparse.ArgumentParser(description="Every planted bug, and what caught it.")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the tables to")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    warnings.filterwarnings("ignore")
    flow, port = in_a_flow(), in_a_port()
    text = _text(flow, port)
    print(text)
    if arguments.out:
        with atomic_write(arguments.out) as file:
            file.write(text.encode())
    sys.exit(0 if all(row.caught and row.named for row in flow + port) else 1)


if __name__ == "__main__":
    main()
