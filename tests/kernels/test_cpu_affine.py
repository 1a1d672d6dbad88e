"""The affine transformers' compiled kernels against the array's."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array import affine as array
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import affine as compiled
from refnaf.reference.stable import inverse_softplus

OPTIONS = {
    "exp": {"form": "exp"},
    "exp-limit": {"form": "exp", "limit": 2.5},
    "gated": {"form": "gated"},
    "gated-limit": {"form": "gated", "how": "tanh", "limit": 3.0, "clip": 0.0},
    "softplus": {"form": "softplus"},
    "softplus-floor": {"form": "softplus", "floor": 1e-2},
}
each = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ULPS = {np.float32: 8, np.float64: 16}


def _inputs(dtype, scale=1.0, dim=3, n=300, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(dim, n), (dim, 2, n), (dim, n), (1, n)]
    return [(size * rng.normal(size=s)).astype(dtype) for s, size in zip(shapes, (scale, scale, 1, 1), strict=True)]


def _run(module, x, theta, g, slope, options, **how):
    y, log_slope, saved = module.forward(x, theta, ws=Workspace(), **how, **options)
    return [y, np.array(log_slope), *module.vjp(saved, g, slope, Workspace())[:2]]


@each
@each_dtype
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 30.0, 300.0])
def test_values_and_vjps_are_the_arrays(scale, options, dtype):
    inputs = _inputs(dtype, scale)
    got = _run(compiled, *inputs, options)
    x, theta, g, slope = (a.astype(np.float64) for a in inputs)
    y, log_slope, grad_x, grad_theta = _run(array, x, theta, g, slope, options)
    # the digits that an exponential takes from its argument, and the terms of y and of the scale's cotangent; the raw
    # number is moved by an offset, and the derivative of a tanh is what is left of 1
    digits = 1 + np.abs(log_slope)
    terms = (np.abs(np.exp(log_slope) * x) + np.abs(theta[:, 0])) * digits
    on_scale = (np.abs(g) * (terms + np.abs(x)) + np.abs(slope)) * digits
    sizes = [1 + terms, 1 + np.abs(log_slope), np.abs(grad_x) * digits, None]
    sizes[3] = np.stack([np.abs(g), on_scale], axis=1)
    for a, b, size in zip(got, (y, log_slope, grad_x, grad_theta), sizes, strict=True):
        assert a.dtype == dtype
        assert (np.abs(a - b) <= ULPS[dtype] * np.finfo(dtype).eps * size + np.finfo(dtype).tiny).all()


@each
@each_dtype
@pytest.mark.parametrize("n", [0, 1, 257])
def test_no_finite_parameters_give_nan(n, options, dtype):
    rng = np.random.default_rng(n)
    _, theta, g, slope = _inputs(dtype, 300.0, dim=1, n=n)
    reach = 300 if dtype is np.float64 else 37
    x = (rng.choice([-1, 1], (1, n)) * 10.0 ** rng.uniform(-reach, reach, (1, n))).astype(dtype)
    for a in _run(compiled, x, theta, g, slope, options):
        assert a.dtype == dtype and a.shape[-1] == n and not np.isnan(a).any()


@each_dtype
def test_at_zero_the_maps_are_what_they_should_be(dtype):
    x, theta = np.array([[1.5, -2.0]], dtype), np.zeros((1, 2, 2), dtype)
    theta[0, 0] = [0.25, 3.0]
    results = {form: compiled.forward(x, theta, ws=Workspace(), form=form)[0][0] for form in ("exp", "gated")}
    np.testing.assert_array_equal(results["exp"], [1.75, 1.0])
    np.testing.assert_array_equal(results["gated"], [0.875, 0.5])
    theta[0, 1] = dtype(inverse_softplus(2.0) - inverse_softplus(1 - 1e-6))
    y, log_slope, _ = compiled.forward(x, theta, ws=Workspace(), form="softplus")
    np.testing.assert_allclose(y[0], [3.25, -1.0], rtol=1e-5)
    np.testing.assert_allclose(log_slope, np.log(2), rtol=1e-5)


@each
@each_dtype
def test_what_is_kept_and_how_arrays_lie_does_not_matter(options, dtype):
    x, theta, g, slope = _inputs(dtype)
    expected = _run(compiled, x, theta, g, slope, options)
    bare = compiled.forward(x, theta, ws=Workspace(), keep=False, **options)
    assert bare[2] is None
    strange = np.asfortranarray(x), np.asfortranarray(theta), g, np.broadcast_to(slope, x.shape)
    others = [_run(compiled, *strange, options), _run(compiled, x, theta.copy(), g, slope, options, overwrite=True)]
    for results in (bare[:2], *others):
        for a, b in zip(results, expected, strict=False):
            np.testing.assert_array_equal(a, b)


def test_other_options_are_left_to_the_array_twin():
    assert compiled.supports({}) and all(map(compiled.supports, OPTIONS.values()))
    left = [
        {"form": "sigmoid"},
        {"form": "exp", "how": "none"},
        {"form": "exp", "how": "clamp", "limit": (-1.0, 2.0)},
        {"form": "exp", "limit": 200.0},
        {"form": "gated", "clip": 1e-2},
        {"form": "softplus", "floor": 0.0},
    ]
    x, theta, *_ = _inputs(np.float32)
    for options in left:
        assert not compiled.supports(options)
        with pytest.raises(ValueError, match="backend='numpy'"):
            compiled.forward(x, theta, ws=Workspace(), **options)
