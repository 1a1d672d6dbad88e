"""Bad input: one clear line each, exit code 2, nothing made or changed. And odd input that must work."""

import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import refnaf
from tests.cli.small_tables import table

FAST = ("--model", "maf", "--option", "flows=1", "--option", "hidden=8,", "--epochs", "1")


def write(name, data):
    with open(name, "wb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            np.lib.format.write_array(file, np.asanyarray(data), allow_pickle=True)
    return name


def with_bad_rows():
    x = table()
    x[[3, 17], 0] = np.nan
    x[150, 2] = np.inf
    return x


def whole():
    np.save("whole.npy", table())
    with open("whole.npy", "rb") as file:
        return file.read()


# what is in the file, and words of the message; every command that reads a table must refuse it
TABLES = {
    "nan and infinity": (with_bad_rows, "3 of 200 rows (rows 3, 17, 150, counted from 0)"),
    "strings": (lambda: np.array([["a", "b", "c"]]), "got strings"),
    "objects": (lambda: np.array([[1, "b", None]], dtype=object), "objects"),
    "pickle": (lambda: b"\x80\x04K\x01.", "pickle"),
    "complex": (lambda: table() + 1j, "complex"),
    "records": (lambda: np.zeros(5, "f8, f8, f8"), "records"),
    "dates": (lambda: np.zeros((5, 3), "M8[s]"), "dates"),
    "empty file": (lambda: b"", "empty file"),
    "no rows": (lambda: np.zeros((0, 3)), "no rows"),
    "three dimensions": (lambda: np.zeros((5, 3, 2)), "3 dimensions"),
    "no dimension": (lambda: np.array(1.0), "single number"),
    "truncated": (lambda: whole()[:1000], "cut short"),
    "not an array": (lambda: b"hello, world", "numpy.save"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_fit_and_score_refuse(refused, model, no_training, name):
    make, words = TABLES[name]
    path = write("bad.npy", make())
    assert "bad.npy" in refused("fit", path, words=words)
    refused("score", model, path, words=words)


@pytest.mark.parametrize("name", ["nan and infinity", "pickle", "empty file", "truncated"])
def test_as_a_user_sees_it(spawn, folder, name):
    make, words = TABLES[name]
    write("bad.npy", make())
    before = sorted(folder.iterdir())
    done = spawn("fit", "bad.npy")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("refnaf: error: bad.npy: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert sorted(folder.iterdir()) == before


def test_csv_with_words(refused, model, no_training):
    write("bad.csv", b"a,b,c\n1,2,3\n4,five,6\n")
    refused("fit", "bad.csv", words="line 3, column 2 ('b') holds 'five'")
    refused("score", model, "bad.csv", words="line 3, column 2 ('b') holds 'five'")


def test_missing_file_and_folder(refused, model, folder, no_training):
    (folder / "d.npy").mkdir()
    for command in (("fit",), ("score", model)):
        refused(*command, "missing.npy", words="no such file")
        refused(*command, "d.npy", words="got a folder")
        refused(*command, model, words=".csv")  # a model is not a table


def test_drop_nonfinite(ok, model):
    x = with_bad_rows()
    np.save("holes.npy", x)
    result = ok("fit", "holes.npy", *FAST, "--drop-nonfinite")
    assert "left out 3 of 200 rows" in result.stderr
    assert "197 rows" in result.stdout
    result = ok("score", model, "holes.npy", "--drop-nonfinite")
    assert "left out  3" in result.stdout
    nats = np.load("holes.nats.npy")
    bad = [3, 17, 150]
    assert np.isnan(nats[bad]).all()
    good = np.delete(np.arange(200), bad)
    np.testing.assert_allclose(nats[good], refnaf.load(model).log_prob(x[good]), rtol=1e-12)


def test_constant_column(refused):
    x = table()
    x[:, 1] = 7
    np.save("flat.npy", x)
    refused("fit", "flat.npy", *FAST, words="constant")


def test_too_few_rows(refused):
    np.save("few.npy", table(5))
    refused("fit", "few.npy", *FAST, words="too few")
    np.save("wide.npy", table(20, 30))
    refused("fit", "wide.npy", *FAST, words="too few")


def test_several_arrays_in_an_archive(refused, ok, model, no_training):
    np.savez("many.npz", a=table(), b=table())
    for command in (("fit",), ("score", model)):
        refused(*command, "many.npz", words="choose one with key (--key): a, b")
        refused(*command, "many.npz", "--key", "z", words="takes one of: a, b")
    ok("score", model, "many.npz", "--key", "b")


def test_wrong_number_of_columns(refused, model):
    np.save("four.npy", table(20, 4))
    for command in ("score", "plot"):
        refused(command, model, "four.npy", words="expected 3 columns as in the model, got 4")


def test_context_missing_or_superfluous(refused, model, context_model):
    np.save("three.npy", table())
    np.save("two.npy", table(200, 2))
    np.save("one.npy", table(200, 1))
    np.savez("pair.npz", x=table(), c=table(200, 1))
    for command in ("score", "plot"):
        refused(command, model, "three.npy", "--context", "one.npy", words="leave --context out")
        refused(command, model, "pair.npz", words="--key x")
        refused(command, context_model, "two.npy", words="expected a context of 1 columns")
        refused(command, context_model, "two.npy", "--context", "three.npy", words="expected a context of 1 columns")
    refused("sample", model, "--context", "one.npy", words="leave --context out")
    refused("sample", context_model, words="--context FILE")
    refused("sample", context_model, "--context", "three.npy", words="expected a context of 1 columns")
    refused("plot", context_model, words="context")


@pytest.mark.parametrize("rows", [199, 201, 1])
def test_context_of_another_length(refused, context_model, rows):
    np.save("two.npy", table(200, 2))
    np.save("c.npy", table(rows, 1))
    np.savetxt("c.csv", table(rows, 1), delimiter=",")
    for name in ("c.npy", "c.csv"):
        refused("score", context_model, "two.npy", "--context", name, words="one context row for each")
        refused("fit", "two.npy", "--context", name, words="one context row for each")


def test_nonfinite_context(refused, context_model):
    np.save("two.npy", table(200, 2))
    c = table(200, 1)
    c[9] = np.nan
    np.save("c.npy", c)
    for command in (("fit",), ("score", context_model)):
        refused(*command, "two.npy", "--context", "c.npy", words="1 of 200 rows (row 9,")
    refused("sample", context_model, "--context", "c.npy", words="row 9,")


MODELS = {
    "missing": (None, "No such file"),
    "empty": (b"", "empty"),
    "an array": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'", "not a safetensors file"),
    "a pickle": (b"\x80\x04K\x01.", "not a safetensors file"),
    "noise": (bytes(range(256)), "not a safetensors file"),
}


@pytest.mark.parametrize("command", ["score", "sample", "info", "plot"])
@pytest.mark.parametrize("name", MODELS)
def test_files_that_are_no_models(refused, command, name):
    data, words = MODELS[name]
    if data is not None:
        write("m.safetensors", data)
    np.save("data.npy", table())
    tail = ["data.npy"] if command == "score" else []
    assert "m.safetensors" in refused(command, "m.safetensors", *tail, words=words)


@pytest.mark.parametrize("command", ["score", "sample", "info"])
def test_damaged_and_truncated_models(refused, model, command):
    data = model.read_bytes()
    np.save("data.npy", table())
    tail = ["data.npy"] if command == "score" else []
    write("m.safetensors", data[:-100])
    refused(command, "m.safetensors", *tail, words="m.safetensors")
    write("m.safetensors", data[:-3] + bytes([data[-3] ^ 64]) + data[-2:])
    refused(command, "m.safetensors", *tail, words="damaged")


@pytest.mark.parametrize("command", ["score", "sample", "plot"])
def test_output_that_cannot_be_written(refused, folder, model, command):
    np.save("data.npy", table())
    suffix = ".png" if command == "plot" else ".npy"
    (folder / f"d{suffix}").mkdir()
    tail = ["data.npy"] if command == "score" else []
    for path in (f"missing/o{suffix}", f"d{suffix}", f"data.npy/o{suffix}"):
        refused(command, model, *tail, "--out", path, words="cannot write")
    refused(command, model, *tail, "--out", "o.txt", words=f"{suffix}")


def test_output_over_an_input(refused, model, context_model):
    np.save("data.npy", table())
    refused("score", model, "data.npy", "--out", "data.npy", words="would replace the input")
    os.symlink("data.npy", "link.npy")
    refused("score", model, "data.npy", "--out", "link.npy", words="would replace the input")
    np.save("c.npy", table(5, 1))
    refused("sample", context_model, "--context", "c.npy", "--out", "c.npy", words="would replace the input")


def test_a_failed_score_leaves_an_earlier_result(run, folder, model):
    np.save("data.npy", with_bad_rows())
    (folder / "data.nats.npy").write_bytes(b"earlier")
    assert run("score", model, "data.npy").exit_code == 2
    assert (folder / "data.nats.npy").read_bytes() == b"earlier"
    assert sorted(p.name for p in folder.iterdir()) == ["data.nats.npy", "data.npy"]


ODD = {
    "integers": lambda: np.round(100 * table()).astype(np.int64),
    "big-endian": lambda: table().astype(">f8"),
    "Fortran order": lambda: np.asfortranarray(table()),
    "float32": lambda: table().astype(np.float32),
    "float16": lambda: table().astype(np.float16),
    "one dimension": lambda: table()[:, 0],
    "1e30": lambda: table() * [1, 1e30, 1e-30],
    "one value of 1e30": lambda: np.concatenate([table(), [[0, 1e30, 0]]]),
    "heavy tails": lambda: np.random.default_rng(0).standard_cauchy((300, 2)) ** 3,
    "duplicated rows": lambda: np.repeat(table(20), 10, axis=0),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tables_work(ok, name):
    x = ODD[name]()
    np.save("odd.npy", x)
    result = ok("fit", "odd.npy", *FAST)
    assert ("taken as one column" in result.stderr) == (x.ndim == 1)
    assert "nan" not in result.stdout
    assert "inf" not in result.stdout
    ok("score", "odd.safetensors", "odd.npy")
    assert np.isfinite(np.load("odd.nats.npy")).all()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child")
def test_ctrl_c_of_a_real_process(folder):
    np.save("data.npy", table(2000))
    command = [sys.executable, "-m", "refnaf_cli", "fit", "data.npy", "--epochs", "100000"]
    # what starts the tests may ignore the signal, and its children would too
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "data.safetensors.checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stdout == ""
    last = stderr.splitlines()[-1]
    assert last == "refnaf: error: interrupted; --resume goes on from data.safetensors.checkpoint"
    assert "Traceback" not in stderr
    assert sorted(p.name for p in folder.iterdir()) == ["data.npy", "data.safetensors.checkpoint"]
