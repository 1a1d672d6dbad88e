"""The conformance kit on flows that are right, on partial ones, and on bad use; its report and its instruments."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest

import refnaf
from refnaf.flows.chain import base_log_prob
from refnaf.verify import assert_conforms, check_flow
from refnaf.verify.conformance import CHECKS
from refnaf.verify.conformance_returns import sample_signature
from refnaf.verify.cubature import integrate
from refnaf.verify.derivatives import jacobian, triangular_order
from tests.cases import CASES, make
from tests.verify.planted import Planted

SHAPES = {(1, 0), (2, 0), (3, 2)}
#: Every model, in three shapes, by its first case of each.
SMALL = list(
    {
        (c.model, c.dim, c.context_dim): n for n, c in reversed(CASES.items()) if (c.dim, c.context_dim) in SHAPES
    }.values()
)
#: The names of each model's cases.
SHAPES_OF = {CASES[name].model: [n for n in SMALL if CASES[n].model == CASES[name].model] for name in SMALL}
QUICK = [
    name for name in SMALL if CASES[name].dim == (1 if "ddsf" in name else 2) or name.startswith(("maf", "planar"))
]
SETTINGS = {"rows": 600}


def gaussian(scale=2.0):
    """A flow in one dimension, as functions."""

    def forward(x):
        return x / scale, np.full(len(x), -np.log(scale))

    return {
        "forward": forward,
        "inverse": lambda z: (z * scale, np.full(len(z), np.log(scale))),
        "log_prob": lambda x: base_log_prob(forward(x)[0].T) + forward(x)[1],
        "sample": lambda n, rng: scale * rng.normal(size=(n, 1)),
    }


def conforms(case, seed, **options):
    flow = make(case, dtype=options.get("dtype", "float64"), seed=seed)
    report = check_flow(flow, context_dim=case.context_dim, seed=seed, **SETTINGS, **options)
    assert report.ok, report
    return report


@pytest.mark.parametrize("name", QUICK)
def test_models_conform(name):
    report = conforms(CASES[name], 1)
    assert {r.status for r in report} <= {"passed", "skipped", "inconclusive"}
    assert sum(r.status == "inconclusive" for r in report) <= 1


@pytest.mark.parametrize("name", ["gaussian-D2", "maf-dsf-D1-C2-units=5"])
def test_models_conform_in_float32(name):
    conforms(CASES[name], 2, dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("model", SHAPES_OF)
def test_no_false_alarm_in_a_hundred_seeds(model):
    """Shapes are taken in turn: every seed is another flow, of one of them."""
    for seed in range(100):
        conforms(CASES[SHAPES_OF[model][seed % len(SHAPES_OF[model])]], seed)


@pytest.mark.parametrize("bug", [None, "relu (correct)", "reflected (correct)"])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_the_planted_flow_without_a_bug_conforms(bug, context_dim):
    assert_conforms(Planted(bug, context_dim), dim=3, context_dim=context_dim, **SETTINGS)


def test_a_report():
    report = check_flow(gaussian(), dim=1, **SETTINGS)
    assert report.ok, report
    assert not report.failed
    assert [result.name for result in report] == list(CHECKS)
    assert len(report) == len(CHECKS)
    assert report["context"].status == "skipped"
    assert report["normalisation"].value < report["normalisation"].limit
    assert "conforms: " in str(report)
    assert all(name in str(report) for name in CHECKS)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    with pytest.raises(KeyError, match="no check 'wings'"):
        report["wings"]


def test_a_failure_is_told():
    flow = gaussian() | {"log_prob": lambda x: np.zeros(len(x))}
    report = check_flow(flow, dim=1, **SETTINGS)
    assert not report.ok
    failure = report["log_prob"]
    assert failure in report.failed
    assert failure.value > failure.limit
    for text in (failure.detail, failure.where, failure.cause):
        assert text
        assert " ".join(text.split()) in " ".join(str(report).split())
    assert "does not conform" in str(report)
    with pytest.raises(AssertionError, match="log_prob is 0"):
        assert_conforms(flow, dim=1, **SETTINGS)


def test_the_same_seed_makes_the_same_report():
    assert str(check_flow(gaussian(), dim=1, seed=3, **SETTINGS)) == str(
        check_flow(gaussian(), dim=1, seed=3, **SETTINGS)
    )
    assert str(check_flow(gaussian(), dim=1, seed=3, **SETTINGS)) != str(
        check_flow(gaussian(), dim=1, seed=4, **SETTINGS)
    )


def test_ways_to_hand_over_a_flow():
    functions = gaussian()
    names = {"checks": ["round trip", "log_prob"], "dim": 1}
    whole = str(check_flow(functions, **names))
    assert str(check_flow(types.SimpleNamespace(**functions), **names)) == whole
    assert str(check_flow(**functions, **names)) == whole
    flow = refnaf.build("maf", 2, dtype="float64")
    assert check_flow(flow, checks=["round trip"]).ok
    alone = check_flow(functions["forward"], dim=1, **SETTINGS)
    assert alone.ok, alone
    assert alone["round trip"].status == alone["samples"].status == "skipped"


@pytest.mark.parametrize("name", ["maf-D1", "gaussian-D2"])
def test_without_forward(name):
    flow = make(CASES[name])
    report = check_flow(log_prob=flow.log_prob, sample=flow.sample, dim=flow.dim, rows=2000)
    assert report.ok, report
    assert report["normalisation"].status == report["samples"].status == "passed"
    assert report["log-determinant"].detail == "no forward was given"
    wrong = check_flow(log_prob=lambda x: flow.log_prob(x) - 0.1, sample=flow.sample, dim=flow.dim, rows=2000)
    assert [r.name for r in wrong.failed] == ["normalisation"]
    wide = check_flow(
        log_prob=flow.log_prob, sample=lambda n, seed: 1.3 * flow.sample(n, seed), dim=flow.dim, rows=2000
    )
    assert [r.name for r in wide.failed] == ["samples"]


def test_log_prob_alone_beyond_two_dimensions():
    flow = make(CASES["gaussian-D4"])
    report = check_flow(log_prob=flow.log_prob, sample=flow.sample, dim=4, rows=2000)
    assert report.ok, report
    assert "importance sampling" in report["normalisation"].detail
    assert check_flow(log_prob=flow.log_prob, dim=4)["normalisation"].status == "inconclusive"
    wrong = check_flow(log_prob=lambda x: flow.log_prob(x) + 0.2, sample=flow.sample, dim=4, rows=2000)
    assert "normalisation" in [r.name for r in wrong.failed]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (lambda n: 0, (None, "seed")),
        (lambda n, rng: 0, ("=rng", "rng")),
        (lambda n, *, generator=None: 0, ("=generator", "rng")),
        (lambda n, seed=0, context=None: 0, ("=seed", "seed")),
        (lambda n, key: 0, ("=key", "seed")),
        (lambda n, s: 0, ("s", "seed")),
        (lambda n, context: 0, (None, "seed")),
        (lambda n, temperature=1.0: 0, (None, "seed")),
    ],
)
def test_how_sample_is_called(sample, expected):
    assert sample_signature(sample) == expected


def test_autoregressive_flows():
    flow = make(CASES["maf-D2"])
    assert check_flow(flow, checks=["triangular"]).ok
    report = check_flow(flow, autoregressive=True, checks=["triangular"])
    assert "x_0, x_1 depend on each other" in report["triangular"].detail
    single = Planted(layers=1)
    assert check_flow(single, dim=3, autoregressive=[0, 1, 2], checks=["triangular"]).ok
    report = check_flow(single, dim=3, autoregressive=[2, 1, 0], checks=["triangular"])
    assert "x_0, which comes after x_1" in report["triangular"].detail
    reflected = Planted("reflected (correct)", layers=1)
    assert check_flow(reflected, dim=3, checks=["positive diagonal"]).ok
    assert not check_flow(reflected, dim=3, autoregressive=True, checks=["positive diagonal"]).ok


def test_limits_that_are_no_errors_are_noted():
    flow = gaussian()

    def forward(x):
        if len(x) == 0:
            raise IndexError("no rows")
        return flow["forward"](x)

    report = check_flow(flow | {"forward": forward}, dim=1, **SETTINGS)
    assert report.ok, report
    assert report["empty batch"].status == "noted"
    assert "no rows" in report["empty batch"].detail
    assert "1 noted" in str(report)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": None}, "pass dim="),
        ({"dim": 0}, "pass dim="),
        ({"dtype": "int32"}, "float32 or float64"),
        ({"rows": 10}, "at least 200 rows"),
        ({"checks": ["wings"]}, "got 'wings'"),
        ({"checks": []}, "got 'none'"),
        ({"context": np.zeros(3)}, "must have shape"),
        ({"context_dim": -1}, "negative"),
        ({"scale": 0.0}, "scale positive"),
        ({"tolerance": 2.0}, "tolerance"),
        ({"autoregressive": [1, 2]}, "an order of 0..0"),
        ({"forward": None}, "without any of them"),
        ({"forward": 3}, "without any of them"),
        ({"forward": {"backward": abs}}, "not 'backward'"),
        ({"forward": {"forward": 3}}, "must be a function"),
    ],
)
def test_bad_use_is_refused(options, words):
    arguments = {"forward": gaussian(), "dim": 1, **options}
    with pytest.raises(ValueError, match=words):
        check_flow(arguments.pop("forward"), **arguments)


def test_numerical_jacobians_bound_their_error():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 4))

    def network(x, context):  # piecewise linear, with kinks
        return np.maximum(x @ a.T, 0) @ b.T + np.sin(x)

    x = rng.normal(size=(50, 3))
    true = np.einsum("ih,nh,hj->nij", b, x @ a.T > 0, a) + np.cos(x)[:, :, None] * np.eye(3)
    found, error = jacobian(network, x, None, np.ones_like(x), 1e-16, np.dtype(np.float64))
    assert np.all(np.abs(found - true) <= error + 1e-14)
    assert np.median(error) < 1e-9


def test_orders_are_found():
    lower = np.tril(np.ones((4, 4), bool))
    assert triangular_order(lower) == ([(0, 0), (1, 1), (2, 2), (3, 3)], [])
    rows, columns = np.array([2, 0, 3, 1]), np.array([1, 3, 0, 2])
    pairs, left = triangular_order(lower[rows][:, columns])
    assert left == []
    assert [columns[j] for _, j in pairs] == [0, 1, 2, 3]
    dense = np.ones((2, 2), bool)
    assert triangular_order(dense) == ([], [0, 1])


@pytest.mark.parametrize("power", [1.0, 5.0, 8.0])
def test_cubature_follows_the_points_far_out(power):
    """x = sinh(p v) / p of a normal v: at p = 5 two in a thousand rows are more than 1e6 away."""
    v = np.random.default_rng(2).normal(size=(2000, 1))

    def density(x):
        v = np.arcsinh(power * x) / power
        return np.exp(base_log_prob(v.T)) / np.sqrt(1 + (power * x[:, 0]) ** 2)

    mass, error = integrate(density, np.zeros(1), np.ones(1), np.sinh(power * v) / power, 20_000, 2e-6)
    assert abs(mass - 1) <= 1e-4 + error


@pytest.mark.parametrize("width", [1e-4, 1.0, 50.0])
def test_cubature_finds_narrow_modes_and_ridges(width):
    rng = np.random.default_rng(1)
    t = rng.normal(size=(2000, 2))
    points = np.column_stack([t[:, 0], 3 * t[:, 0] ** 2 + width * t[:, 1]])

    def density(x):
        z = np.column_stack([x[:, 0], (x[:, 1] - 3 * x[:, 0] ** 2) / width])
        return np.exp(base_log_prob(z.T)) / width

    mass, error = integrate(density, np.zeros(2), np.ones(2), points, 400_000, 2e-6)
    assert abs(mass - 1) <= 1e-4 + error
