"""The optimiser's compiled step against the array's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refnaf.kernels.array import adam as array
from refnaf.kernels.cpu import adam as compiled

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_size = pytest.mark.parametrize("size", [0, 1, 63, 1000])
#: clip's factor, 1 - b1, 1 - b2, unbias, eps, rate, shrink, what the average takes
STEPS = {
    "first": (1.0, 0.1, 1e-3, 1e-3**-0.5, 1e-8, 1e-2, 0.0, 1.0),
    "clipped": (0.125, 0.1, 1e-3, 7.0, 1e-8, 5e-3, 0.0, 0.3),
    "decayed": (1.0, 0.05, 1e-2, 1.0, 1e-6, 1e-3, 1e-4, 1e-3),
}


def _state(dtype, size, amsgrad, seed=0):
    """Parameters, both moments, the largest second moment, the average, and a gradient."""
    rng = np.random.default_rng(seed)
    flat, first, average, grad = (rng.normal(size=size).astype(dtype) for _ in range(4))
    second, largest = ((rng.normal(size=size) ** 2).astype(dtype) for _ in range(2))
    return [flat, first, second, largest if amsgrad else largest[:0], average, grad]


@each_dtype
@each_size
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_is_the_arrays(step, amsgrad, size, dtype):
    state = _state(dtype, size, amsgrad)
    wide = [a.astype(np.float64) for a in state]
    # the moments' terms may cancel, and the update inherits their error; the array's own is that of one dtype more
    moved = step[5] * np.abs(wide[1]) + step[5] * np.abs(wide[5])
    array.update(*wide, *step)
    moved /= np.sqrt(wide[3] if amsgrad else wide[2]) * step[3] + step[4]
    compiled.update(*state, *step)
    eps = np.finfo(dtype).eps
    sizes = [2 + moved, 4, 2 + wide[5] ** 2, 2 + wide[5] ** 2, 8 + 2 * moved]
    for got, expected, scale in zip(state[:5], wide[:5], sizes, strict=True):
        assert got.dtype == dtype
        if len(expected):
            assert (np.abs(got - expected) <= 4 * eps * (np.abs(expected) + scale)).all()


@each_dtype
def test_a_step_of_parts_is_that_of_the_whole(dtype):
    whole, parts = _state(dtype, 1000, True), _state(dtype, 1000, True)
    compiled.update(*whole, *STEPS["decayed"])
    for start, stop in ((0, 1), (1, 130), (130, 1000)):
        compiled.update(*(a[start:stop] for a in parts), *STEPS["decayed"])
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


@each_dtype
def test_amsgrad_keeps_the_largest(dtype):
    state = _state(dtype, 500, True)
    before = state[3].copy()
    compiled.update(*state, *STEPS["clipped"])
    np.testing.assert_array_equal(state[3], np.maximum(before, state[2]))
    assert (state[3] > before).any() and (state[3] == before).any()


@each_dtype
@each_size
def test_gathering(size, dtype):
    total, other = _state(dtype, size, False)[:2]
    got, expected = total.copy(), total.copy()
    compiled.gather(got, other)
    array.gather(expected, other)
    np.testing.assert_array_equal(got, expected)


@each_dtype
@each_size
def test_squares_are_summed_in_double_precision(size, dtype):
    values = (1e4 * np.random.default_rng(1).normal(size=size)).astype(dtype)
    exact = math.fsum(float(v) ** 2 for v in values)
    assert compiled.sum_of_squares(values) == pytest.approx(exact, rel=64 * np.finfo(np.float64).eps)


@each_dtype
def test_squares_do_not_overflow_where_their_sum_is_a_float(dtype):
    largest = np.sqrt(np.finfo(np.float64).max / 4) if dtype is np.float64 else np.finfo(dtype).max
    assert np.isfinite(compiled.sum_of_squares(np.full(3, largest, dtype)))
    assert np.isnan(compiled.sum_of_squares(np.array([1, np.nan], dtype)))
