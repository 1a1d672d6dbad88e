"""``refnaf verify``."""

import types

import numpy as np
import pytest

from refnaf.verify.vectors import read_vectors, shipped


@pytest.fixture
def golden():
    return shipped()["maf-ddsf-context"]


@pytest.fixture
def outputs(golden):
    """What a right implementation gives back."""
    tensors, _ = read_vectors(golden)
    return {name.removeprefix("outputs/"): a for name, a in tensors.items() if name.startswith("outputs/")}


def test_agreement(ok, golden, outputs):
    np.savez("theirs.npz", **outputs)
    result = ok("verify", golden, "theirs.npz")
    assert result.stderr == ""
    assert result.stdout.startswith("tensor")
    assert "all 3 tensors compared agree with the oracle" in result.stdout
    assert "departs" not in result.stdout


def test_a_mistake(run, golden, outputs):
    outputs["log_prob"] = outputs["log_prob"] - 2 * outputs["logdet"]
    np.savez("theirs.npz", **{"outputs." + name: a for name, a in outputs.items()})
    result = run("verify", golden, "theirs.npz")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert "departs first: log_prob" in result.stdout
    assert "likely cause: log-determinant with the wrong sign. The change of variables" in result.stdout


def test_npy_and_tolerances(run, ok, golden, outputs):
    ok("verify", golden, save(outputs["z"]))
    ok("verify", golden, save(outputs["log_prob"]))
    near = save(outputs["z"] * (1 + 1e-6))
    assert run("verify", golden, near).exit_code == 1
    ok("verify", golden, near, "--rtol", "1e-5")
    assert run("verify", golden, save(outputs["z"]), "--rtol", "0", "--atol", "0").exit_code in (0, 1)


def save(array):
    np.save("theirs.npy", array)
    return "theirs.npy"


def test_bad_use(refused, golden, outputs):
    refused("verify", words="Missing argument 'VECTORS'")
    refused("verify", golden, words="Missing argument 'THEIRS'")
    refused("verify", golden, "none.npz", words="none.npz: No such file or directory")
    save(np.ones((3, 3)))
    refused("verify", golden, "theirs.npy", words="a single array must be z of shape (20, 2)")
    np.savez("odd.npz", wings=np.ones(3))
    refused("verify", golden, "odd.npz", words="no tensor to compare")
    with open("text.npz", "w") as file:
        file.write("words")
    refused("verify", golden, "text.npz", words="text.npz: expected a .npy, .npz or safetensors file")
    refused("verify", "theirs.npy", "theirs.npy", words="theirs.npy is not a safetensors file")
    refused("verify", golden, "theirs.npy", "--rtol", "-1", words="expected a finite number of at least 0")


@pytest.mark.parametrize("good", [True, False])
def test_accuracy(run, monkeypatch, good):
    """The report's own numbers are tested beside it; here, what is passed on and the exit code."""
    from refnaf.verify import accuracy

    asked = []

    def report(**arguments):
        asked.append(arguments)
        return [types.SimpleNamespace(ok=True), types.SimpleNamespace(ok=good)]

    monkeypatch.setattr(accuracy, "report", report)
    monkeypatch.setattr(accuracy, "format_report", lambda rows: f"{len(rows)} rows")
    result = run("verify", "--accuracy", "--samples", "7", "--seed", "3", "--dtype", "float32")
    assert asked == [{"samples": 7, "seed": 3, "dtype": "float32"}]
    assert result.stdout == "2 rows\n"
    assert result.exit_code == (0 if good else 1)


def test_accuracy_takes_no_files(refused, golden):
    refused("verify", golden, "x.npz", "--accuracy", words="takes no files")
