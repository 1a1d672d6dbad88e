"""The mixture's array kernel against the reference, its inverse, and mistakes that must be caught."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf import ops
from refnaf.kernels.array import mixture
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import mixture as reference
from refnaf.reference import normal
from tests import checks
from tests.cases import CASES, make, rows

CASE = CASES["made-mog-D4-components=4"]
TOLERANCE = {np.float64: 1e-13, np.float32: 2e-6}
each_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def _inputs(dtype, scale, dim=3, n=7, units=5, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(dim, n)), rng.normal(size=(dim, 3 * units, n))]
    return [(scale * a).astype(dtype) for a in arrays]


def _close(got, expected, tolerance, size=1.0):
    assert np.max(np.abs(got - expected)) <= tolerance * max(size, np.max(np.abs(expected)))


@each_dtype
def test_mills_ratio_is_the_references(dtype):
    u = np.concatenate([np.linspace(0, 40, 200), np.logspace(1, 30, 50)]).astype(dtype).reshape(2, -1)
    np.testing.assert_allclose(mixture.mills(u, Workspace()), normal.mills(u), rtol=4 * np.finfo(dtype).eps)


def _compare(x, theta, dtype):
    wide = [a.astype(np.float64) for a in (x, theta)]
    y, log_slope, saved = mixture.forward(x, theta, ws=Workspace())
    expected = reference.mog(wide[0], np.moveaxis(wide[1], 1, 0))
    _close(y, expected[0], TOLERANCE[dtype])
    _close(log_slope, expected[1], TOLERANCE[dtype])
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape).astype(dtype), rng.normal(size=(1, x.shape[1])).astype(dtype)

    def objective(x, theta):
        y, log_slope = reference.mog(x, anp.moveaxis(theta, 1, 0))
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    grad_x, grad_theta, shared = mixture.vjp(saved, grad_y, grad_slope, Workspace())
    assert shared == []
    for k, got in enumerate((grad_x, grad_theta)):
        _close(got, grad(objective, k)(*wide), 10 * TOLERANCE[dtype])
        assert got.dtype == dtype
    return saved[-1]


@each_dtype
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 30.0, 300.0])
def test_values_and_vjps_are_the_references_over_the_whole_range(scale, dtype):
    _compare(*_inputs(dtype, scale), dtype)


@each_dtype
def test_sums_that_underflow_are_the_references(dtype):
    x, theta = _inputs(dtype, 1.0)
    theta[:, :5] *= 200  # the nearest component's weight underflows
    theta[:, 10:] = -8  # and components are narrow: x lies between them
    rare = _compare(x, theta, dtype)
    assert rare is not None and len(rare.rows) > 0


@each_dtype
def test_rare_columns_do_not_disturb_their_neighbours(dtype):
    x, theta = _inputs(dtype, 1.0)
    plain = mixture.forward(x, theta, ws=Workspace())[:2]
    theta[1, :, 2] *= 100
    mixed = mixture.forward(x, theta, ws=Workspace())[:2]
    keep = np.ones(x.shape, bool)
    keep[1, 2] = False
    for a, b in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(a[keep], b[keep])
        assert np.isfinite(b).all()


@each_dtype
def test_far_out_no_column_is_rare(dtype):
    """Unlike sums of sigmoids, these are measured from the nearest component, and need no second evaluation."""
    x, theta = _inputs(dtype, 1.0, n=40)
    for size in (30.0, 1e4, 1e10, 1e26):
        y, log_slope, saved = mixture.forward(dtype(size) * np.sign(x), theta, ws=Workspace())
        assert saved[-1] is None
        wide = reference.mog(size * np.sign(x).astype(np.float64), np.moveaxis(theta.astype(np.float64), 1, 0))
        _close(y, wide[0], 8 * np.finfo(dtype).eps)
        _close(log_slope, wide[1], 100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("size", [1.3e154, 1e200, 1e279, 1e300])
def test_where_squares_overflow(size):
    x, theta = _inputs(np.float64, 1.0, n=40)
    x = size * np.sign(x)
    y, log_slope, saved = mixture.forward(x, theta, ws=Workspace())
    expected = reference.mog(x, np.moveaxis(theta, 1, 0))
    for got, wanted in zip((y, log_slope), expected, strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-12)
    gradients = mixture.vjp(saved, np.ones_like(y), np.zeros_like(y), Workspace())[0]
    np.testing.assert_allclose(gradients, np.exp(log_slope), rtol=1e-11)


@each_dtype
def test_likelihood_gradients_do_not_cancel_far_out(dtype):
    """Under a normal base g = -l y: what is left is the gradient of the mixture's log-density, to all digits."""
    x, theta = _inputs(dtype, 0.5, dim=1, n=6)
    x = (np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]]) * [[20, 20, 300, 300, 1e4, 1e4]]).astype(dtype)
    y, _, saved = mixture.forward(x, theta, ws=Workspace())
    got = mixture.vjp(saved, -y, np.ones_like(y), Workspace())[1]

    def log_density(theta):
        log_w, mean, log_scale = reference.constrain(anp.moveaxis(theta, 1, 0))
        parts = log_w - log_scale - 0.5 * ((x.astype(np.float64) - mean) * anp.exp(-log_scale)) ** 2
        top = np.max(parts._value, axis=0)
        return anp.sum(anp.log(anp.sum(anp.exp(parts - top), axis=0)) + top)

    expected = grad(log_density)(theta.astype(np.float64))
    scale = np.max(np.abs(expected), axis=1, keepdims=True)
    assert np.max(np.abs(got - expected) / scale) <= (1e-11 if dtype == np.float64 else 2e-3)


