"""The monotone network: against its plain formula, its array twin and VJP, its tails and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad, grad
from autograd import numpy as anp

from refnaf import ops
from refnaf.flows.transformers import transformer
from refnaf.kernels.array import monotonic
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import monotonic as reference

TOLERANCE = {np.float64: 1e-12, np.float32: 3e-5}
shapes = pytest.mark.parametrize("hidden", [(), (5,), (6, 4), (3, 2, 7)], ids=str)
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
SIGNAL = 4


def _inputs(hidden, dtype=np.float64, scale=1.0, dim=3, n=6, seed=0):
    """x, theta ``(D, S, N)``, and the weights and biases of each dimension."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(dim, n)), rng.normal(size=(dim, SIGNAL, n))]
    for out, below in reference.layer_sizes(SIGNAL, hidden):
        arrays += [rng.normal(size=(dim, out, below)), rng.normal(size=(dim, out))]
    return [(scale * a).astype(dtype) for a in arrays]


def _close(got, expected, tolerance):
    expected = np.asarray(expected)
    assert np.max(np.abs(got - expected)) <= tolerance * max(1, np.max(np.abs(expected)))


def _formula(x, signal, numbers):
    """One number by the formula, with ELUs by their definition."""
    h = np.array([x, *signal])
    for k in range(0, len(numbers), 2):
        h = np.abs(numbers[k]) @ h + numbers[k + 1]
        if k < len(numbers) - 2:
            first = -(-len(h) // 2)
            convex = [p if p > 0 else np.exp(p) - 1 for p in h[:first]]
            h = np.array(convex + [p if p < 0 else 1 - np.exp(-p) for p in h[first:]])
    return h[0]


@shapes
def test_the_reference_is_the_formula(hidden):
    x, theta, *numbers = _inputs(hidden)
    y, log_slope = reference.monotonic(x, np.moveaxis(theta, 1, 0), *numbers)
    for i in range(3):
        own = [a[i] for a in numbers]
        expected = [_formula(x[i, n], theta[i, :, n], own) for n in range(x.shape[1])]
        np.testing.assert_allclose(y[i], expected, rtol=1e-12)
        alone = reference.monotonic(x[i], theta[i], *own)
        np.testing.assert_allclose(alone, (y[i], log_slope[i]), rtol=1e-14)
    slope = elementwise_grad(lambda v: reference.monotonic(v, np.moveaxis(theta, 1, 0), *numbers)[0])(x)
    np.testing.assert_allclose(log_slope, np.log(slope), rtol=1e-12, atol=1e-13)


@dtypes
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
@shapes
def test_values_and_vjps_are_the_references(hidden, scale, dtype):
    x, theta, *numbers = _inputs(hidden, dtype, scale)
    wide = [a.astype(np.float64) for a in (x, theta, *numbers)]
    y, log_slope, saved = monotonic.forward(x, theta, *numbers, ws=Workspace())
    expected = reference.monotonic(wide[0], np.moveaxis(wide[1], 1, 0), *wide[2:])
    assert np.isfinite(expected).all() and y.dtype == log_slope.dtype == dtype
    _close(y, expected[0], TOLERANCE[dtype])
    # rounding of p moves the logarithm of an exponential's slope by as much
    _close(log_slope, expected[1], max(TOLERANCE[dtype], 40 * np.finfo(dtype).eps * scale**2))
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape).astype(dtype), rng.normal(size=(1, x.shape[1])).astype(dtype)

    def objective(x, theta, *numbers):
        y, log_slope = reference.monotonic(x, anp.moveaxis(theta, 1, 0), *numbers)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    for _ in range(2):  # what is saved serves again
        grad_x, grad_theta, grads = monotonic.vjp(saved, grad_y, grad_slope, Workspace())
    tolerance = max(10 * TOLERANCE[dtype], 40 * np.finfo(dtype).eps * scale**2)
    for k, got in enumerate((grad_x, grad_theta, *grads)):
        _close(got, grad(objective, k)(*wide), tolerance)
        assert got.dtype == dtype


def test_a_product_of_small_slopes_does_not_underflow():
    # all units of both layers in their exponential tails: slopes of about exp(-900)
    numbers = [np.ones((1, 2, 2)), np.array([[-900.0, 900.0]]), np.ones((1, 1, 2)), np.zeros((1, 1))]
    x, theta = np.array([[0.5]]), np.zeros((1, 1, 1))
    expected = np.log(2) + np.log(np.cosh(0.5)) - 900
    for log_slope in (
        reference.monotonic(x, theta, *numbers)[1],
        monotonic.forward(x, theta, *numbers, ws=Workspace())[1],
    ):
        assert log_slope[0, 0] == pytest.approx(expected, rel=1e-14)


