"""The mixture's quantile map against SciPy, against mpmath in the tails, and where floats end."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad
from scipy import special, stats

from refnaf.reference import mixture


def _theta(count, n, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(3 * count, n))


def _raw(weights, means, scales):
    """Pseudo-parameters ``(3 K, 1)`` of a given mixture."""
    return np.concatenate([np.log(weights), means, 8 * np.arctanh(np.log(scales) / 8)])[:, None]


def test_it_is_the_quantile_of_the_mixtures_distribution_function():
    x, theta = np.linspace(-3, 3, 13), _theta(4, 13)
    log_w, mean, log_scale = mixture.constrain(theta)
    np.testing.assert_allclose(np.exp(log_w).sum(axis=0), 1)
    parts = stats.norm(mean, np.exp(log_scale))
    y, log_slope = mixture.mog(x, theta)
    np.testing.assert_allclose(y, special.ndtri(np.sum(np.exp(log_w) * parts.cdf(x), axis=0)), rtol=1e-10)
    density = np.sum(np.exp(log_w) * parts.pdf(x), axis=0)
    np.testing.assert_allclose(stats.norm.logpdf(y) + log_slope, np.log(density), rtol=1e-12)


def test_one_component_is_affine():
    x = np.array([-1e300, -1e30, -50.0, -1.0, 0.0, 0.3, 7.0, 1e10, 1e30, 1e200, 1e300])
    y, log_slope = mixture.mog(x, np.repeat(_raw([1.0], [0.5], [2.0]), len(x), axis=1))
    np.testing.assert_allclose(y, (x - 0.5) / 2, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(log_slope, -np.log(2), rtol=1e-14)


def test_equal_components_are_one():
    x = np.linspace(-40, 40, 81)
    twice = np.repeat(_raw([0.2, 0.8], [0.5, 0.5], [2.0, 2.0]), len(x), axis=1)
    np.testing.assert_allclose(mixture.mog(x, twice)[0], (x - 0.5) / 2, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(mixture.mog(x, twice)[1], -np.log(2), rtol=1e-13)


def _in_high_precision(mpmath, x, log_w, mean, log_scale):
    """The map and its log-derivative by mpmath, from the definition."""
    weights = [mpmath.exp(a) for a in log_w]
    scales = [mpmath.exp(a) for a in log_scale]
    q = [(x - m) / s for m, s in zip(mean, scales, strict=True)]
    total = sum(weights)
    below = sum(w * mpmath.ncdf(v) for w, v in zip(weights, q, strict=True)) / total
    above = sum(w * mpmath.ncdf(-v) for w, v in zip(weights, q, strict=True)) / total
    log_tail = mpmath.log(min(below, above))
    t = mpmath.sqrt(-2 * log_tail)
    for _ in range(100):
        step = (mpmath.log(mpmath.ncdf(-t)) - log_tail) * mpmath.ncdf(-t) / mpmath.npdf(t)
        t += step
        if abs(step) < mpmath.mpf(10) ** -40:
            break
    density = sum(w / s * mpmath.npdf(v) for w, s, v in zip(weights, scales, q, strict=True)) / total
    return (t if above < below else -t), mpmath.log(density) - mpmath.log(mpmath.npdf(t))


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_nothing_is_lost_out_to_thousands_of_standard_deviations(scale):
    mpmath = pytest.importorskip("mpmath")
    x = np.array([0.0, -0.7, 2.0, -3.0, 5.0, -8.0, 37.0, -50.0, 200.0, -1000.0, 3000.0])
    log_w, mean, log_scale = mixture.constrain(_theta(3, len(x), scale))
    y, log_slope = mixture.mixture_quantile(x, log_w, mean, log_scale)
    with mpmath.workdps(60):
        for n in range(len(x)):
            exact = [[mpmath.mpf(float(a)) for a in part[:, n]] for part in (log_w, mean, log_scale)]
            expected = _in_high_precision(mpmath, mpmath.mpf(float(x[n])), *exact)
            assert float(abs(y[n] - expected[0])) <= 4e-15 * (1 + abs(y[n]))
            assert float(abs(log_slope[n] - expected[1])) <= 4e-15 * (1 + abs(log_slope[n]))


def test_log_derivatives_are_autograds():
    x = np.array([-40.0, -6.0, -1.0, 0.0, 0.3, 2.0, 9.0, 45.0])
    theta = _theta(5, len(x))
    slope = elementwise_grad(lambda v: mixture.mog(v, theta)[0])(x)
    np.testing.assert_allclose(mixture.mog(x, theta)[1], np.log(slope), rtol=1e-11, atol=1e-12)


def test_far_out_the_widest_component_decides():
    theta = np.repeat(_raw([0.9, 0.0999, 1e-4], [0.0, 3.0, -2.0], [0.5, 1.0, 4.0]), 4, axis=1)
    for size in (1e10, 1e30, 1.3e154, 1e155, 1e300):  # from 1.3e154 on squares overflow
        x = size * np.array([1.0, -1.0, 0.5, -0.5])
        y, log_slope = mixture.mog(x, theta)
        np.testing.assert_allclose(y, x / 4, rtol=1e-9)
        np.testing.assert_allclose(log_slope, -np.log(4), rtol=1e-12)
        with np.errstate(over="ignore"):  # autograd's own squares
            slope = elementwise_grad(lambda v: mixture.mog(v, theta)[0])(x)
        np.testing.assert_allclose(slope, 0.25, rtol=1e-9)


def test_what_lies_between_components_too_far_apart_is_finite():
    """The density there is exp(-1e400): as far down as floats reach, and the noise stands still."""
    theta = np.repeat(_raw([0.25, 0.75], [-1e200, 1e200], [1.0, 2.0]), 3, axis=1)
    y, log_slope = mixture.mog(np.array([-1e199, 0.0, 1e199]), theta)
    np.testing.assert_allclose(y, special.ndtri(0.25), rtol=1e-13)
    assert np.isfinite(log_slope).all() and (log_slope < -1e307).all()


def test_a_component_that_outweighs_another_is_seen_beyond_it():
    """Where the nearest component's weight is exp(-1e5), another one may still decide."""
    theta = np.array([[-1e5, 0.0, 3.0, -3.0, 0.0, 0.0]]).T
    y, log_slope = mixture.mog(np.array([10.0]), theta)
    np.testing.assert_allclose(y, 13.0, rtol=1e-14)
    np.testing.assert_allclose(log_slope, 0, atol=1e-13)


