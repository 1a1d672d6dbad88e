"""What is installed, what the repository holds, and what ``import refnaf`` costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import refnaf

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOP_LEVEL = {"pyproject.toml", "README.md", "refnaf", "tests", "cli", "data", "benchmarks", "LICENSE", "CHANGELOG.md"}
NOT_IMPORTED = ("scipy", "numba", "autograd", "matplotlib", "click", "safetensors")


def packages_on_disk() -> list[str]:
    found = []
    for name, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        for path in (ROOT / folder, *(ROOT / folder).rglob("*")):
            if path.is_dir() and any(path.glob("*.py")):
                found.append(".".join((name, *path.relative_to(ROOT / folder).parts)))
    return sorted(found)


def tracked_files() -> list[str]:
    """Paths that git knows, or none where this is not a checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [path for path in done.stdout.split("\0") if path]


def test_every_package_is_listed():
    assert PROJECT["tool"]["setuptools"]["packages"] == packages_on_disk()


def test_every_package_has_an_init():
    for package in packages_on_disk():
        name, *rest = package.split(".")
        folder = ROOT / PROJECT["tool"]["setuptools"]["package-dir"][name]
        assert folder.joinpath(*rest, "__init__.py").is_file(), package


def test_type_hints_are_shipped():
    assert (ROOT / "refnaf" / "py.typed").is_file()


def test_version_is_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "refnaf.__version__"}
    literal = re.compile(r"""^\s*(__version__|version)\s*=\s*["']""", re.MULTILINE)
    sources = [ROOT / "pyproject.toml", *(ROOT / "refnaf").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    holding = [path.relative_to(ROOT).as_posix() for path in sources if literal.search(path.read_text("utf-8"))]
    assert holding == ["refnaf/__init__.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", refnaf.__version__)


def test_import_is_light():
    code = f"import sys, refnaf; print(*[name for name in {NOT_IMPORTED} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_loads():
    missing = [name for name in refnaf.__all__ if not hasattr(refnaf, name)]
    assert missing == []


def test_top_level_of_the_repository():
    tracked = tracked_files()
    if not tracked:
        pytest.skip("no git checkout")
    assert {path.split("/")[0] for path in tracked if not path.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("name", ["fit", "test"])
def test_readme_marks_its_commands(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"<!-- command: {name} -->\s*```\w*\n[^`]*\S[^`]*```", readme)


def test_nothing_but_safetensors_reads_models():
    """No pickle, marshal or the like anywhere: a file from a stranger can hold numbers only."""
    unsafe = re.compile(r"^\s*(import|from)\s+(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b", re.MULTILINE)
    allowed = re.compile(r"allow_pickle\s*=\s*True")
    for folder in ("refnaf", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not unsafe.search(text), path
            assert not allowed.search(text), path
