"""Mills' ratio and normal quantiles against SciPy and mpmath."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad
from scipy import special

from refnaf.reference import normal

EVERYWHERE = np.concatenate([np.linspace(0, 40, 4001), np.logspace(1, 30, 600)])


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float64, 6), (np.float32, 4)])
def test_mills_ratio_is_erfcx(dtype, ulps):
    u = EVERYWHERE.astype(dtype)
    expected = special.erfcx(u.astype(np.float64) / np.sqrt(2)) / 2
    got = normal.mills(u)
    assert got.dtype == dtype
    # SciPy's own erfcx is good to about 2 units
    assert np.max(np.abs(got / expected - 1)) <= ulps * np.finfo(dtype).eps


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float64, 3), (np.float32, 3)])
def test_mills_ratio_in_high_precision(dtype, ulps):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        for u in np.concatenate([np.linspace(0, 12, 150), [20.0, 50.0, 99.0]]).astype(dtype):
            exact = mpmath.erfc(mpmath.mpf(float(u)) / mpmath.sqrt(2)) * mpmath.exp(mpmath.mpf(float(u)) ** 2 / 2) / 2
            error = float(abs(mpmath.mpf(float(normal.mills(u[None])[0])) / exact - 1))
            assert error <= ulps * np.finfo(dtype).eps, f"R({u}) is off by {error:.3g}"


def test_the_derivative_of_mills_ratio():
    u = np.linspace(0, 30, 301)
    expected = u * normal.mills(u) - 1 / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(elementwise_grad(normal.mills)(u), expected, atol=1e-14)
    # where the formula cancels: -1 / (sqrt(2 pi) u^2)
    far = np.array([1e8, 1e20, 1e30])
    np.testing.assert_allclose(elementwise_grad(normal.mills)(far) * far * far, -1 / np.sqrt(2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_excess_solves_its_equation(dtype):
    u, log_part = (
        a.ravel().astype(dtype) for a in np.meshgrid(np.r_[0, np.logspace(-2, 3, 40)], -np.logspace(-4, 6, 80))
    )
    e = normal.excess(u, log_part)
    assert e.dtype == dtype
    assert (e >= -8 * np.finfo(dtype).eps).all()
    wide_u, wide_e = u.astype(np.float64), e.astype(np.float64)
    ratio = special.erfcx((wide_u + wide_e) / np.sqrt(2)) / special.erfcx(wide_u / np.sqrt(2))
    off = np.abs(np.log(ratio) - wide_e * (wide_u + wide_e / 2) - log_part.astype(np.float64))
    # in units of u + e: what the rounding of e, of log R and of the part allow
    eps = np.finfo(dtype).eps
    rate = wide_u + wide_e + 1
    assert (off <= 8 * eps * (1 + np.abs(log_part) + rate * wide_e)).all()


def test_quantiles_are_scipys_down_to_the_least_probability():
    p = np.concatenate([np.logspace(-300, -1, 500), np.linspace(0.1, 0.5, 100)])
    t = normal.excess(np.zeros_like(p), np.log(2 * p))
    np.testing.assert_allclose(t, -special.ndtri(p), rtol=1e-13, atol=1e-15)
    log_p = -np.logspace(3, 30, 100)
    t = normal.excess(np.zeros_like(log_p), log_p + np.log(2))
    np.testing.assert_allclose(special.log_ndtr(-t), log_p, rtol=1e-13)


def test_far_out_the_quantile_is_next_to_where_it_started():
    u = np.array([1e10, 1e30], np.float32)
    for dtype in (np.float32, np.float64):
        e = normal.excess(u.astype(dtype), np.full(2, -3.0, dtype))
        np.testing.assert_allclose(e, 3 / u, rtol=1e-6)


def test_derivatives_of_excess_are_those_of_the_implicit_function():
    u, log_part = np.array([0.0, 0.3, 2.0, 40.0, 1e8]), np.array([-0.2, -3.0, -0.1, -30.0, -2.0])
    here, there = normal.hazard(u), normal.hazard(u + normal.excess(u, log_part))
    in_part = elementwise_grad(normal.excess, 1)
    np.testing.assert_allclose(in_part(u, log_part), -1 / there, rtol=1e-12)
    np.testing.assert_allclose(elementwise_grad(normal.excess, 0)(u, log_part), here / there - 1, rtol=1e-9, atol=1e-15)
    # d/dA (-1 / h) = h' / h^2 dt/dA, with h' = h (h - t)
    t = (u + normal.excess(u, log_part))[:4]
    second = elementwise_grad(in_part, 1)(u, log_part)[:4]
    np.testing.assert_allclose(second, -(there[:4] - t) / there[:4] ** 2, rtol=1e-9)