@each_dtype
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_inversions_over_wild_parameters_meet_their_bound(scale, dtype):
    n = 3000
    _, theta = _inputs(dtype, scale, dim=1, n=n, seed=7)
    engine = ops.ArrayOps()
    y = 3 * np.random.default_rng(3).normal(size=n).astype(dtype)
    found, log_slope, residual = engine.invert("mog", y, theta[0], [], {})
    assert np.isfinite(found).all() and np.isfinite(log_slope).all()
    eps = np.finfo(dtype).eps
    back, slope, _ = engine.transform("mog", found[None], theta, [], {})
    np.testing.assert_array_equal(residual, (back[0] - y).astype(dtype))
    # what the spacing of floats at x, and the rounding of q and of the sums, allow: a few ulps each way
    reach = np.abs(found) + np.max(np.abs(theta[0]), axis=0)
    rounding = 64 * eps * (1 + np.abs(y) + np.exp(slope[0].astype(np.float64)) * reach)
    assert (np.abs(residual) <= rounding).all()


def test_the_density_is_the_mixtures():
    """MADE-MoG as it is usually written: a sum of Gaussian densities in each dimension."""
    from scipy.special import logsumexp

    flow = make(CASE)
    x, _ = rows(CASE, 50)
    standard, layer = flow.layers
    z = (x - standard.buffers["mean"]) / standard.buffers["scale"]
    theta = layer.pseudo_parameters(ops.ArrayOps(), flow.layer_params()[1], z.T.copy(), None)[0]
    logits, means, raw = theta[:, :4], theta[:, 4:8], theta[:, 8:]
    scales = np.exp(8 * np.tanh(raw / 8))
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    q = (z.T[:, None] - means) / scales
    by_dimension = logsumexp(np.log(weights / scales) - 0.5 * q**2 - 0.5 * np.log(2 * np.pi), axis=1)
    expected = by_dimension.sum(axis=0) - np.log(standard.buffers["scale"]).sum()
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-12)


def test_rosenblatt_values_are_the_conditional_distribution_functions():
    from scipy.special import ndtr

    flow = make(CASES["made-mog-D1-components=4"])
    x = np.linspace(-4, 4, 30)[:, None]
    z = (x[:, 0] - flow.layers[0].buffers["mean"]) / flow.layers[0].buffers["scale"]
    theta = flow.layers[1].pseudo_parameters(ops.ArrayOps(), flow.layer_params()[1], z[None], None)[0][0]
    log_w, mean, log_scale = reference.constrain(theta)
    expected = np.sum(np.exp(log_w) * ndtr((z - mean) / np.exp(log_scale)), axis=0)
    np.testing.assert_allclose(flow.rosenblatt(x)[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("model", ["made-mog", "maf-mog", "planar"])
def test_scoring_imports_neither_scipy_numba_nor_autograd(tmp_path, model):
    refnaf.build(model, 2, flows=1).save(tmp_path / "m")
    code = f"""
import sys, numpy, refnaf
x = numpy.array([[0.5, 1.0], [1e30, -1e30]])
flow = refnaf.load({str(tmp_path / "m")!r}, backend="numpy")
assert numpy.isfinite(flow.log_prob(x)).all() and numpy.isfinite(flow.sample(5)).all()
loaded = [name for name in ("scipy", "numba", "autograd", "matplotlib") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _scaled(function, position, factor):
    def planted(*args, **kwargs):
        out = list(function(*args, **kwargs))
        out[position] = out[position] * factor
        return tuple(out)

    return planted


@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_vjp_is_caught(monkeypatch, position):
    monkeypatch.setattr(mixture, "vjp", _scaled(mixture.vjp, position, 1.001))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(CASE, backend="numpy"), *rows(CASE, 5), 1e-9)


@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_sign_is_caught(monkeypatch, position):
    monkeypatch.setattr(mixture, "forward", _scaled(mixture.forward, position, -1))
    with pytest.raises(AssertionError):
        checks.twins(make(CASE, backend="numpy"), *rows(CASE, 3), 1e-11)
    if position:
        with pytest.raises(AssertionError):
            checks.log_determinant(make(CASE, backend="numpy"), *rows(CASE, 3), 1e-10)


def test_a_wrong_side_of_the_tail_is_caught(monkeypatch):
    """The logits' gradient changes sign with the tail that y is found in."""
    honest = mixture.forward

    def planted(x, theta, *, ws):
        y, log_slope, saved = honest(x, theta, ws=ws)
        return y, log_slope, (*saved[:-3], np.abs(saved[-3]), *saved[-2:])

    monkeypatch.setattr(mixture, "forward", planted)
    with pytest.raises(AssertionError, match="gradient"):
        # log p itself does not tell: its cotangents leave only the density's own gradient
        checks.inverse_gradients(make(CASE, spread=0.15, backend="numpy"), *rows(CASE, 4, scale=1.0), 1e-7)


def test_a_wrong_bracket_is_caught(monkeypatch):
    monkeypatch.setitem(ops.BRACKETS, "mog", lambda y, theta: (y + 1, y + 2))
    with pytest.raises(AssertionError, match="round trip"):
        checks.round_trip(make(CASE, spread=0.1, backend="numpy"), *rows(CASE, 5), 1e-9)
