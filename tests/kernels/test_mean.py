"""Means of lines under an activation, and DSF's options of the same kind: twins, VJPs, inverses, tails."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad, grad
from autograd import numpy as anp

from refnaf import ops
from refnaf.flows.transformers import transformer
from refnaf.reference import dsf, stable

OPTIONS = {
    "elu": ("mean", {"activation": "elu"}),
    "elu-epsilon": ("mean", {"activation": "elu", "epsilon": 1e-3}),
    "elu-floor": ("mean", {"activation": "elu", "floor": 0.0}),
    "leakyrelu": ("mean", {"activation": "leakyrelu"}),
    "leakyrelu-epsilon": ("mean", {"activation": "leakyrelu", "floor": 0.0, "epsilon": 1e-3}),
    "dsf-floor": ("dsf", {"floor": 0.0}),
    "dsf-epsilon": ("dsf", {"epsilon": 1e-3}),
    "dsf-steepness": ("dsf", {"steepness": 2.0}),
    "dsf-all": ("dsf", {"steepness": 2.0, "epsilon": 1e-3, "floor": 0.0, "clip": 1e-2}),
}
each = pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS)
UNITS = 4


def _inputs(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(3, 7)), 1.5 * rng.normal(size=(3, 3 * UNITS, 7))


def _direct(x, theta, name, options):
    """The definition, with the mean taken as it stands."""
    raw, b, raw_w = np.split(theta, 3)
    floor = options.get("floor", stable.SLOPE_FLOOR)
    a = np.log1p(np.exp(raw + stable.inverse_softplus(1 - floor))) + floor
    w = np.exp(raw_w) / np.exp(raw_w).sum(axis=0)
    p, k = a * x + b, options.get("steepness", 1.0)
    if name == "dsf":
        y = stable.logit((w / (1 + np.exp(-k * p))).sum(axis=0)) / k
        return stable.clip_logit(y, options["clip"])[0] if "clip" in options else y
    if options["activation"] == "elu":
        m = (w * np.where(p > 0, p, np.expm1(p))).sum(axis=0)
        low = np.minimum(np.log(m + 1 + options.get("epsilon", 0.0), where=m < 0, out=0 * m), 0)
        return np.where(m > 0, m, low)
    m = (w * np.where(p > 0, p, p / 100)).sum(axis=0)
    return np.where(m > 0, m, 100 * m)


@each
def test_the_reference_is_the_definition(name, options):
    x, theta = _inputs()
    moved = np.moveaxis(theta, 1, 0)
    y, log_slope = ops.REFERENCE[name](x, moved, **options)
    np.testing.assert_allclose(y, _direct(x, moved, name, options), rtol=1e-11, atol=1e-12)
    if not options.get("epsilon"):  # which is no part of the derivative
        slope = elementwise_grad(lambda v: ops.REFERENCE[name](v, moved, **options)[0])(x)
        np.testing.assert_allclose(log_slope, np.log(slope), rtol=1e-10, atol=1e-12)


@each
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_values_and_vjps(name, options, scale):
    x, theta = _inputs(scale)
    engine = ops.ArrayOps()
    y, log_slope, saved = engine.transform(name, x, theta, [], options)
    expected = ops.REFERENCE[name](x, np.moveaxis(theta, 1, 0), **options)
    np.testing.assert_allclose(y, expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(log_slope, expected[1], rtol=1e-11, atol=1e-12)
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape), rng.normal(size=(1, 7))

    def objective(x, theta):
        y, log_slope = ops.REFERENCE[name](x, anp.moveaxis(theta, 1, 0), **options)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    for k, got in enumerate(engine.transform_vjp(saved, grad_y, grad_slope)[:2]):
        np.testing.assert_allclose(got, grad(objective, k)(x, theta), rtol=1e-8, atol=1e-9)


@each
def test_inverses(name, options):
    x, theta = _inputs(2.0)
    engine = ops.ArrayOps()
    y = engine.transform(name, x, theta, [], options)[0].copy()
    for i in range(len(x)):
        back, log_slope, residual = engine.invert(name, y[i], theta[i], [], options)
        again, forward, _ = engine.transform(name, back[None], theta[i : i + 1], [], options)
        np.testing.assert_allclose(again[0], y[i], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(log_slope, -forward[0], atol=1e-9)
        assert np.abs(residual).max() < 1e-10
        steep = forward[0] > -8  # beyond, y does not tell x to that many digits
        np.testing.assert_allclose(back[steep], x[i][steep], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("activation", ["elu", "leakyrelu"])
def test_tails_are_lines(activation, dtype):
    _, theta = _inputs()
    theta = theta.astype(dtype)
    a, _, log_w = dsf.constrain(np.moveaxis(theta, 1, 0))
    for far in (-1e30, -1e6, 1e6, 1e30):
        x = np.full((3, 7), far, dtype)
        y, log_slope, saved = ops.ArrayOps().transform("mean", x, theta, [], {"activation": activation})
        grads = ops.ArrayOps().transform_vjp(saved, np.ones_like(x), np.ones((1, 7), dtype))
        assert all(np.isfinite(array).all() for array in (y, log_slope, *grads[:2]))
        mean = np.sum(np.exp(log_w) * a, axis=0)
        slope = np.min(a, axis=0) if activation == "elu" and far < 0 else mean
        np.testing.assert_allclose(y, slope * x, rtol=1e-3 if abs(far) < 1e7 else 1e-5)
        np.testing.assert_allclose(log_slope, np.log(slope), atol=1e-4)


def test_steepness_two_is_the_tanh():
    x, theta = _inputs()
    moved = np.moveaxis(theta, 1, 0)
    a, b, log_w = dsf.constrain(moved)
    y = ops.REFERENCE["dsf"](x, moved, steepness=2.0)[0]
    np.testing.assert_allclose(
        y, np.arctanh(np.sum(np.exp(log_w) * np.tanh(a * x + b), axis=0)), rtol=1e-11, atol=1e-12
    )


def test_configurations_hold_what_is_not_usual():
    assert transformer({"name": "mean", "units": 3}).config() == {"name": "mean", "units": 3, "activation": "elu"}
    full = {"name": "mean", "units": 3, "activation": "leakyrelu", "floor": 0.0, "epsilon": 1e-8}
    assert transformer(full).config() == full
    full = {"name": "dsf", "units": 3, "clip": 1e-6, "floor": 0.0, "steepness": 2.0, "epsilon": 1e-8}
    assert transformer(full).config() == full
    assert transformer({"name": "dsf", "units": 3, "epsilon": 0.0}).config() == {"name": "dsf", "units": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mean", "activation": "tanh"}, "activation must be one of"),
        ({"name": "mean", "floor": -1e-6}, "floor of slopes"),
        ({"name": "dsf", "epsilon": -1e-8}, "epsilon not negative"),
        ({"name": "dsf", "steepness": 0.0}, "must be positive"),
        ({"name": "affine", "form": "exp", "how": "tanh", "limit": [-5, 3]}, "pair of limits"),
        ({"name": "affine", "form": "exp", "how": "clamp", "limit": [3, -5]}, "pair of limits"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        transformer(options)


def test_an_uneven_clamp():
    raw = np.array([-7.0, -5.0, -1.0, 2.9, 3.0, 4.0])
    theta = np.stack([np.zeros(6), raw])[None]
    options = {"form": "exp", "how": "clamp", "limit": [-5.0, 3.0]}
    _, log_slope, saved = ops.ArrayOps().transform("affine", np.ones((1, 6)), theta, [], options)
    np.testing.assert_allclose(log_slope[0], np.clip(raw, -5, 3))
    grads = ops.ArrayOps().transform_vjp(saved, np.zeros((1, 6)), np.ones((1, 6)))[1][0, 1]
    np.testing.assert_array_equal(grads, [0, 1, 1, 1, 1, 0])
