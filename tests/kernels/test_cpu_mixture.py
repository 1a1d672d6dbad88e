"""The mixture's compiled kernel against the array's, its log domain, its inverse, and the whole range of floats."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array import mixture as array
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import mixture as compiled
from refnaf.reference import mixture as reference

COMPONENTS = 5
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_floor = pytest.mark.parametrize("floor", [None, 1e-2])
#: Units in the last place: those of one kernel, and of two where the other works in the same dtype.
ULPS = {np.float32: 8, np.float64: 16}


def _inputs(dtype, scale, dim=3, n=150, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(dim, n), (dim, 3 * COMPONENTS, n), (dim, n), (1, n)]
    return [(size * rng.normal(size=s)).astype(dtype) for s, size in zip(shapes, (scale, scale, 1, 1), strict=True)]


def _run(module, x, theta, g, slope, floor=None, **options):
    y, log_slope, saved = module.forward(x, theta, ws=Workspace(), floor=floor, **options)
    return saved, [y, log_slope, *module.vjp(saved, g, slope, Workspace())[:2]]


def _scales(x, theta, g, slope, y, log_slope, floor):
    """By how much rounding of the arguments moves y, log dy/dx, and the cotangents of x and of theta."""
    log_s = reference.constrain(np.moveaxis(theta, 1, 0), floor)[2]
    rate = np.moveaxis(np.exp(-log_s), 0, 1)
    mean = theta[:, COMPONENTS : 2 * COMPONENTS]
    # the terms of q, which may cancel, times the digits that the exponential of log s takes
    digits = 1 + np.max(np.abs(log_s), axis=0)
    terms = digits * np.max((np.abs(x)[:, None] + np.abs(mean)) * rate, axis=1)
    largest = np.max(np.abs((x[:, None] - mean) * rate), axis=1)
    weight = (np.abs(g) + np.abs(slope) * (1 + np.abs(y))) * (1 + terms)
    steep = np.maximum(1, np.max(rate, axis=1))
    values = [1 + np.abs(y), 1 + np.abs(log_slope) + terms * largest]
    return [*values, weight * steep * (1 + largest), (weight * steep * (1 + terms))[:, None]]


@each_dtype
@each_floor
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 30.0, 300.0])
def test_values_and_vjps_are_the_arrays_over_the_whole_range(scale, floor, dtype):
    inputs = _inputs(dtype, scale)
    saved, got = _run(compiled, *inputs, floor=floor)
    wide = [a.astype(np.float64) for a in inputs]
    _, expected = _run(array, *wide, floor=floor)
    bound = ULPS[dtype] * np.finfo(dtype).eps
    for a, b, size in zip(got, expected, _scales(*wide, *expected[:2], floor), strict=True):
        assert a.dtype == dtype
        assert np.max(np.abs(a - b) / size) <= bound
    if scale != 3:
        assert (saved[3][:, 0] == compiled.FAR).any() == (scale > 3)


@each_dtype
@each_floor
def test_the_log_domain_is_the_fast_form_where_both_are_right(floor, dtype, monkeypatch):
    inputs = _inputs(dtype, 1.0)
    _, fast = _run(compiled, *inputs, floor=floor)
    monkeypatch.setattr(compiled, "SMALLEST", {np.dtype(dtype): 2.0})
    saved, far = _run(compiled, *inputs, floor=floor)
    assert (saved[3][:, 0] == compiled.FAR).all()
    bound = 2 * ULPS[dtype] * np.finfo(dtype).eps
    wide = [a.astype(np.float64) for a in inputs]
    for a, b, size in zip(fast, far, _scales(*wide, *far[:2], floor), strict=True):
        assert np.max(np.abs(a - b) / size) <= bound


@each_dtype
def test_likelihood_gradients_do_not_cancel_far_out(dtype):
    """Under a normal base g = -l y: what is left is the gradient of the mixture's log-density, to all digits."""
    x, theta, _, slope = _inputs(dtype, 0.5, n=40)
    x = 20 * x
    y = compiled.forward(x, theta, ws=Workspace())[0]
    _, got = _run(compiled, x, theta, -slope * y, slope)
    wide = [a.astype(np.float64) for a in (x, theta, -slope * y, slope)]
    _, expected = _run(array, *wide)
    size = np.max(np.abs(expected[3]), axis=1, keepdims=True)
    assert np.max(np.abs(got[3] - expected[3]) / size) <= 4000 * np.finfo(dtype).eps


@each_dtype
def test_far_columns_do_not_disturb_their_neighbours(dtype):
    inputs = _inputs(dtype, 1.0)
    _, plain = _run(compiled, *inputs)
    inputs[0][1, 70] = np.finfo(dtype).max / 10
    saved, mixed = _run(compiled, *inputs)
    assert np.argwhere(saved[3][:, 0] == compiled.FAR).tolist() == [[1, 70]]
    keep = np.ones(inputs[0].shape, bool)
    keep[1, 70] = False
    for a, b in zip(plain, mixed, strict=True):
        moved = [np.moveaxis(v, 1, -1) if v.ndim == 3 else v for v in (a, b)]
        np.testing.assert_array_equal(moved[0][keep], moved[1][keep])
        assert np.isfinite(b).all()


