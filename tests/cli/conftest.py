"""Small tables, fitted models, and ways to run the command."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import refnaf
from refnaf_cli.main import main
from tests.cli.small_tables import table


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run():
    """run(*args) -> the result of the command in this process: exit_code, stdout, stderr."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters  # click before 8.2
    runner = CliRunner(**({"mix_stderr": False} if mixes else {}))

    def call(*args):
        return runner.invoke(main, [str(a) for a in args], prog_name="refnaf")

    return call


@pytest.fixture
def ok(run):
    """ok(*args) -> the result of a command that must succeed."""

    def call(*args):
        result = run(*args)
        assert result.exit_code == 0, result.stderr + repr(result.exception)
        return result

    return call


def files_here():
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in Path().rglob("*")}


@pytest.fixture
def refused(run):
    """refused(*args, words=..., code=2) -> the message, one line on standard error; no file is made or changed."""

    def call(*args, words="", code=2):
        before = files_here()
        result = run(*args)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert isinstance(result.exception, SystemExit)
        assert result.stdout == ""
        assert result.stderr.startswith("refnaf: error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert words in result.stderr
        assert files_here() == before
        return result.stderr

    return call


@pytest.fixture
def spawn():
    """spawn(*args) -> the finished process of `refnaf args`, as a user would start it."""

    def call(*args, **options):
        command = [sys.executable, "-m", "refnaf_cli", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)

    return call


@pytest.fixture
def no_training(monkeypatch):
    """Makes any call of refnaf.fit fail the test."""

    def fit(*args, **options):
        raise AssertionError("training was started")

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)


@pytest.fixture
def x(folder):
    """data.npy in the current folder, (200, 3)."""
    np.save("data.npy", table())
    return table()


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Paths of two fitted models: "plain" of 3 columns, "context" of 2 columns given 1."""
    where = tmp_path_factory.mktemp("models")
    paths = {"plain": where / "plain.safetensors", "context": where / "context.safetensors"}
    refnaf.fit(table(), "maf", epochs=1, flows=1, hidden=(8,), seed=0).save(paths["plain"])
    rows = table()
    refnaf.fit(rows[:, :2], "maf", context=rows[:, 2:], epochs=1, flows=1, hidden=(8,), seed=0).save(paths["context"])
    return paths


@pytest.fixture
def model(fitted):
    return fitted["plain"]


@pytest.fixture
def context_model(fitted):
    return fitted["context"]


@pytest.fixture
def read_only_folder(folder):
    """A folder in which nothing can be made; skips where the user may write anywhere."""
    made = folder / "locked"
    made.mkdir(mode=0o500)
    if os.access(made, os.W_OK):
        pytest.skip("this user may write everywhere")
    return made
