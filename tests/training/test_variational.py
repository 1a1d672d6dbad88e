"""Variational inference as its user sees it: targets found, the same bytes, recovery, warnings, refusals."""

from __future__ import annotations

import warnings

import autograd.numpy as anp
import numpy as np
import pytest

import refnaf
from refnaf.objective import FreeEnergy
from refnaf.training import variational
from tests.refusals import refusal

SMALL = {"flows": 2, "hidden": (8,), "units": 4}
LOG_Z = 3.7


def gaussian(x):
    """A correlated normal about (1, -0.5), normalised, plus LOG_Z."""
    a = (x[:, 0] - 1) / 0.5
    b = (x[:, 1] + 0.5 - 0.8 * (x[:, 0] - 1)) / 0.7
    return -0.5 * (a**2 + b**2) - np.log(2 * np.pi * 0.5 * 0.7) + LOG_Z


def mixture(x):
    """A third of the mass about -3, the rest about 2, in two dimensions, plus LOG_Z."""
    left = -0.5 * anp.sum((x + 3) ** 2, axis=1) + np.log(1 / 3)
    right = -0.5 * anp.sum(((x - 2) / 0.7) ** 2, axis=1) + np.log(2 / 3) - 2 * np.log(0.7)
    return anp.logaddexp(left, right) - np.log(2 * np.pi) + LOG_Z


def options_of(model):
    return {k: v for k, v in SMALL.items() if k in refnaf.flows.model_options(model)}


def divergence(flow, log_density, seed=77):
    x, log_q = flow.sample(20_000, seed=seed, return_log_prob=True)
    return np.mean(log_q - log_density(x)) + LOG_Z


def saved(flow, path):
    flow.save(path)
    return path.read_bytes()


def quick(seed=0, log_density=gaussian, model="iaf-dsf", **given):
    """A run too short for its weights to be trusted."""
    settings = {"steps": 40, "batch_size": 32, "samples": 1000, "seed": seed, **options_of(model), **given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnaf.DataWarning)
        return refnaf.fit_variational(log_density, 2, model, **settings)


@pytest.mark.parametrize("model", ["gaussian", "maf", "iaf", "iaf-dsf"])
def test_a_gaussian_is_recovered(model):
    rate = 0.1 if model == "gaussian" else 0.03
    flow = refnaf.fit_variational(
        gaussian, 2, model, steps=500, batch_size=64, learning_rate=rate, samples=5000, **options_of(model)
    )
    assert divergence(flow, gaussian) < 0.01
    scores, found = flow.provenance["scores"], flow.provenance["importance"]
    assert abs(scores["log_normaliser"][0] - LOG_Z) < 3 * scores["log_normaliser"][1]
    assert abs(scores["elbo"][0] - LOG_Z + divergence(flow, gaussian)) < 4 * scores["elbo"][1] + 1e-3
    assert found["samples"] == 5000 and found["ess"] > 4500 and found["lost"] == 0
    x = flow.sample(20_000, seed=5)
    np.testing.assert_allclose(x.mean(axis=0), [1, -0.5], atol=0.1)
    np.testing.assert_allclose(np.cov(x.T), [[0.25, 0.2], [0.2, 0.65]], atol=0.07)


def test_path_derivatives_end_nearer():
    plain, path = (
        refnaf.fit_variational(
            gaussian, 2, "gaussian", steps=600, batch_size=32, learning_rate=0.1, samples=1000, path_derivative=chosen
        )
        for chosen in (False, True)
    )
    assert abs(divergence(path, gaussian)) < 5e-5 < 1e-4 < divergence(plain, gaussian) < 1e-3
    assert path.provenance["training"]["path_derivative"] is True


def test_path_derivatives_wait_for_the_second_half(monkeypatch):
    # far from the target they can have any variance, and lead a flow away
    honest = FreeEnergy.__call__
    found = []
    monkeypatch.setattr(
        FreeEnergy, "__call__", lambda self, *args, path: found.append(path) or honest(self, *args, path=path)
    )
    quick(steps=10, path_derivative=True)
    quick(steps=10)
    assert found == [False] * 5 + [True] * 5 + [False] * 10


