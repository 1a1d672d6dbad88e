"""The oracle against itself at other precisions, and against every model in float64."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

import refnaf
from refnaf.flows.registry import LAYERS
from refnaf.flows.transformers import TRANSFORMERS as FLOW_TRANSFORMERS
from refnaf.verify import oracle, oracle_layers
from refnaf.verify.oracle_transformers import TRANSFORMERS
from refnaf.verify.precision import mpmath, rounded, settled
from tests.cases import CASES, make, rows
from tests.verify.errors import relative

mp = mpmath().mp


def test_more_digits_are_the_same_number():
    theta = np.random.default_rng(4).normal(size=(12, 3))
    few, many = (oracle.dsf([-1.0, 0.0, 30.0], theta, digits=digits) for digits in (30, 90))
    for a, b in zip(np.ravel(few), np.ravel(many), strict=True):
        with mp.workdps(100):
            assert 0 < abs(a - b) <= mp.mpf(10) ** -30 * abs(b)


def test_settling_raises_precision_until_it_is_enough_or_gives_up():
    seen = []

    def cancelling():
        seen.append(mp.dps)
        return (mp.mpf(1) + mp.mpf(10) ** -200) - 1

    result = settled(cancelling, lambda value: [value], 40)
    with mp.workdps(60):
        assert abs(result * mp.mpf(10) ** 200 - 1) < mp.mpf(10) ** -39
    # nothing is left of it in 65 digits, and it is not taken for zero
    assert seen == [55, 65, 385, 395]
    with pytest.raises(ArithmeticError, match="no 40 digits"):
        settled(lambda: mp.mpf(mp.dps), lambda value: [value], 40)


def test_there_is_an_equation_for_everything():
    assert set(oracle_layers.LAYERS) == set(oracle_layers.INVERSES) == set(LAYERS)
    assert set(TRANSFORMERS) == set(FLOW_TRANSFORMERS)
    assert {case.model for case in CASES.values()} == set(refnaf.models())


@pytest.mark.parametrize("name", CASES)
def test_every_model_in_float64_is_near_its_true_values(name):
    case = CASES[name]
    flow = make(case)
    x, context = rows(case, 3)
    x[1] *= 1e20
    x[2] *= 1e6
    true = oracle.evaluate(flow, x, context, digits=30).rounded()
    z, logdet = flow.forward(x, context)
    assert relative(z, true.z) < 1e-13
    assert relative(logdet, true.logdet) < 1e-13
    assert relative(flow.log_prob(x, context), true.log_prob) < 1e-12
    assert len(true.layers) == len(flow.layers)
    np.testing.assert_array_equal(true.layers[-1].y, true.z)
    assert relative(sum(layer.logdet for layer in true.layers), true.logdet) < 1e-14


@pytest.mark.parametrize("model", ["gaussian", "maf", "made-mog", "planar", "maf-dsf", "iaf-ddsf", "bnaf", "tan"])
def test_inversion_is_exact(model):
    case = next(case for case in CASES.values() if case.model == model and case.context_dim)
    flow = make(case)
    z, context = rows(case, 2)
    there = oracle.invert(flow, z, context, digits=30)
    found = rounded(there.z)
    assert relative(flow.inverse(z, context)[0], found) < 1e-12
    back = oracle.evaluate(flow, found, context, digits=30)
    # x was rounded to float64 on the way
    assert relative(rounded(back.z), z) < 1e-12
    assert relative(rounded(back.logdet), -rounded(there.logdet)) < 1e-12
    assert relative(rounded(back.log_prob), rounded(there.log_prob)) < 1e-12
    assert [layer.y.shape for layer in there.layers] == [layer.y.shape for layer in back.layers]


def test_rows_are_checked_as_the_flow_checks_them():
    flow = refnaf.build("maf", 2, 1)
    with pytest.raises(ValueError, match="shape"):
        oracle.evaluate(flow, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="context"):
        oracle.evaluate(flow, np.zeros((1, 2)))


def test_without_mpmath_one_line_says_what_to_install(monkeypatch):
    usual = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "mpmath":
            raise ImportError("No module named 'mpmath'")
        return usual(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    flow = refnaf.build("maf", 2)
    with pytest.raises(ImportError) as error:
        oracle.evaluate(flow, [[1.0, 2.0]])
    assert str(error.value) == 'the high-precision oracle needs mpmath: pip install "refnaf[verify]"'