def test_it_rises_from_end_to_end():
    x = np.concatenate([-np.logspace(30, -3, 400), np.logspace(-3, 30, 400)])
    for seed in range(5):
        y, _ = mixture.mog(x, np.repeat(_theta(6, 1, 1.5, seed), len(x), axis=1))
        assert (np.diff(y) >= 0).all()


def test_wild_parameters_give_finite_numbers():
    x = np.concatenate([-np.logspace(30, -3, 100), np.logspace(-3, 30, 100)])
    for scale in (10.0, 1e3, 1e6):
        y, log_slope = mixture.mog(x, _theta(4, len(x), scale, 1))
        assert np.isfinite(y).all() and np.isfinite(log_slope).all()


def test_in_the_gap_between_two_narrow_components_the_noise_stands_still():
    theta = np.repeat(_raw([0.25, 0.75], [-1.0, 1.0], [0.01, 0.01]), 3, axis=1)
    y, log_slope = mixture.mog(np.array([-0.5, 0.0, 0.5]), theta)
    np.testing.assert_allclose(y, special.ndtri(0.25), rtol=1e-13)
    # the nearer component's density, over that of the noise
    expected = np.log([0.25, 0.75]) - 0.5 * 50**2 - np.log(0.01) + 0.5 * y[0] ** 2
    np.testing.assert_allclose(log_slope[[0, 2]], expected, rtol=1e-13)
    assert log_slope[1] < -4990


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_brackets_hold_the_root(scale):
    x = np.random.default_rng(3).normal(size=300) * 5
    theta = _theta(5, 300, scale)
    low, high = mixture.bracket(mixture.mog(x, theta)[0], theta)
    slack = 1e-9 * (1 + np.abs(low) + np.abs(high))
    assert ((low - slack <= x) & (x <= high + slack)).all()
