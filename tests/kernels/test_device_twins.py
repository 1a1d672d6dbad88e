"""The transformers' kernels of the backend "cuda", by the simulator, against the reference and the arrays' twins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from refnaf import ops as operations
from tests.kernels.device_array import DeviceArray, device
from tests.kernels.test_twins import UNITS, UNITS_OF_SUMS, inputs, twin, worst_units

pytest.importorskip("numba_cuda")
# the simulator computes with NumPy's numbers, which warn where a GPU overflows
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: Small ones: to the simulator each sample is a thread of Python's.
CONFIGS = [
    {"name": "affine"},
    {"name": "affine", "form": "gated"},
    {"name": "affine", "form": "softplus"},
    {"name": "dsf", "units": 1},
    {"name": "dsf", "units": 4},
    {"name": "ddsf", "units": 3},
    {"name": "ddsf", "units": 2, "layers": 3},
    {"name": "mog", "components": 3},
    {"name": "mog", "components": 4, "floor": 1e-3},
]
ids = ["-".join(str(v) for v in config.values()) for config in CONFIGS]
every = pytest.mark.parametrize("config", CONFIGS, ids=ids)
both = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def on_device(monkeypatch):
    with device(monkeypatch):
        yield


@both
@every
def test_values_and_vjps_in_units_in_the_last_place(config, dtype):
    if config["name"] == "mog" and dtype is np.float64:
        pytest.skip("the reference has no more digits than float64 here")
    for seed, spread in enumerate((0.1, 1.0)):
        worst = worst_units(config, "cuda", dtype, seed, spread, n=9)
        assert max(worst[:4]) < UNITS, f"spread {spread}: {np.round(worst, 1)}"
        assert max(worst[4:], default=0) < UNITS_OF_SUMS, f"spread {spread}: {np.round(worst, 1)}"


@pytest.mark.parametrize("threads", [3, 7])
@every
def test_any_size_of_a_block(config, threads, monkeypatch):
    from refnaf.kernels.cuda import compiler

    made, arrays, cotangents = inputs(config, np.float64, 5, 1.0, n=8)
    usual = twin("cuda", made, arrays, cotangents)
    monkeypatch.setattr(compiler, "THREADS", threads)
    for found, wanted in zip(twin("cuda", made, arrays, cotangents), usual, strict=True):
        np.testing.assert_array_equal(found, wanted)


@both
@every
def test_far_out_as_the_arrays(config, dtype):
    made, arrays, cotangents = inputs(config, dtype, 7, 2.0, n=8)
    x = arrays[0]
    x[0, :4], x[1, :2] = [1e3, -1e3, 3e4, -3e4], [50.0, -150.0]
    wide = [np.asarray(a, np.float64) for a in arrays], [np.asarray(a, np.float64) for a in cotangents]
    wanted, found = twin("numpy", made, *wide), twin("cuda", made, arrays, cotangents)
    # of the cotangents a column is a vector, and a p of the size of x is rounded at that size
    column = np.maximum(np.abs(wanted[2]), np.abs(wanted[3]).max(axis=1)) + 1
    sizes = [1 + np.abs(wanted[0]), 1 + np.abs(x), column * (1 + np.abs(x)), (column * (1 + np.abs(x)))[:, None]]
    sizes += [np.sum(column * (1 + np.abs(x))) for _ in wanted[4:]]
    for k, (there, here, size) in enumerate(zip(found, wanted, sizes, strict=True)):
        assert np.max(np.abs(there - here) / size) < 32 * np.finfo(dtype).eps, k


@both
@every
def test_farthest_out(config, dtype):
    made, arrays, cotangents = inputs(config, dtype, 7, 2.0, n=6)
    arrays[0][:, :2] = [1e30, -1e30]
    found = twin("cuda", made, arrays, cotangents)
    assert all(np.isfinite(array).all() for array in found)
    wanted = twin("numpy", made, [np.asarray(a, np.float64) for a in arrays], cotangents)
    assert np.max(np.abs(found[0] - wanted[0]) / (1 + np.abs(wanted[0]))) < 32 * np.finfo(dtype).eps


@both
@every
def test_inverses_as_the_arrays(config, dtype):
    made, (_, theta, *shared), _ = inputs(config, dtype, 9, 1.0, n=8)
    y = np.array([0.0, 0.5, -2.0, 3.0, -8.0, 60.0, 400.0, -1e4], dtype)
    ops = operations.make("cuda")
    given = [ops.put(a) for a in (y, theta[0], *shared)]
    found = [ops.get(a) for a in ops.invert(made.name, given[0], given[1], given[2:], made.options)]
    wide = [np.asarray(a, np.float64) for a in (y, theta[0], *shared)]
    wanted = operations.make("numpy").invert(made.name, wide[0], wide[1], wide[2:], made.options)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found[0], wanted[0], rtol=200 * eps, atol=200 * eps)
    np.testing.assert_allclose(found[1], wanted[1], rtol=500 * eps, atol=500 * eps)
    assert np.all(np.abs(found[2]) <= 16 * eps * (1 + np.abs(y)))


@pytest.mark.parametrize("n", [0, 1])
@every
def test_no_sample_and_one(config, n):
    made, arrays, cotangents = inputs(config, np.float64, 3, 1.0, n=n)
    found, wanted = twin("cuda", made, arrays, cotangents), twin("numpy", made, arrays, cotangents)
    for there, here in zip(found, wanted, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-11, atol=1e-12)


@every
def test_arrays_that_are_not_contiguous(config):
    made, arrays, cotangents = inputs(config, np.float64, 3, 1.0, n=6)
    wanted = twin("cuda", made, arrays, cotangents)
    ops = operations.make("cuda")
    x, theta, *shared = (DeviceArray(np.asfortranarray(a)) for a in arrays)
    y, log_slope, saved = ops.transform(made.name, x, theta, shared, made.options)
    grad_x, grad_theta, grad_shared = ops.transform_vjp(saved, *(DeviceArray(np.asfortranarray(a)) for a in cotangents))
    for there, here in zip((y, log_slope, grad_x, grad_theta, *grad_shared), wanted, strict=True):
        np.testing.assert_array_equal(there.get(), here)


@every
def test_a_number_that_is_none_stays_none(config):
    made, (x, theta, *shared), _ = inputs(config, np.float64, 3, 1.0, n=4)
    x[0, 1], y = np.nan, np.array([0.3, np.nan, 1.0, 2.0])
    ops = operations.make("cuda")
    given = [ops.put(a) for a in (x, theta, *shared)]
    found, log_slope, _ = ops.transform(made.name, given[0], given[1], given[2:], made.options)
    assert np.isnan(found.get()[0, 1])
    assert np.isfinite(log_slope.get()[1]).all()
    back = ops.invert(made.name, ops.put(y), ops.put(theta[0]), given[2:], made.options)
    assert not np.isfinite(back[0].get()[1] + back[2].get()[1])
    assert np.isfinite(back[0].get()[[0, 2, 3]]).all()


@pytest.mark.parametrize("name", ["dsf", "ddsf"])
def test_planted_mistakes_are_caught(name, monkeypatch):
    config = next(c for c in CONFIGS if c["name"] == name)
    from refnaf.kernels.cuda import elementary

    right = elementary.functions(np.float64)
    wrong = SimpleNamespace(**{**vars(right), "expm1_negative": lambda x: right.expm1_negative(x) * 1.0001})
    module = operations.make("cuda").transform.__globals__["TWINS"][name]
    monkeypatch.setattr(module, "functions", lambda dtype: wrong)
    module.kernels.cache_clear()
    try:
        worst = worst_units(config, "cuda", np.float64, 0, 1.0, n=9)
    finally:
        module.kernels.cache_clear()
    assert worst[3] > 1e3 and max(worst[:3]) < UNITS
