"""``refnaf check``."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import refnaf

MODULE = """
import types
import numpy as np

SCALE = 2.0

def forward(x):
    return x / SCALE, np.full(len(x), -x.shape[1] * np.log(SCALE))

def inverse(z):
    return z * SCALE

def log_prob(x):
    z, logdet = forward(x)
    return -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1) + logdet

def sample(n, seed):
    return SCALE * np.random.default_rng(seed).normal(size=(n, 2))

def shifted(x, c):
    return x - c, np.zeros(len(x))

def wrong(x):
    return x / SCALE, np.full(len(x), x.shape[1] * np.log(SCALE))

class Holder:
    flow = {"forward": forward, "inverse": inverse, "log_prob": log_prob, "sample": sample}

number = 3
"""


@pytest.fixture
def mine(folder, monkeypatch):
    """myflow.py in the current folder, not imported before."""
    Path("myflow.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "myflow"
    sys.modules.pop("myflow", None)


def test_flows_that_conform(ok, mine):
    for name in ("forward", "Holder.flow"):
        result = ok("check", f"{mine}:{name}", "--dim", 2, "--rows", 500)
        assert result.stderr == ""
        assert "\nconforms: " in result.stdout
        assert "log-determinant" in result.stdout
    ok("check", f"{mine}:shifted", "--dim", 2, "--context-dim", 2, "--rows", 500)


def test_a_flow_that_does_not_conform(run, mine):
    result = run("check", f"{mine}:wrong", "--dim", 2, "--rows", 500, "--center", 0, "--scale", 2)
    assert result.exit_code == 1
    assert result.stderr == ""
    text = " ".join(result.stdout.split())
    assert "likely cause: the sign is wrong" in text
    assert "does not conform" in text


def test_one_check_as_json(run, mine):
    result = run("check", f"{mine}:wrong", "--dim", 2, "--check", "log-determinant", "--check", "triangular", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert {check["name"]: check["status"] for check in report["checks"]} == {
        "triangular": "passed",
        "log-determinant": "failed",
    }


def test_a_fitted_model(ok, model, context_model):
    assert refnaf.load(model).dtype == np.float32
    result = ok("check", model, "--check", "round trip")
    assert "flow of 3 dimensions, float32" in result.stdout
    assert "context of 1" in ok("check", context_model, "--check", "context").stdout


def test_bad_use(refused, mine):
    refused("check", words="Missing argument 'MODULE:FLOW'")
    refused("check", "myflow", words="expected package.module:flow")
    refused("check", "myflow:wings", "--dim", 2, words="myflow has no 'wings'")
    refused("check", "nowhere:flow", "--dim", 2, words="cannot import nowhere: ModuleNotFoundError")
    refused("check", "myflow:forward", words="pass --dim")
    refused("check", "myflow:number", "--dim", 2, words="without any of them")
    refused("check", "myflow:forward", "--dim", 2, "--check", "wings", words="got 'wings'")
    refused("check", "none.safetensors", words="none.safetensors: No such file or directory")


def test_a_module_that_cannot_be_imported(refused, mine):
    Path("broken.py").write_text("1 / 0\n", encoding="utf-8")
    refused("check", "broken:flow", "--dim", 2, words="cannot import broken: ZeroDivisionError: division by zero")
