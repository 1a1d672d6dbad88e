"""What surrounds the masked network's products, compiled, against the array's functions."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array import made as array
from refnaf.kernels.cpu import made as compiled

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_activation = pytest.mark.parametrize("name", ["elu", "relu", "tanh", None])
each_shape = pytest.mark.parametrize("shape", [(1, 1), (3, 0), (7, 33), (40, 128)])


def _close(got, expected, dtype, size=0.0, ulps=4):
    assert got.dtype == dtype
    bound = ulps * np.finfo(dtype).eps * (np.abs(expected) + size) + np.finfo(dtype).tiny
    assert (np.abs(got - expected) <= bound).all()


def _wild(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    reach = 300 if dtype is np.float64 else 37
    return (rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-reach, reach, shape)).astype(dtype)


@each_dtype
@each_shape
@pytest.mark.parametrize("bound", [10.0, 0.5, None])
def test_squash(bound, shape, dtype):
    rng = np.random.default_rng(0)
    for x in (10 * rng.normal(size=shape).astype(dtype), _wild(dtype, shape)):
        grad = rng.normal(size=shape).astype(dtype)
        wide = x.astype(np.float64)
        _close(compiled.squash(x, bound), array.squash(wide, bound), dtype)
        with np.errstate(over="ignore"):
            expected = array.squash_vjp(wide, bound, grad.astype(np.float64))
        _close(compiled.squash_vjp(x, bound, grad), expected, dtype, ulps=8)


@each_dtype
@each_activation
@each_shape
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_activation_and_bias_in_place(scale, shape, name, dtype):
    rng = np.random.default_rng(1)
    z, bias = (scale * rng.normal(size=s).astype(dtype) for s in (shape, shape[:1]))
    expected = z.astype(np.float64)
    array.activate(expected, bias.astype(np.float64), name)
    # z + b may cancel
    size = np.abs(z) + np.abs(bias)[:, None]
    compiled.activate(z, bias, name)
    _close(z, expected, dtype, size, ulps=2)


@each_dtype
@each_activation
@each_shape
def test_vjp_of_the_activation_and_sums_of_rows(shape, name, dtype):
    rng = np.random.default_rng(2)
    h, grad = rng.normal(size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    compiled.activate(h, np.zeros(shape[0], dtype), name)
    grad_bias = np.full(shape[0], np.nan, dtype)
    expected, expected_bias = grad.astype(np.float64), np.empty(shape[0])
    array.activate_vjp(h.astype(np.float64), name, expected, expected_bias)
    compiled.activate_vjp(h, name, grad, grad_bias)
    _close(grad, expected, dtype, 1.0, ulps=4)
    # sums are float64's
    terms = np.sum(np.abs(grad), axis=1) * 4 * float(np.finfo(np.float64).eps / np.finfo(dtype).eps)
    _close(grad_bias, np.sum(grad, axis=1, dtype=np.float64), dtype, terms, ulps=1)


@each_dtype
@each_activation
def test_wild_numbers_give_no_nan(name, dtype):
    z = _wild(dtype, (9, 65))
    expected = z.astype(np.float64)
    array.activate(expected, np.zeros(9), name)
    compiled.activate(z, np.zeros(9, dtype), name)
    _close(z, expected, dtype, ulps=2.75)
    grad, grad_bias = np.ones_like(z), np.empty(9, dtype)
    compiled.activate_vjp(z, name, grad, grad_bias)
    assert np.isfinite(grad).all() and np.isfinite(grad_bias).all()


@each_dtype
@each_activation
def test_nan_is_not_hidden(name, dtype):
    z = np.array([[np.nan, 1.0]], dtype)
    compiled.activate(z, np.zeros(1, dtype), name)
    assert np.isnan(z[0, 0]) and np.isfinite(z[0, 1])
    assert np.isnan(compiled.squash(z, 10.0)[0, 0])


@each_dtype
def test_a_row_sums_to_the_same_bits_wherever_it_stands(dtype):
    rng = np.random.default_rng(4)
    grad = np.tile(rng.normal(size=131).astype(dtype), (12, 1))
    grad_bias = np.empty(12, dtype)
    compiled.activate_vjp(np.ones_like(grad), "relu", grad.copy(), grad_bias)
    one = np.empty(1, dtype)
    compiled.activate_vjp(np.ones_like(grad[:1]), "relu", grad[5:6].copy(), one)
    assert np.array_equal(grad_bias, np.repeat(one, 12))
