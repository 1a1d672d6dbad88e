"""Imports run one way, the reference stands alone, and files stay short."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"refnaf": "refnaf", "refnaf_cli": "cli"}
MAX_LINES = 400

# From the bottom to the top: a part imports itself and what stands in a line before its own, nothing else. A part is a
# module or a subpackage of refnaf; tables_csv belongs to tables, and so on. "refnaf" is the package's own __init__.
LAYERS = (
    ("errors",),
    ("reference",),
    ("kernels",),
    ("ops", "parallel"),
    ("persistence", "tables"),
    ("flows",),
    ("objective",),
    ("training",),
    ("plotting", "interop", "verify", "datasets"),
    ("refnaf",),
    ("refnaf_cli",),
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
REFERENCE_IMPORTS = {"numpy", "autograd"}

Module = tuple[str, ast.Module, Path]


def part_of(module: str) -> str:
    """The part that a dotted module name belongs to."""
    package, *rest = module.split(".")
    return rest[0].lstrip("_").split("_")[0] if package == "refnaf" and rest else package


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and path of every module."""
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imported_names(module: str, path: Path) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, wherever in it; of an object, of its home and its name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            home = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)


def is_upward(module: str, name: str) -> bool:
    """Whether importing a name breaks the order. The version can be had anywhere: it is there before all else."""
    if name.split(".")[0] not in PACKAGES or name == "refnaf.__version__":
        return False
    here, there = part_of(module), part_of(name)
    if there not in RANK:
        there = "refnaf"  # a public name, taken from the top
    return here != there and RANK[there] >= RANK[here]


MODULES = dict(modules())


def test_every_module_has_its_place():
    assert sorted({part_of(module) for module in MODULES} - set(RANK)) == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    if module == "refnaf":
        return  # names everything, loads it when asked
    upward = [name for name in imported_names(module, MODULES[module]) if is_upward(module, name)]
    assert upward == []


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) == "reference"])
def test_the_reference_stands_alone(module):
    allowed = REFERENCE_IMPORTS | sys.stdlib_module_names
    names = imported_names(module, MODULES[module])
    foreign = [n for n in names if n.split(".")[0] not in allowed and not f"{n}.".startswith("refnaf.reference.")]
    assert foreign == []


@pytest.mark.parametrize(
    ("module", "name", "upward"),
    [
        ("refnaf.flows.flow", "refnaf.kernels.array.dsf", False),
        ("refnaf.flows.flow", "refnaf.flows.linear", False),
        ("refnaf.flows.flow", "refnaf.persistence.read_archive", False),
        ("refnaf.flows.flow", "refnaf.training.fit", True),
        ("refnaf.ops", "refnaf.flows", True),
        ("refnaf.training", "refnaf.fit", True),
        ("refnaf.training", "refnaf", True),
        ("refnaf.training", "refnaf.__version__", False),
        ("refnaf.tables_csv", "refnaf.tables_check.Source", False),
        ("refnaf.persistence", "refnaf.tables.Table", True),
        ("refnaf.reference.dsf", "refnaf.ops", True),
        ("refnaf.training", "refnaf_cli.fit", True),
        ("refnaf_cli.fit", "refnaf.fit", False),
        ("refnaf.plotting", "numpy.random", False),
    ],
)
def test_the_order_itself(module, name, upward):
    assert is_upward(module, name) is upward


@pytest.mark.parametrize("folder", ["refnaf", "cli", "tests", "data", "benchmarks"])
def test_files_are_short(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {path.as_posix(): n for path, n in lengths.items() if n > MAX_LINES} == {}