def test_both_modes_of_a_mixture():
    flow = refnaf.fit_variational(
        mixture, 2, "iaf-dsf", steps=800, batch_size=128, learning_rate=2e-2, anneal=0.6, flows=2, hidden=(16,), units=8
    )
    value, error = flow.provenance["scores"]["log_normaliser"]
    assert abs(value - LOG_Z) < 3 * error and error < 0.02
    assert divergence(flow, mixture) < 0.1
    assert np.mean(flow.sample(5000, seed=3).sum(axis=1) < -1) == pytest.approx(1 / 3, abs=0.15)


def test_the_same_seed_gives_the_same_bytes_and_threads_change_nothing(tmp_path):
    files = [
        saved(quick(seed, batch_size=600, threads=threads, steps=10), tmp_path / f"{k}")
        for k, (seed, threads) in enumerate([(3, 1), (3, 1), (3, 2), (4, 1)])
    ]
    assert files[0] == files[1] == files[2] != files[3]


def test_a_run_killed_anywhere_resumes_to_the_same_bytes(tmp_path):
    path, settings = tmp_path / "checkpoint", {"anneal": 0.5, "steps": 60}
    whole = saved(quick(**settings), tmp_path / "whole")
    for kill_at in (25, 47):
        path.unlink(missing_ok=True)

        def kill(event, kill_at=kill_at):
            if event["kind"] == "step" and event["step"] == kill_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            quick(checkpoint=path, progress=kill, **settings)
        again = quick(checkpoint=path, resume=True, **settings)
        assert saved(again, tmp_path / "again") == whole
    for other in ({"log_density": mixture}, {"anneal": 0.1}, {"path_derivative": True}, {"location": [0.0, 1.0]}):
        with pytest.raises(ValueError, match="another run"):
            quick(checkpoint=path, resume=True, **{**settings, **other})


def test_a_step_that_is_not_finite_is_left_out(monkeypatch):
    honest = FreeEnergy.__call__
    calls = []

    def sometimes(self, flat, z, beta=1.0, path=False):
        loss, gradient = honest(self, flat, z, beta, path)
        calls.append(flat.copy())
        if len(calls) == 7:
            return float("nan"), gradient
        if len(calls) == 12:
            gradient = np.full_like(gradient, np.inf)
        return loss, gradient

    monkeypatch.setattr(FreeEnergy, "__call__", sometimes)
    messages = []
    flow = quick(progress=messages.append)
    assert sum("left out" in m["text"] for m in messages if m["kind"] == "message") == 2
    assert flow.provenance["training"]["failed_steps"] == 2
    np.testing.assert_array_equal(calls[7], calls[6])


def test_a_log_density_that_gives_out_stops_the_run_with_the_best_so_far():
    calls = []

    def until(x):
        calls.append(len(x))
        return gaussian(x) * (np.nan if len(x) == 32 and len(calls) > 60 else 1)

    record = quick(log_density=until, steps=500).provenance["training"]
    assert record["failed"] and "not finite" in record["stopped"] and 0 < record["best_epoch"] <= 60
    with pytest.raises(ValueError, match="none of 1,000 log-weights is finite"):
        quick(log_density=lambda x: gaussian(x) * (np.nan if len(x) == 1000 else 1), steps=20)


def test_history_and_progress_are_as_in_fit():
    events = []
    flow = quick(steps=50, progress=events.append)
    assert [e["step"] for e in events if e["kind"] == "step"] == list(range(1, 51))
    told = [e for e in events if e["kind"] == "epoch"]
    assert [e["epoch"] for e in told] == [h["epoch"] for h in flow.history] == [20, 40, 50]
    assert set(flow.history[0]) == {"epoch", "train", "validation", "learning_rate"}
    assert told[-1]["best"] == max(h["validation"] for h in flow.history)
    assert flow.provenance["training"]["steps"] == flow.provenance["training"]["epochs"] == 50
    assert flow.provenance["seed"] == 0
    assert flow.history[-1]["validation"] > flow.history[0]["validation"]


