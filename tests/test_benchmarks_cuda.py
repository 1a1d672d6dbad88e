"""The benchmark of the backend "cuda", gone through without a GPU: every row is there, and its parts are right."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.device_array import device

pytest.importorskip("numba_cuda")
# the simulator computes with NumPy's numbers, which warn where a GPU overflows
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    """The modules of benchmarks/cuda and benchmarks/speed by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "speed"))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "cuda"))
    for name in ("NUMBA_ENABLE_CUDASIM", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.setenv(name, "1")
    return importlib.import_module


def test_all_of_it_runs_on_arrays_that_do_not_mix_with_the_hosts(part, monkeypatch, tmp_path):
    out = tmp_path / "CUDA.md"
    with device(monkeypatch):
        assert part("run_cuda").main(["--simulate", "--no-torch", "--out", str(out)]) == 0
    found, sizes = json.loads(out.with_suffix(".json").read_text()), part("sizes").SIMULATOR
    wanted = {(cell.name, what) for cell in sizes.cells for what in ("forward", "vjp", "inverse")}
    wanted |= {("elu", "activate"), ("elu", "activate_vjp"), ("Adam", "step")}
    assert {(row["name"], row["what"]) for row in found["kernels"]} == wanted
    assert {name for name, _ in wanted} >= {"affine", "mog", "dsf", "ddsf"}
    assert all(row["seconds"] > 0 and row["floor"] > 0 for row in found["kernels"])
    assert [row["work"] for row in found["steps"]] == ["training step", "scoring"]
    assert found["notes"] == ["rows of torch: torch was not asked for"]
    text = out.read_text()
    assert all(title in text for title in ("## The card", "## Targets", "## Kernels", "## Training steps and scoring"))


def test_what_has_no_time_is_left_out_and_named(part, tmp_path):
    out = tmp_path / "CUDA.md"
    assert part("run_cuda").main(["--simulate", "--no-torch", "--budget", "0", "--out", str(out)]) == 0
    found, sizes = json.loads(out.with_suffix(".json").read_text()), part("sizes").SIMULATOR
    assert not found["steps"]
    named = [note for note in found["notes"] if note.endswith("no time was left")]
    assert len(named) == len(sizes.cells) + 2
    assert "mog, N = 2, float32: no time was left" in out.read_text()


def test_a_wrong_kernel_is_found_and_the_others_are_measured(part, monkeypatch):
    work, kernels = part("work"), part("device_kernels")
    cells = tuple(cell for cell in part("sizes").SIMULATOR.cells if cell.name in ("affine", "mog"))
    tiny = dataclasses.replace(part("sizes").SIMULATOR, cells=cells)
    run = work.Run(None, "command", True, False)
    run.sizes = tiny
    vjp = kernels.Calls.vjp

    def spoilt(self):
        on_x, on_theta, shared = vjp(self)
        return on_x * (1.01 if self.inputs.name == "mog" else 1), on_theta, shared

    monkeypatch.setattr(kernels.Calls, "vjp", spoilt)
    run.kernels(np.inf)
    assert run.wrong
    assert any(note.startswith("mog, N = 2, float32: Disagreement: mog in float32: array 2") for note in run.notes)
    assert {row.name for row in run.kernel_rows} == {"affine", "elu", "Adam"}


def test_floors_are_the_larger_of_moving_and_computing(part):
    counts, rates = part("counts"), part("rates")
    both = {"float32": 2.0, "float64": 1.0}
    card = rates.Rates(copy=8.0, products=1.0, exps=both, own_exps=both, fmas=both, empty=0.0, launch=0.0)
    work = counts.Work(values=4, exps=3, fmas=2).times(10)
    assert (work.moving(card, "float32"), work.computing(card, "float32")) == (20, 25)
    assert (work.moving(card, "float64"), work.computing(card, "float64")) == (40, 50)
    assert work.floor(card, "float32") == 25 and counts.Work(4).floor(card, "float64") == 4


@pytest.mark.parametrize("name", ["affine", "mog", "dsf", "ddsf"])
def test_values_moved_are_what_goes_into_a_kernel_and_comes_out(part, name):
    counts, size = part("counts"), 3
    options = {"affine": {}, "mog": {"components": size}}.get(name, {"units": size})
    theta = part("cases").inputs(name, 1, 1, "float64", **options).theta.size
    kept = {"dsf": 4, "ddsf": 1}.get(name, 0)
    moved = {what: counts.transformer(name, what, size, "float64", 5.0).values for what in ("forward", "vjp")}
    assert moved["forward"] == 1 + theta + 2 + kept
    # a mixture's VJP reads y again, an affine map's not its shift
    read = {"mog": 1, "affine": -1}.get(name, 0)
    assert moved["vjp"] == 1 + theta + kept + read + 2 + 1 + theta
    assert counts.transformer(name, "inverse", size, "float64", 5.0).values == 1 + theta + 3


def test_evaluations_of_an_inverse_are_counted(part):
    cases, kernels = part("cases"), part("device_kernels")
    easy = cases.inputs("dsf", 1, 50, "float64", units=1)
    count = kernels.evaluations(easy)
    # of one unit the bracket is the root
    assert 1 <= count <= 3 < kernels.evaluations(cases.inputs("dsf", 1, 50, "float64", units=16)) < 30


@pytest.mark.peers
def test_torch_runs_the_same_flow_and_its_failures_are_told(part, monkeypatch):
    pytest.importorskip("torch")
    work, torch_part = part("work"), part("device_torch")
    run = work.Run(None, "command", True, True)
    run.sizes = dataclasses.replace(run.sizes, flows=2, models=("maf-ddsf",))
    compiled = torch_part._compiled

    def failing(layer, options):
        if options:
            raise RuntimeError("no graphs here")
        return compiled(layer, options)

    monkeypatch.setattr(torch_part, "_compiled", failing)
    run.steps(np.inf)
    for row in run.step_rows:
        assert list(row.seconds) == ["refnaf", "torch eager", "torch.compile"]
        assert list(row.failed) == [torch_part.GRAPHS] and row.ratio > 0
    assert len(run.step_rows) == 2 and run.wrong
    assert sum("RuntimeError: no graphs here" in note for note in run.notes) == 2
