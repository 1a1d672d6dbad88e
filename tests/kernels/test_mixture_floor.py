"""Mixtures of Gaussians whose scales are softplus functions with a floor."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp
from scipy.stats import norm

from refnaf import ops
from refnaf.flows.transformers import transformer
from refnaf.reference import mixture
from refnaf.reference.stable import inverse_softplus

FLOORS = [0.0, 1e-2, 0.3]
COMPONENTS = 4


def _inputs(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, 6)).astype(dtype), rng.normal(size=(3, 3 * COMPONENTS, 6)).astype(dtype)


@pytest.mark.parametrize("floor", FLOORS)
def test_the_density_is_the_mixtures(floor):
    x, theta = _inputs()
    logits, mean, raw = np.split(np.moveaxis(theta, 1, 0), 3)
    scale = np.log1p(np.exp(raw + inverse_softplus(1 - floor))) + floor
    weight = np.exp(logits) / np.exp(logits).sum(axis=0)
    y, log_slope = mixture.mog(x, np.moveaxis(theta, 1, 0), floor=floor)
    np.testing.assert_allclose(norm.cdf(y), (weight * norm.cdf((x - mean) / scale)).sum(axis=0), rtol=1e-12)
    density = np.log((weight * norm.pdf((x - mean) / scale) / scale).sum(axis=0))
    np.testing.assert_allclose(norm.logpdf(y) + log_slope, density, rtol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-3)])
@pytest.mark.parametrize("floor", FLOORS)
def test_values_vjps_and_inverses(floor, dtype, tolerance):
    x, theta = _inputs(dtype)
    wide = x.astype(np.float64), theta.astype(np.float64)
    engine, options = ops.ArrayOps(), {"floor": floor}
    y, log_slope, saved = engine.transform("mog", x, theta, [], options)
    expected = mixture.mog(wide[0], np.moveaxis(wide[1], 1, 0), floor=floor)
    np.testing.assert_allclose(y, expected[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_slope, expected[1], rtol=tolerance, atol=tolerance)
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape).astype(dtype), rng.normal(size=(1, 6)).astype(dtype)

    def objective(x, theta):
        y, log_slope = mixture.mog(x, anp.moveaxis(theta, 1, 0), floor=floor)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    for k, got in enumerate(engine.transform_vjp(saved, grad_y, grad_slope)[:2]):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, grad(objective, k)(*wide), rtol=20 * tolerance, atol=20 * tolerance)
    image = y.copy()
    for i in range(len(x)):
        back, _, _ = engine.invert("mog", image[i], theta[i], [], options)
        np.testing.assert_allclose(back, x[i], rtol=100 * tolerance, atol=100 * tolerance)


def test_the_configuration_holds_the_floor():
    made = transformer({"name": "mog", "components": 3, "floor": 1e-2})
    assert made.config() == {"name": "mog", "components": 3, "floor": 1e-2}
    assert transformer({"name": "mog", "components": 3}).config() == {"name": "mog", "components": 3}
    with pytest.raises(ValueError, match="floor of slopes"):
        transformer({"name": "mog", "floor": -1.0})


@pytest.mark.parametrize("floor", FLOORS)
def test_a_new_mixture_is_near_the_identity(floor):
    made = transformer({"name": "mog", "components": 5, "floor": floor})
    theta = made.initial(2, np.random.default_rng(0))[:, :, None]
    x = np.linspace(-2, 2, 9)
    y, _ = mixture.mog(x[None], np.moveaxis(np.broadcast_to(theta, (2, 15, 9)), 1, 0), floor=floor)
    np.testing.assert_allclose(y, np.stack([x, x]), atol=0.25)