@pytest.mark.parametrize(("error", "kept"), [(0.0, 40), (0.5, 60), (5.0, 80)])
def test_the_latest_within_a_standard_error_of_the_best_is_kept(monkeypatch, error, kept):
    scores = iter([-10.0, -3.0, -2.0, -2.4, -3.5])  # of the start, and of steps 20 to 80
    monkeypatch.setattr(variational._ReverseKL, "score", lambda self, flow: (next(scores), error))
    flow = quick(steps=80)
    assert flow.provenance["training"]["best_epoch"] == kept


def test_annealing_raises_beta_to_one():
    plan = variational.Plan(
        steps=100, batch_size=4, every=20, patience=None, learning_rate=0.1, weight_decay=0, amsgrad=False, clip=1,
        averaging=0.9, seed=0, max_time=None,
    )  # fmt: skip
    flow, target = refnaf.build("gaussian", 2), variational.Target(gaussian)
    task = variational._ReverseKL(flow, target, plan, 0.5, False, 1)
    assert [task.beta(step) for step in (0, 25, 50, 99)] == pytest.approx([0.01, 0.505, 1, 1])
    assert variational._ReverseKL(flow, target, plan, 0.0, False, 1).beta(0) == 1
    cold, hot = (task.loss(task.objective.flat(), step)[0] for step in (99, 0))
    assert cold != hot


def test_location_and_scale_place_the_base():
    flow = quick(location=[2, -1], scale=np.array([0.5, 0.8]), steps=1, model="gaussian")
    x = flow.sample(10_000)
    np.testing.assert_allclose(x.mean(axis=0), [2, -1], atol=0.05)
    np.testing.assert_allclose(x.std(axis=0), [0.5, 0.8], atol=0.05)


def test_planar_flows_sample_in_one_pass_unless_told():
    assert quick(model="planar", steps=1).layers[1].kind == "inverse"
    assert quick(model="planar", steps=1, direction="density").layers[1].kind == "planar"


def test_uneven_weights_are_warned_of():
    with pytest.warns(refnaf.DataWarning, match=r"effective size of only .* do not trust the log normaliser"):
        refnaf.fit_variational(gaussian, 2, "gaussian", steps=1, samples=1000, location=[9.0, 9.0])


def test_time_limits_are_kept():
    flow = quick(max_time=0.2, steps=10**6, model="gaussian")
    assert "time limit" in flow.provenance["training"]["stopped"]


def test_patience_stops_early():
    flow = quick(model="gaussian", steps=5000, patience=2, learning_rate=0.1)
    assert "no improvement in 2" in flow.provenance["training"]["stopped"]


def test_one_dimension():
    flow = refnaf.fit_variational(
        lambda x: -0.5 * x[:, 0] ** 2, 1, "iaf", steps=1, samples=500, dtype="float64", flows=1
    )
    assert flow.dim == 1 and flow.dtype == np.float64


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 0}, "steps must be positive"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"anneal": 1.0}, r"anneal must be a part of the steps in \[0, 1\), got 1.0"),
        ({"location": [0.0]}, "location must be 2 finite numbers"),
        ({"location": [0.0, np.nan]}, "location must be 2 finite numbers"),
        ({"scale": ["a", "b"]}, "scale must be 2 finite numbers"),
        ({"scale": [1.0, 0.0]}, "scale must be positive"),
        ({"model": "naf"}, "model must be one of"),
        ({"wings": 2}, "no option 'wings'"),
    ],
)
def test_bad_options_are_refused_in_one_line(given, says):
    model = given.pop("model", "iaf-dsf")
    with pytest.raises(ValueError, match=says) as caught:
        refnaf.fit_variational(gaussian, 2, model, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("log_density", "says"),
    [
        (3.0, "must be a function"),
        (lambda x: anp.sum(gaussian(x)), "one number a row"),
        (lambda x: np.linalg.norm(x, axis=1), "cannot be differentiated by autograd"),
        (lambda x: gaussian(x) * anp.where(x[:, 0] > 0, 1.0, np.nan), "log_density is nan at"),
        (lambda x: gaussian(x - anp.mean(x, axis=0)), "changes with the other rows"),
        (lambda x: x @ np.ones(3), "log_density failed"),
    ],
)
def test_a_log_density_that_cannot_be_used_is_refused(log_density, says):
    assert says in refusal(refnaf.fit_variational, log_density, 2, "gaussian")
