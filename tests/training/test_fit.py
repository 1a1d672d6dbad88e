"""Training as its user sees it: results, the same bytes, recovery, early stopping, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import refnaf
from refnaf.flows import model_options
from refnaf.objective import NegativeLogLikelihood
from refnaf.training import loop
from refnaf.training.adam import Adam
from refnaf.training.data import discrete_columns, location_and_scale, split_rows

SMALL = {"flows": 2, "hidden": (8,), "units": 4}


def banana(n=600, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[:, 1] = 10 + 3 * x[:, 0] ** 2 + 0.3 * x[:, 1]
    return x


def saved(flow, path):
    flow.save(path)
    return path.read_bytes()


def test_a_fit_learns_what_a_gaussian_cannot():
    x, held = banana(2000), banana(1000, seed=1)
    gaussian = refnaf.fit(x, "gaussian").log_prob(held).mean()
    flow = refnaf.fit(x, "maf-ddsf", epochs=25, **SMALL)
    truth = np.mean(-0.5 * held[:, 0] ** 2 - 0.5 * ((held[:, 1] - 10 - 3 * held[:, 0] ** 2) / 0.3) ** 2)
    truth += -np.log(2 * np.pi) - np.log(0.3)
    score = flow.log_prob(held).mean()
    assert gaussian + 0.8 < score < truth + 0.05
    assert truth - 0.25 < score
    assert [e["epoch"] for e in flow.history] == sorted(e["epoch"] for e in flow.history)


@pytest.mark.parametrize("model", [m for m in refnaf.models() if m != "gaussian"])
def test_every_model_can_be_fitted(model):
    options = {k: v for k, v in SMALL.items() if k in model_options(model)}
    if model == "planar":
        options["flows"] = 8  # each bends the plane only once
    flow = refnaf.fit(banana(300), model, epochs=8, batch_size=64, **options)
    start = flow.replace(refnaf.build(model, 2, **options).params)
    held = banana(300, seed=1)
    assert flow.log_prob(held).mean() > start.log_prob(held).mean()


def test_a_context_is_learnt():
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, size=(1500, 1))
    x = 5 * c + 0.1 * rng.normal(size=(1500, 1))
    for model in ("gaussian", "maf-dsf"):
        options = {} if model == "gaussian" else {**SMALL, "epochs": 15}
        flow = refnaf.fit(x, model, context=c, **options)
        truth = np.mean(-0.5 * ((x - 5 * c) / 0.1) ** 2) - 0.5 * np.log(2 * np.pi) - np.log(0.1)
        assert flow.log_prob(x, c).mean() > truth - 0.3
        assert flow.sample(200, context=np.ones((1, 1))).mean() == pytest.approx(5, abs=0.2)


def test_the_gaussian_is_maximum_likelihood():
    x = banana(500)
    flow = refnaf.fit(x, "gaussian", validation=None, dtype="float64")
    from scipy.stats import multivariate_normal

    expected = multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(x)
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-7)


@pytest.mark.parametrize("context", [False, True])
def test_few_rows_or_a_context_are_whitened_first(context):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    x, held = (rng.normal(size=(n, 12)) @ mix for n in (120, 2000))
    given = {}
    if context:
        c, held_c = rng.normal(size=(120, 1)), rng.normal(size=(2000, 1))
        x, held, given = x + 5 * c, held + 5 * held_c, {"context": held_c}
    fitted = {"context": c} if context else {}
    gaussian = refnaf.fit(x, "gaussian", **fitted).log_prob(held, **given).mean()
    flow = refnaf.fit(x, epochs=3, **fitted, **SMALL)
    assert flow.layers[1].kind == "triangular"
    assert flow.log_prob(held, **given).mean() > gaussian - 0.4
    plain = refnaf.fit(x, epochs=3, linear=False, **fitted, **SMALL)
    assert plain.layers[1].kind == "autoregressive"
    assert plain.log_prob(held, **given).mean() < gaussian - 1
    assert refnaf.fit(banana(300), epochs=1, **SMALL).layers[1].kind == "autoregressive"


def test_the_same_seed_gives_the_same_bytes_and_threads_change_nothing(tmp_path):
    x = banana(700)
    files = [
        saved(refnaf.fit(x, epochs=3, batch_size=600, seed=seed, threads=threads, **SMALL), tmp_path / f"{k}")
        for k, (seed, threads) in enumerate([(3, 1), (3, 1), (3, 2), (4, 1)])
    ]
    assert files[0] == files[1] == files[2] != files[3]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_run_killed_anywhere_resumes_to_the_same_bytes(tmp_path, amsgrad):
    options = {"epochs": 8, "batch_size": 64, "amsgrad": amsgrad, **SMALL}
    x, path = banana(400), tmp_path / "checkpoint"
    whole = saved(refnaf.fit(x, **options), tmp_path / "whole")
    for kill_at in (3, 23, 38):
        path.unlink(missing_ok=True)

        def kill(event, kill_at=kill_at):
            if event["kind"] == "step" and event["step"] == kill_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            refnaf.fit(x, checkpoint=path, progress=kill, **options)
        messages = []
        again = refnaf.fit(x, checkpoint=path, resume=True, progress=messages.append, **options)
        assert saved(again, tmp_path / "again") == whole
        assert any("resumed" in m.get("text", "") for m in messages) == path.exists() or kill_at == 3


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    refnaf.fit(banana(200), epochs=1, checkpoint=path, **SMALL)
    for other in ({"seed": 1}, {"epochs": 2}, {"hidden": (9,)}):
        with pytest.raises(ValueError, match="another run"):
            refnaf.fit(banana(200), checkpoint=path, resume=True, **{"epochs": 1, **SMALL, **other})
    with pytest.raises(ValueError, match="training"):
        refnaf.fit(banana(200, seed=5), epochs=1, checkpoint=path, resume=True, **SMALL)


def test_a_step_that_is_not_finite_is_left_out_and_after_two_the_best_is_taken(monkeypatch):
    honest = NegativeLogLikelihood.__call__
    calls = []

    def sometimes(self, flat, x, context):
        loss, grad = honest(self, flat, x, context)
        calls.append(flat.copy())
        if len(calls) in (7, 8):
            return float("nan"), grad
        if len(calls) == 12:
            grad = np.full_like(grad, np.inf)
        return loss, grad

    restart, restarts = Adam.restart, []
    monkeypatch.setattr(Adam, "restart", lambda self, flat: (restarts.append(flat.copy()), restart(self, flat)))
    monkeypatch.setattr(NegativeLogLikelihood, "__call__", sometimes)
    messages = []
    flow = refnaf.fit(banana(300), epochs=6, batch_size=64, progress=messages.append, **SMALL)
    texts = [m["text"] for m in messages if m["kind"] == "message"]
    assert sum("left out" in text for text in texts) == 2
    assert sum("back to the best" in text for text in texts) == 1
    assert flow.provenance["training"]["failed_steps"] == 3
    assert np.isfinite(flow.log_prob(banana(10))).all()
    # one bad loss may be the batch's own; after two in a row the numbers go back to those of the last evaluation
    np.testing.assert_array_equal(calls[7], calls[6])
    np.testing.assert_array_equal(calls[8], restarts[0])


def test_a_run_that_keeps_failing_stops_with_the_best_model(monkeypatch):
    honest = NegativeLogLikelihood.__call__
    calls = []

    def until(self, flat, x, context):
        calls.append(1)
        loss, grad = honest(self, flat, x, context)
        return (loss if len(calls) < 60 else float("inf")), grad

    monkeypatch.setattr(NegativeLogLikelihood, "__call__", until)
    flow = refnaf.fit(banana(300), epochs=30, batch_size=64, **SMALL)
    record = flow.provenance["training"]
    assert record["failed"] and "not finite" in record["stopped"] and record["best_epoch"] > 0


def test_a_hopeless_learning_rate_never_makes_it_worse_than_the_start():
    flow = refnaf.fit(banana(300), "maf", epochs=10, learning_rate=1e6, hidden=(8,))
    start = flow.replace(refnaf.build("maf", 2, hidden=(8,)).params)
    held = banana(200, seed=1)
    assert flow.log_prob(held).mean() >= start.log_prob(held).mean() - 0.1


def test_early_stopping_keeps_the_best(tmp_path):
    x = banana(60)
    flow = refnaf.fit(x, epochs=2000, patience=3, learning_rate=0.05, **SMALL)
    record = flow.provenance["training"]
    assert "no improvement" in record["stopped"] and record["epochs"] < 2000
    scores = [e["validation"] for e in flow.history]
    assert record["best_epoch"] == flow.history[int(np.argmax(scores))]["epoch"]
    assert flow.provenance["scores"]["validation"][0] == pytest.approx(max(scores), abs=1e-4)


def test_time_limits_are_kept():
    flow = refnaf.fit(banana(300), max_time=0.3, epochs=1e6, **SMALL)
    assert "time limit" in flow.provenance["training"]["stopped"]


def test_without_validation_all_rows_train():
    flow = refnaf.fit(banana(100), validation=None, epochs=2, **SMALL)
    assert flow.provenance["training"]["rows"] == 100
    assert all(e["validation"] is None for e in flow.history)


def test_validation_rows_of_ones_own():
    flow = refnaf.fit(banana(100), validation=banana(50, seed=1), epochs=1, **SMALL)
    assert flow.provenance["training"]["validation_rows"] == 50
    with pytest.raises(ValueError, match="2 columns"):
        refnaf.fit(banana(100), validation=np.zeros((5, 3)))


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (np.full((50, 2), np.nan), {}, "NaN or infinity in 50 of 50 rows"),
        (np.ones((50, 2)), {}, "constant columns"),
        (banana(5), {}, "too few"),
        (banana(50).astype(complex), {}, "real numbers"),
        (np.array([["a"] * 2] * 50), {}, "real numbers"),
        (np.zeros((0, 2)), {}, "at least one row"),
        (np.zeros((2, 2, 2)), {}, "3 dimensions"),
        (banana(50), {"context": np.zeros((3, 1))}, "one context row for each of the 50 rows"),
        (banana(50), {"context": np.zeros((50, 1))}, "constant"),
        (banana(50), {"validation": 1.5}, "fraction"),
        (banana(50), {"epochs": 0}, "epochs"),
        (banana(50), {"batch_size": 0}, "batch_size"),
        (banana(50), {"learning_rate": -1}, "learning_rate"),
        (banana(50), {"model": "naf"}, "model must be"),
    ],
)
def test_bad_input_is_refused_in_one_line(x, options, says):
    with pytest.raises(ValueError, match=says) as caught:
        refnaf.fit(x, **options)
    assert "\n" not in str(caught.value)


def test_nonfinite_rows_can_be_dropped():
    x = banana(100)
    x[[3, 50], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 of 100 rows \(rows 3, 50,"):
        refnaf.fit(x)
    with pytest.warns(refnaf.DataWarning, match="2 of 100 rows"):
        flow = refnaf.fit(x, epochs=1, drop_nonfinite=True, **SMALL)
    assert flow.provenance["data"]["rows"] == 98


def test_discrete_columns_are_pointed_out():
    x = banana(400)
    x[:, 0] = np.round(x[:, 0])
    assert discrete_columns(x) == [0]
    with pytest.warns(refnaf.DataWarning, match="columns 0 look discrete"):
        refnaf.fit(x, epochs=1, **SMALL)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_values_heavy_tails_and_duplicates_work(dtype):
    rng = np.random.default_rng(0)
    x = banana(400)
    x[:, 1] = rng.standard_cauchy(400) * 1e29
    x[0, 1] = 1e30
    x[200:] = x[:200]
    flow = refnaf.fit(x, epochs=3, dtype=dtype, **SMALL)
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isfinite(flow.sample(100)).all()


def test_integers_big_endian_and_fortran_order_give_the_same_fit(tmp_path):
    whole = np.round(banana(300) * 100)
    expected = saved(refnaf.fit(whole, epochs=1, **SMALL), tmp_path / "a")
    for same in (whole.astype(np.int64), whole.astype(">f8"), np.asfortranarray(whole)):
        assert saved(refnaf.fit(same, epochs=1, **SMALL), tmp_path / "b") == expected


def test_one_column(tmp_path):
    flow = refnaf.fit(banana(300)[:, 0], epochs=2, **SMALL)
    assert flow.dim == 1 and flow.log_prob(np.zeros(3)).shape == (3,)


def test_splits_are_disjoint_and_whole():
    parts = split_rows(103, seed=4)
    assert sorted(np.concatenate(parts).tolist()) == list(range(103))
    assert [len(p) for p in parts] == [84, 9, 10]
    with pytest.raises(ValueError, match="fraction"):
        split_rows(10, test=1.0)


def test_standardisation_survives_any_magnitude():
    for size in (1e-300, 1e-30, 1.0, 1e30, 1e300):
        mean, scale = location_and_scale(size * banana(100))
        assert np.isfinite(mean).all() and (scale > 0).all()
        np.testing.assert_allclose(scale / size, banana(100).std(axis=0), rtol=1e-12)


def test_plans_fit_the_data():
    for rows in (10, 1000, 20_000, 2_000_000):
        plan = loop.Plan.choose(
            rows,
            6,
            validated=True,
            epochs=None,
            max_time=None,
            patience=None,
            batch_size=None,
            learning_rate=None,
            weight_decay=None,
            amsgrad=False,
            clip=10.0,
            averaging=None,
            seed=0,
        )
        assert 1 <= plan.batch_size <= rows and plan.every <= plan.steps
        rates = [plan.rate(k) for k in range(0, plan.steps, max(plan.steps // 50, 1))]
        assert max(rates) <= plan.learning_rate and rates[-1] < 0.1 * plan.learning_rate


def test_no_warning_escapes_an_ordinary_fit():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refnaf.fit(banana(200), epochs=1, **SMALL)
