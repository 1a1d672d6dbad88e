"""Importance sampling and its diagnostics."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.training.importance import importance, pareto_k


def gaussian_weights(n, shift, scale, seed=0):
    """Log-weights of N(0, 1) times 7 at samples of N(shift, scale)."""
    z = np.random.default_rng(seed).normal(size=n)
    x = shift + scale * z
    return np.log(7) - 0.5 * x**2 + 0.5 * z**2 + np.log(scale)


def test_equal_weights():
    found = importance(np.full(1000, -800.0))
    assert found.elbo == (-800, 0)
    assert found.log_normaliser == (-800, 0)
    assert (found.ess, found.pareto_k, found.lost, found.distrust) == (1000, 0, 0, None)


def test_estimates_and_their_errors():
    values = [importance(gaussian_weights(2000, 0.3, 1.1, seed)) for seed in range(200)]
    for name, truth in (("log_normaliser", np.log(7)), ("elbo", np.log(7) - kl(0.3, 1.1))):
        off = np.array([getattr(v, name)[0] for v in values]) - truth
        told = np.mean([getattr(v, name)[1] for v in values])
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
        assert told == pytest.approx(off.std(), rel=0.2)


def kl(shift, scale):
    return 0.5 * (scale**2 + shift**2 - 1) - np.log(scale)


def test_the_effective_sample_size():
    assert importance(np.log([1.0, 1.0, 1e-30, 1e-30])).ess == pytest.approx(2)
    assert importance(np.log([4.0, 2.0, 1.0])).ess == pytest.approx(49 / 21)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.6, 1.2])
def test_pareto_k_finds_the_shape(shape):
    from scipy.stats import genpareto

    found = [pareto_k(genpareto(shape).rvs(20_000, random_state=seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(shape, abs=0.08)
    assert pareto_k(1e-200 * genpareto(shape).rvs(20_000, random_state=0)) == pytest.approx(found[0], rel=1e-6)


def test_pareto_k_of_little():
    assert pareto_k(np.ones(3)) == pareto_k(np.ones(1000)) == 0
    assert pareto_k(np.r_[np.ones(1000), 2]) == 0


@pytest.mark.parametrize(
    ("log_weights", "says"),
    [
        (gaussian_weights(5000, 0, 1.2), None),
        (gaussian_weights(5000, 0, 0.3), "Pareto k"),
        (gaussian_weights(5000, 5, 0.9), "effective size of only"),
        (np.r_[gaussian_weights(500, 0, 1.2), np.nan, np.inf], "not finite at 2 of 502"),
    ],
)
def test_distrust(log_weights, says):
    told = importance(log_weights).distrust
    assert (told is None) if says is None else (says in told)


def test_what_is_lost_has_no_weight():
    weights = gaussian_weights(1000, 0, 1.2)
    whole, part = importance(weights), importance(np.r_[weights, [-np.inf] * 1000])
    assert part.elbo == whole.elbo and part.lost == 1000
    assert part.log_normaliser[0] == pytest.approx(whole.log_normaliser[0] - np.log(2))
    with pytest.raises(ValueError, match="none of 3 log-weights is finite"):
        importance(np.full(3, np.nan))
