"""``refnaf infer``."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import refnaf

MODULE = """
import autograd.numpy as np
import numpy

def log_density(z):
    return -0.5 * np.sum((z - 1) ** 2, axis=1)

def by_numpy(z):
    return -numpy.linalg.norm(z, axis=1)

def hidden(z):
    return -0.5 * np.sum(numpy.array([[float(getattr(v, "_value", v)) for v in row] for row in z]) ** 2, axis=1)

def partly(z):
    return -z[:, 0] ** 2 - getattr(z, "_value", z)[:, 1] ** 2

def flat(z):
    return numpy.zeros(len(z))

def wrong_shape(z):
    return -0.5 * np.sum(z**2)

def column(z):
    return -0.5 * np.sum(z**2, axis=1, keepdims=True)

def nan(z):
    return np.log(z[:, 0])

def half(z):
    return np.where(z[:, 0] > 0, -0.5 * np.sum(z**2, axis=1), -np.inf)

def mixing(z):
    return -0.5 * np.sum((z - np.mean(z, axis=0)) ** 2, axis=1)

def steep(z):
    return -np.sqrt(np.sum(np.maximum(z - 9, 0) ** 2, axis=1))

def fails(z):
    return z @ np.ones(7)

def text(z):
    return np.array(["a"] * len(z))

constant = 3.0
"""
QUICK = ("--dim", 2, "--model", "planar", "--option", "flows=2", "--steps", 40, "--samples", 500)


@pytest.fixture(autouse=True)
def mine(folder, monkeypatch):
    """mine.py in the current folder, which is importable as for a user who starts the command there."""
    Path("mine.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("mine", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    sys.modules.pop("mine", None)


def test_the_table_and_the_file(ok):
    result = ok("infer", "mine:log_density", *QUICK, "--location", "1,1", "--seed", 3)
    lines = {line[:14].strip(): line[14:].split() for line in result.stdout.splitlines()}
    flow = refnaf.load("posterior.safetensors")
    scores, found = flow.provenance["scores"], flow.provenance["importance"]
    assert lines["target"] == ["mine:log_density,", "2", "dimensions"]
    assert lines["ELBO"][:3] == [f"{scores['elbo'][0]:.4f}", "+-", f"{scores['elbo'][1]:.4f}"]
    assert lines["log normaliser"][:3] == [f"{v:.4f}" if v != "+-" else v for v in joined(scores["log_normaliser"])]
    assert lines["ESS"][:4] == [f"{found['ess']:,.1f}", "of", "500", "samples,"]
    assert "40 steps" in " ".join(lines["time"])
    assert lines["wrote"] == ["posterior.safetensors"]
    assert "step 40/40" in result.stderr and "epoch" not in result.stderr
    np.testing.assert_array_equal(flow.buffers["0.mean"], [1, 1])
    assert flow.provenance["target"]["log_density"] == "mine:log_density"
    same = refnaf.fit_variational(
        sys.modules["mine"].log_density, 2, "planar", flows=2, steps=40, samples=500, location=[1, 1], seed=3
    )
    same.save("same.safetensors")
    assert Path("same.safetensors").read_bytes() == Path("posterior.safetensors").read_bytes()


def joined(score):
    return [score[0], "+-", score[1]]


def test_every_option(ok):
    pytest.importorskip("matplotlib")
    options = ("--anneal", 0.5, "--path-derivative", "--batch-size", 32, "--learning-rate", "1e-3", "--max-time", "1h")
    files = ("--out", "q.safetensors", "--plot", "q.png")
    result = ok(
        "infer", "mine:log_density", *QUICK, *options, "--scale", "2,3", "--dtype", "float64", *files, "--quiet"
    )
    assert result.stdout.split() == ["wrote", "q.safetensors", "wrote", "q.png"]
    flow = refnaf.load("q.safetensors")
    training = flow.provenance["training"]
    assert {training[k] for k in ("anneal", "batch_size", "learning_rate")} == {0.5, 32, 1e-3}
    assert training["path_derivative"] is True
    assert flow.dtype == np.float64
    np.testing.assert_array_equal(flow.buffers["0.scale"], [2, 3])
    told = ok("info", "q.safetensors").stdout
    assert re.search(r"ELBO +-?\d", told) and re.search(r"log normaliser +-?\d", told)


def test_a_target_of_the_library(ok):
    result = ok("infer", "refnaf.datasets.energies:u3", *QUICK)
    assert "refnaf.datasets.energies:u3" in result.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("by_numpy", "cannot be differentiated by autograd"),
        ("hidden", "cannot be differentiated by autograd"),
        ("partly", "its gradient is not that of its values"),
        ("flat", "its gradient is not that of its values"),
        ("wrong_shape", "one number a row, got ()"),
        ("column", "got (64, 1)"),
        ("nan", "log_density is nan at"),
        ("half", "log_density is -inf at"),
        ("mixing", "changes with the other rows"),
        ("steep", "the gradient of log_density is not finite"),
        ("fails", "log_density failed (ValueError"),
        ("text", "must return real numbers"),
        ("constant", "must be a function"),
    ],
)
def test_a_log_density_that_cannot_be_used(refused, name, words):
    refused("infer", f"mine:{name}", *QUICK, words=words)


def test_bad_use(refused):
    Path("broken.py").write_text("1 / 0", encoding="utf-8")
    refused("infer", words="Missing argument 'MODULE:FUNCTION'")
    refused("infer", "mine:log_density", words="Missing option '--dim'")
    refused("infer", "mine", *QUICK, words="expected package.module:log_density, got 'mine'")
    refused("infer", "mine:wings", *QUICK, words="mine has no 'wings'")
    refused("infer", "nowhere:f", *QUICK, words="cannot import nowhere: ModuleNotFoundError")
    refused("infer", "broken:f", *QUICK, words="cannot import broken: ZeroDivisionError: division by zero")
    refused("infer", "mine:log_density", "--dim", 2, "--model", "naf", words="--model: expected one of")
    refused("infer", "mine:log_density", *QUICK, "--option", "steps=3", words="write --steps")
    refused("infer", "mine:log_density", *QUICK, "--option", "wings=3", words="no option 'wings'")
    refused("infer", "mine:log_density", *QUICK, "--anneal", 1, words="from 0 to below 1")
    refused("infer", "mine:log_density", *QUICK, "--location", "1", words="location must be 2 finite numbers")
    refused("infer", "mine:log_density", *QUICK, "--scale", "1,x", words="expected numbers separated by commas")
    refused("infer", "mine:log_density", *QUICK, "--out", "q.npy", words="expected an output file named .safetensors")


def test_weights_that_are_not_to_be_trusted(ok):
    result = ok("infer", "mine:log_density", *QUICK, "--location", "9,9", "--steps", 1, "--quiet")
    assert result.stderr.startswith("refnaf: warning: ") and "do not trust the log normaliser" in result.stderr
