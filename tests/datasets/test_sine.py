"""The posterior of a sine wave's frequency."""

from __future__ import annotations

import math

import numpy as np
import pytest
from autograd import elementwise_grad
from scipy import integrate

from refnaf.datasets import SINE_WAVE, SineWave
from tests.refusals import refusal

OTHER = SineWave(times=(0.2, 0.9, 1.7, 3.1), values=(0.4, -0.8, 0.1, 1.3), variance=0.05, amplitude=1.4, phase=0.3)
MODELS = [SINE_WAVE, OTHER, SineWave(times=(), values=()), SineWave(highest=7.5, variance=1e-3)]


def posterior(model, f):
    """The same from scratch: the product of the normal likelihoods over its value at a perfect fit."""
    total = np.ones_like(f)
    for t, y in zip(model.times, model.values, strict=True):
        mean = model.amplitude * np.sin(2 * np.pi * f * t + model.phase)
        total = total * np.exp(-((y - mean) ** 2) / (2 * model.variance))
    return total


def local_maxima(values):
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    return np.flatnonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] > padded[2:]))


@pytest.mark.parametrize("model", MODELS)
def test_the_posterior(model):
    f = np.linspace(0, model.highest, 1001)
    np.testing.assert_allclose(np.exp(model.log_posterior(f[:, None])), posterior(model, f), rtol=1e-11, atol=1e-300)


def test_the_paper_s_model_in_closed_form():
    f = np.linspace(0, 2, 501)
    angle = 2 * np.pi * f * 5 / 6
    expected = -4 * (np.sin(angle) ** 2 + np.sin(2 * angle) ** 2)
    np.testing.assert_allclose(SINE_WAVE.log_posterior(f[:, None]), expected, atol=1e-13)


def test_the_paper_s_model_has_four_modes_and_smaller_ones():
    f = np.linspace(0, 2, 20_001)
    density = np.exp(SINE_WAVE.log_density(f[:, None]))
    modes = local_maxima(density)
    np.testing.assert_allclose(f[modes], [0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2], atol=1e-4)
    low, edge = math.exp(-4), math.exp(-6)
    np.testing.assert_allclose(density[modes] / density.max(), [1, low, 1, low, 1, low, 1, edge], rtol=1e-6)
    # between the high modes there is next to nothing: the basins hold all the mass, half a mode at the edge f = 0
    step = f[1] - f[0]
    masses = [density[np.abs(f - mode) < 0.15].sum() * step for mode in (0, 0.6, 1.2, 1.8)]
    np.testing.assert_allclose(masses, np.array([1, 2, 2, 2]) / 7, atol=0.01)


@pytest.mark.parametrize("model", MODELS)
def test_the_density_integrates_to_one(model):
    f = np.linspace(0, model.highest, 50_001)
    total = integrate.simpson(np.exp(model.log_density(f[:, None])), x=f)
    assert total == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("model", MODELS[:2])
def test_the_line_carries_the_same_mass(model):
    """The trapezoidal rule converges fast for a density with exponential tails."""
    h = np.linspace(-60, 60, 60_001)[:, None]
    log_p = model.log_posterior_on_line(h)
    assert np.isfinite(log_p).all()
    assert math.log(np.exp(log_p).sum() * 120 / 60_000) == pytest.approx(model.log_normaliser(), abs=1e-10)
    f = model.frequency(h[25_000:35_001:100])
    assert ((f > 0) & (f < model.highest)).all()
    slope = f * (1 - f / model.highest)
    expected = model.log_posterior(f) + np.log(slope[:, 0])
    np.testing.assert_allclose(log_p[25_000:35_001:100], expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["log_posterior", "log_posterior_on_line", "log_density", "frequency"])
def test_gradients(method):
    function = getattr(OTHER, method)
    f = np.random.RandomState(1).uniform(0.05, 1.95, size=(40, 1))
    step = 1e-6
    slope = (function(f + step) - function(f - step)) / (2 * step)
    got = elementwise_grad(function)(f)
    assert got.shape == f.shape
    np.testing.assert_allclose(got[:, 0], slope.reshape(-1), rtol=1e-6, atol=1e-6)


def test_far_out_on_the_line():
    h = np.array([[-1e4], [0.0], [1e4]])
    assert np.isfinite(SINE_WAVE.log_posterior_on_line(h)).all()
    assert np.isfinite(elementwise_grad(SINE_WAVE.log_posterior_on_line)(h)).all()


def test_outside_the_prior_and_dtypes():
    f = np.array([[-1e-9], [0.0], [2.0], [2.1], [np.nan]])
    np.testing.assert_array_equal(np.isneginf(SINE_WAVE.log_posterior(f)), [True, False, False, True, False])
    assert np.isnan(SINE_WAVE.log_posterior(f)[-1])
    single = np.full((3, 1), 0.7, np.float32)
    assert SINE_WAVE.log_posterior(single).dtype == np.float32
    assert SINE_WAVE.log_posterior_on_line(single).dtype == np.float32


def test_refusals():
    assert "2 times" in refusal(SineWave, times=(0, 1))
    assert "positive" in refusal(SineWave, variance=0.0)
    assert "positive" in refusal(SineWave, highest=-2.0)
    assert "finite" in refusal(SineWave, phase=np.inf)
    assert "(3,)" in refusal(SINE_WAVE.log_posterior, np.zeros(3))
    assert "(3, 2)" in refusal(SINE_WAVE.frequency, np.zeros((3, 2)))
