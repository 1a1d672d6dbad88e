"""The accuracy that is promised, on some hundreds of sets; that the measure sees errors; that the bounds bind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from refnaf.reference import ddsf
from refnaf.reference import dsf as reference_dsf
from refnaf.reference import mixture as reference_mixture
from refnaf.verify import accuracy, accuracy_sets, oracle
from refnaf.verify.accuracy import IMPLEMENTATIONS, format_report, report
from refnaf.verify.accuracy_sets import EXPONENTS, OBJECTS, draw
from refnaf.verify.condition import conditions
from refnaf.verify.precision import rounded


@pytest.fixture(scope="module")
def rows():
    return report(samples=150)


def test_everything_is_measured(rows):
    expected = [
        (name, dtype, key) for name in OBJECTS for dtype in EXPONENTS for key in IMPLEMENTATIONS if dtype in
        IMPLEMENTATIONS[key][1]
    ]  # fmt: skip
    assert [(row.object, row.dtype, row.implementation) for row in rows] == expected
    assert all(row.sets == 150 and row.beyond <= 15 and row.well >= 100 for row in rows)


def test_bounds_are_kept(rows):
    assert [row for row in rows if not row.ok] == []


#: Raw terms of W and c that stand far from each other and whose sums, or whose differences, do not.
FAR = {
    "one unit outweighs the others": ([0.0, -340.0, -340.0, -340.0], [-300.0, 0.0, 0.0, 0.0]),
    "all terms are large": ([0.0] * 4, [400.0] * 4),
}


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("key", IMPLEMENTATIONS)
def test_large_raw_weights(key, far):
    rng = np.random.default_rng(0)
    x, theta = rng.normal(size=100), rng.normal(size=(2 * 12 + 4, 100))
    in_matrix, in_row = (np.array(values) for values in FAR[far])
    matrices = [rng.normal(size=shape) + in_matrix for shape in ((4, 4), (4, 4), (1, 4))]
    for _, _, w, u in ddsf.split(theta, 4, 2):
        w += in_row[:, None]
        if u is not None:
            u += in_row[:, None]
    batch = accuracy_sets.Batch(x, theta, matrices)
    y = np.asarray(IMPLEMENTATIONS[key][0](batch, "ddsf", {})[0])
    true = rounded(oracle.ddsf(x, theta, *matrices, digits=30)[0])
    condition = conditions("ddsf", x, theta, matrices, {}, 2.0**-52)[0]
    error = np.abs(y - true) / np.spacing(np.maximum(1, np.abs(true))) / np.maximum(1, condition)
    assert np.max(error) <= 4


def test_a_report_says_what_is_not_within_bounds(rows):
    text = format_report(rows)
    assert len([line for line in text.splitlines() if line.startswith(tuple(OBJECTS))]) == len(rows)
    assert "NOT" not in text
    worse = dataclasses.replace(rows[0], value=4.1)
    assert not worse.ok and not dataclasses.replace(rows[0], slope=2e-13).ok
    assert "NOT within bounds" in format_report([worse]) and worse.worst in format_report([worse])


def test_what_is_refused():
    with pytest.raises(ValueError, match="float64 and float32, not 'float16'"):
        report(dtype="float16")
    with pytest.raises(ValueError, match="at least one set"):
        report(samples=0)


def _with(monkeypatch, function):
    monkeypatch.setattr(accuracy, "IMPLEMENTATIONS", {"planted": (function, ("float64",))})
    monkeypatch.setattr(accuracy, "OBJECTS", {"dsf": OBJECTS["dsf"]})
    (row,) = report(samples=300, dtype="float64")
    return row


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda y, s: (y * (1 + 2e-15), s), id="value"),
        pytest.param(lambda y, s: (y, s + 1e-12), id="slope"),
        pytest.param(lambda y, s: (np.where(y > 40, np.inf, y), s), id="overflow"),
        pytest.param(lambda y, s: (np.where(y > 40, np.nan, y), s), id="nan"),
        pytest.param(lambda y, s: (y.astype(np.float32), s), id="float32"),
    ],
)
def test_planted_errors_are_seen(monkeypatch, change):
    row = _with(monkeypatch, lambda batch, name, options: change(*reference_dsf.dsf(batch.x, batch.theta)))
    assert not row.ok and "x=" in row.worst


def test_the_naive_formula_is_not_within_bounds(monkeypatch):
    def naive(batch, name, options):
        a, b, log_w = reference_dsf.constrain(batch.theta)
        units = 1 / (1 + np.exp(-(a * batch.x + b)))
        mixture = np.sum(np.exp(log_w) * units, axis=0)
        slope = np.sum(np.exp(log_w) * a * units * (1 - units), axis=0) / (mixture * (1 - mixture))
        return np.log(mixture / (1 - mixture)), np.log(slope)

    row = _with(monkeypatch, naive)
    assert not row.ok and row.value > 1e6


def test_the_condition_of_a_mixture_is_what_changes_do_to_the_value():
    rng = np.random.default_rng(0)
    x, theta = rng.normal(size=200), rng.normal(size=(9, 200))
    condition, slope_condition = conditions("mog", x, theta, [], {}, 2.0**-52)
    y, log_slope = reference_mixture.mog(x, theta)
    size = 1e-7
    for seed in range(20):
        e_x, *e = np.split(np.random.default_rng(seed).choice([-size, size], (13, 200)), [1, 4, 7, 10])
        changed = np.concatenate([theta[:6], theta[6:] * (1 + e[2])])
        log_w, mean, log_scale = reference_mixture.constrain(changed)
        log_w = log_w + e[0] * (1 + theta[:3].max(axis=0) - theta[:3])
        log_scale = log_scale + e[3] * (1 + np.abs(log_scale))
        moved = reference_mixture.mixture_quantile(x * (1 + e_x[0]), log_w, mean * (1 + e[1]), log_scale)
        assert (np.abs(moved[0] - y) <= 1.01 * size * condition * np.maximum(1, np.abs(y))).all()
        bound = 1.01 * size * slope_condition * np.maximum(1, np.abs(log_slope))
        assert (np.abs(moved[1] - log_slope) <= bound).all()
    assert np.median(condition) < 8


def test_the_condition_is_what_changes_do_to_the_value():
    rng = np.random.default_rng(0)
    x, theta = rng.normal(size=200), rng.normal(size=(9, 200))
    condition, slope_condition = conditions("dsf", x, theta, [], {}, 2.0**-52)
    y, log_slope = reference_dsf.dsf(x, theta)
    size = 1e-7
    for seed in range(20):
        signs = np.random.default_rng(seed).choice([-size, size], (10, 200))
        reach = np.concatenate([np.abs(theta[:6]), 1 + theta[6:].max(axis=0) - theta[6:]])
        moved = reference_dsf.dsf(x * (1 + signs[0]), theta + signs[1:] * reach)
        # to first order, and the derivatives' own rounding
        assert (np.abs(moved[0] - y) <= 1.01 * size * condition * np.maximum(1, np.abs(y))).all()
        bound = 1.01 * size * slope_condition * np.maximum(1, np.abs(log_slope))
        assert (np.abs(moved[1] - log_slope) <= bound).all()
    assert np.median(condition) < 6


def test_cancellation_and_tails_have_the_conditions_they_should():
    theta = np.zeros((3, 2))
    theta[1] = -1e8, 0.0
    x = np.array([1e8, 1e200])
    condition, _ = conditions("dsf", x, theta, [], {}, 2.0**-52)
    # one unit of slope 1: y = x + b, off by eps 1e8 (x, raw a, a and b) at y = 0, and by a few eps of y far out
    assert 3e8 - 1e6 <= condition[0] <= 4.2e8
    assert 2 <= condition[1] <= 3.1


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_sets_are_of_all_kinds_and_the_same_again(dtype):
    batches = list(draw("ddsf", 700, 3, dtype))
    again = list(draw("ddsf", 700, 3, dtype))
    assert sum(len(batch.x) for batch in batches) == 700
    for one, other in zip(batches, again, strict=True):
        assert one.x.dtype == one.theta.dtype == np.dtype(dtype)
        for a, b in zip((one.x, one.theta, *one.matrices), (other.x, other.theta, *other.matrices), strict=True):
            np.testing.assert_array_equal(a, b)
    x = np.concatenate([batch.x for batch in batches]).astype(np.float64)
    exponent = EXPONENTS[dtype]
    assert np.abs(x).max() > 10 ** (0.9 * exponent) and np.isfinite(x).all()
    assert np.abs(x[x != 0]).min() < 10 ** (-0.9 * exponent) and (x == 0).any()
    assert not np.array_equal(batches[0].x, next(draw("ddsf", 700, 4, dtype)).x)
    assert {(len(b.theta), len(b.matrices)) for b in batches} == {
        (ddsf.parameter_count(d, layers), 2 * layers - 1) for d, layers in OBJECTS["ddsf"].sizes
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_bounds_are_kept_on_more_sets(seed):
    assert [row for row in report(samples=1500, seed=seed) if not row.ok] == []
