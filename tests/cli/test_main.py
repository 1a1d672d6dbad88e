"""The group: help, version, exit codes, errors, what is imported when."""

import os
import subprocess
import sys

import click
import numpy as np
import pytest

import refnaf
from refnaf_cli.main import COMMANDS, main
from refnaf_cli.params import Duration, parse_value
from refnaf_cli.report import Mean, duration, number
from tests.cli.small_tables import table

HEAVY = ("scipy", "numba", "autograd", "matplotlib")


def imported(*args):
    """Top-level modules that `refnaf args` imports."""
    code = (
        "import sys\nfrom refnaf_cli.main import main\n"
        "try: main(sys.argv[1:], prog_name='refnaf')\nexcept SystemExit as e: assert not e.code\n"
        "print('MODULES', *{name.split('.')[0] for name in sys.modules}, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


def test_help_imports_nothing_of_the_library():
    loaded = imported("--help")
    assert not loaded & {"numpy", "refnaf", *HEAVY}
    assert not loaded & {f"refnaf_cli.{name}" for name in COMMANDS}


def test_score_needs_neither_scipy_nor_numba_nor_autograd_nor_matplotlib(model):
    np.save("data.npy", table())
    loaded = imported("score", model, "data.npy", "--backend", "numpy")
    assert {"numpy", "safetensors", "refnaf_cli.score"} <= loaded
    assert not loaded & {*HEAVY, "refnaf_cli.fit"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(ok, name):
    text = ok(name, "--help").stdout
    assert f"refnaf {name}" in " ".join(text.split("Example:")[1].split())
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or option.name == "dtype", option.name


def test_help_lists_the_commands(ok):
    for args in (("--help",), ("-h",), ()):
        text = ok(*args).stdout
        assert all(name in text for name in COMMANDS)
        assert "Example: refnaf fit" in text


def test_fit_help_lists_the_models(ok):
    text = "".join(ok("fit", "--help").stdout.split())
    assert "|".join(refnaf.models()) in text


def test_version(ok, spawn):
    assert ok("--version").stdout == f"refnaf {refnaf.__version__}\n"
    assert spawn("--version").stdout == f"refnaf {refnaf.__version__}\n"


def test_unknown_command_and_missing_arguments(refused):
    refused("wings", words="No such command 'wings'")
    refused("fit", words="Missing argument 'DATA'")
    refused("score", words="Missing argument 'MODEL'")
    refused("--wings", words="--wings")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("two\nlines"), 2, "two lines"),
        (FileNotFoundError(2, "No such file or directory", "x.npy"), 2, "x.npy: No such file or directory"),
        (OSError("disk full"), 2, "disk full"),
        (MemoryError("3 GiB"), 1, "out of memory (3 GiB)"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("gave up"), 1, "gave up"),
        (ImportError("no scipy"), 1, "no scipy"),
        (KeyError("k"), 1, "KeyError"),
        (KeyboardInterrupt(), 1, "interrupted"),
    ],
)
def test_errors_from_the_library(refused, model, monkeypatch, error, code, words):
    def load(*args):
        raise error

    monkeypatch.setattr(refnaf, "load", load, raising=False)
    monkeypatch.delenv("REFNAF_TRACEBACK", raising=False)
    refused("info", model, words=words, code=code)
    if isinstance(error, Exception):
        monkeypatch.setenv("REFNAF_TRACEBACK", "1")
        with pytest.raises(type(error)):
            main(["info", str(model)])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes differ")
def test_a_reader_that_goes_away_is_no_traceback(model):
    process = subprocess.Popen(
        [sys.executable, "-m", "refnaf_cli", "info", str(model), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert stderr == b""


def test_threads_are_set_before_numpy_is_imported(spawn, model):
    np.save("data.npy", table())
    code = (
        "import os, sys\nfrom refnaf_cli.params import limit_threads\nlimit_threads(1)\n"
        "assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\nassert 'numpy' not in sys.modules\n"
        "import numpy\nlimit_threads(2)\nassert os.environ['OPENBLAS_NUM_THREADS'] == '1'"
    )
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert spawn("score", model, "data.npy", "--threads", 1).returncode == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        (".5m", 30),
        ("2 H", 7200),
        ("1d", 86400),
    ],
)
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "1e3", "1h30m", "0s", "nan", "9" * 400])
def test_bad_durations(text):
    with pytest.raises(click.BadParameter, match="expected a positive time"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1e-3", 1e-3),
        ("64,64", [64, 64]),
        ("64,", [64]),
        ("[64, 64]", [64, 64]),
        ("true", True),
        ("null", None),
        ("tanh", "tanh"),
        ('"5"', "5"),
        ("a,2", ["a", 2]),
        ("{broken", "{broken"),
    ],
)
def test_option_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (9.99, "9.99 s"),
        (12.34, "12.3 s"),
        (99.96, "1 min 40 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_times_are_told(seconds, text):
    assert duration(seconds) == text


def test_numbers_are_told():
    told = {-1.5: "-1.5000", 999999.0: "999999.0000", -1e6: "-1.0000e+06", 1e300: "1.0000e+300", float("nan"): "nan"}
    assert {value: number(value) for value in told} == told


def test_mean_and_error_in_chunks():
    values = 1e6 + np.random.default_rng(0).normal(size=1000)
    for chunk in (1, 7, 1000):
        mean = Mean()
        for start in range(0, 1000, chunk):
            mean.add(values[start : start + chunk])
        mean.add(values[:0])
        assert mean.n == 1000
        np.testing.assert_allclose([mean.mean, mean.error], [values.mean(), values.std(ddof=1) / 1000**0.5], rtol=1e-10)
    assert np.isnan(Mean().error)