@dtypes
def test_tails_are_linear_and_finite(dtype):
    x, theta, *numbers = _inputs((6, 4), dtype, n=2)
    x[:] = [[-1e30, 1e30]]
    y, log_slope, _ = monotonic.forward(x, theta, *numbers, ws=Workspace())
    first, last = np.abs(numbers[0][:, :, 0]), np.abs(numbers[4][:, 0])
    for n, units in enumerate((slice(3, 6), slice(0, 3))):  # the mirrored units on the left, the ELUs on the right
        kept = slice(2, 4) if n == 0 else slice(0, 2)
        slope = np.einsum("dj,djk,dk->d", last[:, kept], np.abs(numbers[2])[:, kept, units], first[:, units])
        np.testing.assert_allclose(np.exp(log_slope[:, n]), slope, rtol=1e3 * np.finfo(dtype).eps)
        np.testing.assert_allclose(y[:, n], slope * x[:, n], rtol=1e3 * np.finfo(dtype).eps)


@dtypes
@pytest.mark.parametrize("scale", [1.0, 20.0])
@shapes
def test_inversions_meet_their_bound(hidden, scale, dtype):
    n = 2000
    _, theta, *numbers = _inputs(hidden, dtype, scale, dim=1, n=n, seed=7)
    engine, own = ops.ArrayOps(), [a[0] for a in numbers]
    y = 10 * np.random.default_rng(3).normal(size=n).astype(dtype)
    low, high = reference.bracket(y, theta[0], *own)
    x, log_slope, residual = engine.invert("monotonic", y, theta[0], own, {})
    eps = np.finfo(dtype).eps
    assert x.dtype == log_slope.dtype == low.dtype == high.dtype == dtype
    assert ((low <= x + 8 * eps * np.abs(x)) & (x <= high + 8 * eps * np.abs(x))).all()
    # what rounding the p of each layer allows: the weights amplify it on the way to y
    reach = np.abs(x) + np.max(np.abs(theta[0]), axis=0)
    for weight, bias in zip(own[::2], own[1::2], strict=True):
        reach = np.abs(weight).sum(axis=1).max() * reach + np.abs(bias).max()
    rounding = 32 * eps * (np.abs(y) + reach)
    assert (np.abs(residual) <= rounding).all()
    back, slope, _ = engine.transform("monotonic", x[None], theta, numbers, {})
    # the root was found among fewer columns at a time, where a matrix product may round otherwise
    assert (np.abs(back[0] - y - residual) <= rounding).all()
    np.testing.assert_allclose(log_slope, -slope[0], rtol=100 * eps, atol=100 * eps * scale**2)


def test_where_weights_vanish_the_bracket_is_the_line():
    numbers = [np.array([[0.0, 1.0], [1.0, 1.0]]), np.zeros(2), np.ones((1, 2)), np.zeros(1)]
    y, theta = np.array([-3.0, 0.0, 0.9]), np.zeros((1, 3))
    low, high = reference.bracket(y, theta, *numbers)
    assert np.isneginf(low[0]) and np.isposinf(high[2])
    x, _, residual = ops.ArrayOps().invert("monotonic", y, theta, numbers, {})
    # what is left is -ELU(-x)
    np.testing.assert_allclose(x, [-3, 0, -np.log(0.1)], rtol=1e-12, atol=1e-15)
    assert (np.abs(residual) < 1e-12).all()


@pytest.mark.parametrize("hidden", [[], [8], [8, 8]], ids=str)
def test_a_new_network_is_near_the_identity(hidden):
    new = transformer({"name": "monotonic", "signal": 3, "hidden": hidden})
    rng = np.random.default_rng(0)
    theta, numbers = new.initial(1, rng), new.initial_shared(rng)
    assert [a.shape for a in numbers] == new.shared_shapes()
    x = np.linspace(-3, 3, 13)
    y, log_slope = reference.monotonic(x, np.repeat(theta.T, 13, axis=1), *numbers)
    assert np.abs(y - x).max() < 0.6 and np.abs(log_slope).max() < 0.5
    assert new.config() == {"name": "monotonic", "signal": 3, "hidden": hidden}


@pytest.mark.parametrize(("signal", "hidden"), [(0, [4]), (3, [4, 1])])
def test_sizes_that_do_not_fit_are_refused(signal, hidden):
    with pytest.raises(ValueError, match="signal of at least 1 and layers of at least 2 units"):
        transformer({"name": "monotonic", "signal": signal, "hidden": hidden})