@each_dtype
@pytest.mark.parametrize("floor", [None, 1e-2, 0.0])
@pytest.mark.parametrize("n", [0, 1, 65, 1000])
def test_no_finite_parameters_give_nan(n, floor, dtype):
    rng = np.random.default_rng(n)
    _, theta, g, slope = _inputs(dtype, 300.0, n=n)
    reach = 300 if dtype is np.float64 else 37
    x = (rng.choice([-1, 1], (3, n)) * 10.0 ** rng.uniform(-reach, reach, (3, n))).astype(dtype)
    x[:, ::3] = 300 * rng.normal(size=x[:, ::3].shape)
    _, results = _run(compiled, x, theta, g, slope, floor=floor)
    for a in results:
        assert a.dtype == dtype and not np.isnan(a).any()
    for y in (3 * rng.normal(size=n), x[0]):
        for a in compiled.inverse(y.astype(dtype), theta[0], floor=floor):
            assert a.shape == (n,) and a.dtype == dtype and not np.isnan(a).any()


@each_dtype
def test_the_ends_of_the_range_of_floats(dtype):
    largest = float(np.finfo(dtype).max)
    x = np.array([[largest, -largest, 0.0, 0.0, largest]], dtype)
    theta = np.zeros((1, 3 * COMPONENTS, 5), dtype)
    theta[0, COMPONENTS, :] = [-largest, largest, largest, -largest, largest]
    theta[0, 0, :] = [largest, -largest, 0, largest, -largest]
    _, results = _run(compiled, x, theta, np.ones_like(x), np.ones_like(x))
    assert not any(np.isnan(a).any() for a in results)


@each_dtype
@each_floor
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_inversions_over_wild_parameters_meet_their_bound(scale, floor, dtype):
    n = 3000
    theta = _inputs(dtype, scale, dim=1, n=n, seed=7)[1]
    y = 3 * np.random.default_rng(3).normal(size=n).astype(dtype)
    found, log_slope, residual = compiled.inverse(y, theta[0], floor=floor)
    assert np.isfinite(found).all() and np.isfinite(log_slope).all()
    back, slope, _ = compiled.forward(found[None], theta, ws=Workspace(), floor=floor)
    np.testing.assert_array_equal(residual, back[0] - y)
    np.testing.assert_array_equal(log_slope, -slope[0])
    # what the spacing of floats at x, and the rounding of q and of the sums, allow: a few ulps each way
    eps, reach = np.finfo(dtype).eps, np.abs(found) + np.max(np.abs(theta[0]), axis=0)
    rounding = 64 * eps * (1 + np.abs(y) + np.exp(slope[0].astype(np.float64)) * reach)
    assert (np.abs(residual) <= rounding).all()


@each_dtype
def test_inverses_reach_the_far_tails(dtype):
    theta = _inputs(dtype, 1.0, dim=1, n=8)[1]
    y = np.array([-1e10, -40, -9, -1e-3, 0, 8, 37, 1e12], dtype)
    x, _, residual = compiled.inverse(y, theta[0])
    back = compiled.forward(x[None], theta, ws=Workspace())[0][0]
    np.testing.assert_allclose(back, y, rtol=200 * np.finfo(dtype).eps, atol=200 * np.finfo(dtype).eps)
    assert np.isfinite(residual).all()


@each_dtype
def test_what_is_kept_may_take_thetas_place_or_not_be_kept(dtype):
    x, theta, g, slope = _inputs(dtype, 30.0)
    _, expected = _run(compiled, x, theta.copy(), g, slope)
    bare = compiled.forward(x, theta, ws=Workspace(), keep=False)
    assert bare[2] is None
    before = theta.copy()
    saved, got = _run(compiled, x, theta, g, slope, overwrite=True)
    assert saved[2] is theta and not np.array_equal(theta, before)
    for a, b in zip([*bare[:2], *got], [*expected[:2], *expected], strict=True):
        np.testing.assert_array_equal(a, b)


@each_dtype
def test_arrays_of_any_layout_give_the_same(dtype):
    x, theta, g, slope = _inputs(dtype, 1.0, n=70)
    _, expected = _run(compiled, x, theta, g, slope)
    for a in (x, theta, g):
        a.setflags(write=False)
    wide = np.broadcast_to(slope, x.shape)
    strange = [np.asfortranarray(x), np.moveaxis(np.ascontiguousarray(np.moveaxis(theta, 1, 2)), 2, 1), g, wide]
    for inputs in ([x, theta, g, slope], strange):
        _, got = _run(compiled, *inputs)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_the_references_options_are_known():
    assert compiled.supports({}) and compiled.supports({"floor": None}) and compiled.supports({"floor": 0.1})
    assert not compiled.supports({"clip": 0.1})
