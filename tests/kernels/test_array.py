"""The array twins where the fast form ends, the workspace, and the root finder."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

from refnaf import ops
from refnaf.kernels import cpu
from refnaf.kernels.array import ddsf, dsf
from refnaf.kernels.array.root import monotone_root
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import ddsf as reference_ddsf
from refnaf.reference import dsf as reference_dsf

TRANSFORMS = {
    "dsf": (dsf, reference_dsf.dsf),
    "ddsf": (ddsf, reference_ddsf.ddsf),
    "dsf-compiled": (cpu.dsf, reference_dsf.dsf),
    "ddsf-compiled": (cpu.ddsf, reference_ddsf.ddsf),
}
TOLERANCE = {np.float64: 1e-12, np.float32: 3e-5}


def _inputs(name, dtype, scale, dim=3, n=6, units=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(units, units), (units, units), (1, units)] if name.startswith("ddsf") else []
    count = reference_ddsf.parameter_count(units, 2) if name.startswith("ddsf") else 3 * units
    arrays = [rng.normal(size=(dim, n)), rng.normal(size=(dim, count, n)), *(rng.normal(size=s) for s in shapes)]
    return [(scale * a).astype(dtype) for a in arrays]


def _close(got, expected, tolerance):
    expected = np.asarray(expected)
    assert np.max(np.abs(got - expected)) <= tolerance * max(1, np.max(np.abs(expected)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0, 1e4])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_values_and_vjps_are_the_references_over_the_whole_range(name, scale, dtype):
    module, reference = TRANSFORMS[name]
    x, theta, *shared = _inputs(name, dtype, scale)
    wide = [a.astype(np.float64) for a in (x, theta, *shared)]
    y, log_slope, saved = module.forward(x, theta, *shared, ws=Workspace())
    expected = reference(wide[0], np.moveaxis(wide[1], 1, 0), *wide[2:])
    _close(y, expected[0], TOLERANCE[dtype])
    _close(log_slope, expected[1], TOLERANCE[dtype])
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape).astype(dtype), rng.normal(size=(1, x.shape[1])).astype(dtype)

    def objective(x, theta, *shared):
        y, log_slope = reference(x, anp.moveaxis(theta, 1, 0), *shared)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    grad_x, grad_theta, grad_shared = module.vjp(saved, grad_y, grad_slope, Workspace())
    for k, got in enumerate((grad_x, grad_theta, *grad_shared)):
        _close(got, grad(objective, k)(*wide), 10 * TOLERANCE[dtype])
        assert got.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_rare_columns_do_not_disturb_their_neighbours(name, dtype):
    module, _ = TRANSFORMS[name]
    x, theta, *shared = _inputs(name, dtype, 1.0)
    plain = module.forward(x, theta, *shared, ws=Workspace())[:2]
    x[1, 2] = 1e30
    mixed = module.forward(x, theta, *shared, ws=Workspace())[:2]
    keep = np.ones(x.shape, bool)
    keep[1, 2] = False
    for a, b in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(a[keep], b[keep])
        assert np.isfinite(b).all()


def test_the_workspace_hands_out_the_same_buffers_again():
    ws = Workspace()
    first = [ws.take((3, 4), np.float32), ws.take((5,), np.float64)]
    ws.reset()
    second = [ws.take((3, 4), np.float32), ws.take((2,), np.float64), ws.take((7,), np.float32)]
    assert np.shares_memory(first[0], second[0]) and np.shares_memory(first[1], second[1])
    assert not np.shares_memory(second[1], second[2])
    mark = ws.mark()
    third = ws.take((4,), np.float32)
    ws.release(mark)
    assert np.shares_memory(third, ws.take((4,), np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_inversions_over_wild_parameters_meet_their_bound(name, scale, dtype):
    n = 5000
    _, theta, *shared = _inputs(name, dtype, scale, dim=1, n=n, seed=7)
    name, _, compiled = name.partition("-")
    engine = ops.make("numba" if compiled else "numpy")
    y = 10 * np.random.default_rng(3).normal(size=n).astype(dtype)
    found, log_slope, residual = engine.invert(name, y, theta[0], shared, {})
    assert np.isfinite(found).all() and np.isfinite(log_slope).all()
    eps = np.finfo(dtype).eps
    back, slope, _ = engine.transform(name, found[None], theta, shared, {})
    # a point alone may differ from the same point in a batch in its last bits
    np.testing.assert_allclose(residual, back[0] - y, rtol=0, atol=float(8 * eps * np.max(np.abs(y))))
    # what the spacing of floats at x, and the rounding of p = a x + b, allow: a few ulps each way
    reach = np.abs(found) + np.max(np.abs(theta[0]), axis=0)
    rounding = 64 * eps * (np.abs(y) + np.exp(slope[0].astype(np.float64)) * reach + reach)
    assert (np.abs(residual) <= rounding).all()


def test_the_root_finder_survives_plateaus_and_cliffs():
    y = np.array([-2.0, 0.3, 0.5, 7.0])

    def steps(x, index):
        """Flat, then steep, then flat again: Newton alone leaves the line."""
        value = np.tanh(1e3 * (x - 1)) + 1e-9 * x + 3 * np.tanh(50 * (x + 4))
        slope = 1e3 / np.cosh(np.clip(1e3 * (x - 1), -300, 300)) ** 2 + 1e-9
        slope += 150 / np.cosh(np.clip(50 * (x + 4), -300, 300)) ** 2
        return value, np.log(slope)

    wide = np.full(4, 1e12)
    _, _, residual = monotone_root(steps, y[:3].copy(), -wide[:3], wide[:3])
    assert (np.abs(residual) < 1e-9).all()
    cubic = monotone_root(lambda x, i: (x**3, np.log(3 * x**2 + 1e-300)), y.copy(), -wide, wide)[0]
    np.testing.assert_allclose(cubic, np.cbrt(y), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_far_rows_of_one_block_do_not_reach_the_padding_of_the_next(name, dtype):
    module, _ = TRANSFORMS[name]
    x, theta, *shared = _inputs(name, dtype, 1.0, n=130)
    x[:, :128] = 1e30
    ws = Workspace()
    saved = module.forward(x, theta, *shared, ws=ws)[2]
    ones = np.ones_like(x)
    grads = module.vjp(saved, ones, ones, ws)
    assert all(np.isfinite(g[..., 128:] if g.ndim > 2 else g).all() for g in (grads[1], *grads[2]))
