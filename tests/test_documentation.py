"""What the documents name exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EQUATIONS = (ROOT / "refnaf" / "reference" / "EQUATIONS.md").read_text(encoding="utf-8")
TABLE = [line.split("|")[1:-1] for line in EQUATIONS.splitlines() if re.match(r"\| *\d", line)]


def numbers(cell: str) -> set[int]:
    first, _, last = cell.strip().partition("-")
    return set(range(int(first), int(last or first) + 1))


def test_every_equation_has_its_row():
    covered = [n for row in TABLE for n in numbers(row[0])]
    assert len(covered) == len(set(covered))
    assert {*range(2, 5), *range(10, 31)} <= set(covered)


@pytest.mark.parametrize("row", TABLE, ids=[row[0].strip() for row in TABLE])
def test_every_function_of_the_reference_exists(row):
    names = re.findall(r"`(\w+)\.(\w+)`", row[2])
    assert names
    for module, name in names:
        found = getattr(importlib.import_module(f"refnaf.reference.{module}"), name)
        assert callable(found)


def test_links_lead_somewhere():
    documents = [ROOT / "README.md", *(ROOT / f / "README.md" for f in ("data", "benchmarks")), ROOT / "CHANGELOG.md"]
    for path in documents:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
