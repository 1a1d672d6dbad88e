from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from refnaf.reference import stable

POINTS = np.array([-1e30, -800, -100, -40, -30, -1, -1e-8, -1e-300, 0, 1e-300, 1e-8, 1, 30, 40, 100, 800, 1e30])


def test_softplus_and_log_sigmoid_over_the_whole_range():
    expected = [max(x, 0) + math.log1p(math.exp(-abs(x))) for x in POINTS]
    np.testing.assert_allclose(stable.softplus(POINTS), expected, rtol=4e-16)
    np.testing.assert_allclose(stable.log_sigmoid(POINTS), special.log_expit(POINTS), rtol=4e-16)
    np.testing.assert_allclose(stable.sigmoid(POINTS), special.expit(POINTS), rtol=1e-13)


def test_slopes_are_one_at_zero_and_never_below_the_floor():
    assert stable.slopes(np.zeros(1)) == pytest.approx(1, abs=1e-15)
    assert (stable.slopes(POINTS) >= stable.SLOPE_FLOOR).all()


def test_inverses():
    y = np.array([1e-10, 1e-3, 1.0, 30.0, 800.0])
    np.testing.assert_allclose(stable.softplus(stable.inverse_softplus(y)), y, rtol=1e-12)
    p = np.array([1e-10, 0.2, 0.9])
    np.testing.assert_allclose(stable.sigmoid(stable.logit(p)), p, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_logsumexp_and_softmax_against_scipy(axis):
    x = np.random.default_rng(0).normal(size=(5, 4)) * 500
    np.testing.assert_allclose(stable.logsumexp(x, axis), special.logsumexp(x, axis=axis), rtol=1e-14)
    np.testing.assert_allclose(stable.log_softmax(x, axis), special.log_softmax(x, axis=axis), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(stable.softmax(x, axis).sum(axis=axis), 1, rtol=1e-14)


def test_squash_is_the_identity_near_zero_and_bounded():
    assert stable.squash(np.array([1e-9]), 10.0)[0] == pytest.approx(1e-9, rel=1e-9)
    assert (np.abs(stable.squash(POINTS, 10.0)) <= 10).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(dtype):
    x = np.linspace(-2, 2, 5, dtype=dtype)
    for function in (stable.softplus, stable.slopes, stable.log_sigmoid, stable.logsumexp, stable.log_softmax):
        assert function(x).dtype == dtype
    assert stable.squash(x, 10.0).dtype == dtype


def test_gradients_exist_everywhere():
    from autograd import elementwise_grad

    for function in (stable.softplus, stable.log_sigmoid, stable.slopes, lambda x: stable.squash(x, 10.0)):
        assert np.isfinite(elementwise_grad(function)(POINTS)).all()
