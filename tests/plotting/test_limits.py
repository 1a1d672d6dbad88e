"""Limits of the panels."""

import math

import numpy as np

from refnaf.plotting import robust_limits


def test_limits():
    rng = np.random.default_rng(0)
    normal, cauchy = rng.normal(size=20_000), rng.standard_cauchy(20_000)
    low, high = robust_limits(normal)
    assert low < normal.min() < normal.max() < high
    assert high - low < 1.1 * np.ptp(normal)
    low, high = robust_limits(cauchy)
    assert np.mean((cauchy > low) & (cauchy < high)) > 0.95
    assert high - low < 60
    spikes = np.where(rng.random(20_000) < 0.05, 40 + normal, 0.0)  # a rare second value is no tail
    assert robust_limits(spikes)[1] > spikes.max()
    for constant in (0.0, -3.0, 1e30, 1e-300):
        low, high = robust_limits(np.full(5, constant))
        assert low < constant < high
    for extreme in ([-1.7e308, 1.7e308], [5e-324, 0.0], [1e16, 1e16 + 2]):
        low, high = robust_limits(np.array(extreme))
        assert low < high
        assert math.isfinite(high - low)
