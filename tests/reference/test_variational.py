"""Variational inference in plain functions, on Gaussians where everything is known."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from scipy.stats import norm

from refnaf.reference import variational

Z = np.random.default_rng(0).normal(size=200_000)


def nats(shift, scale):
    """log q and log p of samples of N(shift, scale), p being 5 N(0, 1)."""
    log_q = variational.sample_log_prob(norm.logpdf(Z), np.log(scale))
    return log_q, norm.logpdf(shift + scale * Z) + np.log(5)


def test_the_density_of_samples():
    log_q, _ = nats(0.4, 1.3)
    np.testing.assert_allclose(log_q, norm(0.4, 1.3).logpdf(0.4 + 1.3 * Z), rtol=1e-12)


def test_free_energy_is_kl_less_log_z():
    kl = 0.5 * (1.3**2 + 0.4**2 - 1) - np.log(1.3)
    assert variational.free_energy(*nats(0.4, 1.3)) == pytest.approx(kl - np.log(5), abs=0.01)
    assert variational.free_energy(*nats(0, 1)) == pytest.approx(-np.log(5), rel=1e-12)
    flat = variational.free_energy(*nats(0.4, 1.3), beta=0.0)
    assert flat == pytest.approx(-norm(0.4, 1.3).entropy(), abs=0.01)


def test_its_gradient_by_reparameterised_samples():
    def loss(shift):
        x = shift + Z
        return variational.free_energy(-0.5 * Z**2, -0.5 * x**2)

    assert grad(loss)(0.7) == pytest.approx(0.7, abs=0.01)


def test_annealing():
    assert [variational.annealed(step, 100) for step in (0, 50, 100, 1000)] == pytest.approx([0.01, 0.505, 1, 1])
    assert variational.annealed(0, 0) == 1


def test_importance_weights():
    log_q, log_p = nats(0.4, 1.3)
    weights = np.exp(log_p - log_q)
    assert variational.log_normaliser(log_p - log_q) == pytest.approx(np.log(weights.mean()), rel=1e-12)
    assert variational.log_normaliser(log_p - log_q) == pytest.approx(np.log(5), abs=0.01)
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert variational.effective_sample_size(log_p - log_q) == pytest.approx(expected, rel=1e-9)
    assert variational.effective_sample_size(np.full(7, -1e4)) == pytest.approx(7)
