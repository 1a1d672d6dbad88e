"""The planar kernel against the reference, its inverse, its two directions, and mistakes that must be caught."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf.kernels.array import planar
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import planar as reference
from tests import checks
from tests.cases import CASES, make, rows

CASE = CASES["planar-D4"]
SAMPLING = CASES["planar-D4-direction=sampling"]
CONDITIONAL = CASES["planar-D3-C2"]
TOLERANCE = {np.float64: 1e-13, np.float32: 2e-6}
each_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def _inputs(dtype, scale=1.0, samples=7, n=7, dim=3, seed=0):
    """z, u, w and b, the last three a set for each sample or one for all."""
    rng = np.random.default_rng(seed)
    shapes = [(dim, n), (dim, samples), (dim, samples), (samples,)]
    return [(scale * rng.normal(size=shape)).astype(dtype) for shape in shapes]


def _close(got, expected, tolerance):
    assert np.max(np.abs(got - expected)) <= tolerance * max(1, np.max(np.abs(expected)))


@each_dtype
@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_values_and_vjps_are_the_references(scale, samples, dtype):
    arguments = _inputs(dtype, scale, samples)
    wide = [a.astype(np.float64) for a in arguments]
    f, logdet, saved = planar.forward(*arguments, Workspace())
    expected = reference.planar(*wide)
    # float32 rounds p = w'z + b, of which tanh and the log-determinant are steep functions
    size = max(1.0, scale**2)
    _close(f, expected[0], size * TOLERANCE[dtype])
    _close(logdet, expected[1], 10 * size * TOLERANCE[dtype])
    rng = np.random.default_rng(1)
    grad_f, grad_logdet = rng.normal(size=f.shape).astype(dtype), rng.normal(size=logdet.shape).astype(dtype)

    def objective(*arguments):
        f, logdet = reference.planar(*arguments)
        return anp.sum(grad_f * f) + anp.sum(grad_logdet * logdet)

    for k, got in enumerate(planar.vjp(saved, grad_f, grad_logdet, Workspace())):
        want = grad(objective, k)(*wide)
        assert got.dtype == dtype and got.shape == want.shape
        _close(got, want, 100 * size * TOLERANCE[dtype])


def test_a_vanishing_w_has_finite_gradients():
    z, u, w, b = _inputs(np.float64)
    w[:, 2] = 0
    saved = planar.forward(z, u, w, b, Workspace())[2]
    grads = planar.vjp(saved, np.ones_like(z), np.ones(7), Workspace())
    assert all(np.isfinite(array).all() for array in grads)


@each_dtype
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_inversions_over_wild_parameters_meet_their_bound(scale, dtype):
    n = 5000
    z, u, w, b = _inputs(dtype, scale, n, n, seed=5)
    f = 10 * z
    found, logdet, residual = planar.inverse(f, u, w, b, Workspace())
    assert np.isfinite(found).all() and np.isfinite(logdet).all()
    eps = np.finfo(dtype).eps
    u_hat, slope = reference.constrain(u, w)
    p = np.sum(w * f, axis=0) + b
    assert (np.abs(residual) <= 8 * eps * (1 + np.abs(p) + np.abs(slope))).all()
    # what rounding in p, and in w'u^, which is slope - 1 only up to rounding, does to f
    size = np.sqrt((w * w).sum(axis=0)) * np.abs(u_hat).max(axis=0) + np.abs(u_hat).max(axis=0) + np.abs(slope)
    reach = 1 + np.abs(f).max(axis=0) * (1 + np.abs(w).sum(axis=0)) + np.abs(b)
    back = planar.forward(found, u, w, b, Workspace())[0]
    assert (np.abs(back - f) <= 64 * eps * (1 + size) * reach).all()


def test_a_fold_that_is_nearly_flat_is_inverted():
    w = np.array([[1.0], [0.5]])
    u = -100 * w
    z = np.random.default_rng(2).normal(size=(2, 500))
    f, logdet, _ = planar.forward(z, u, w, np.zeros(1), Workspace())
    back, other, _ = planar.inverse(f, u, w, np.zeros(1), Workspace())
    np.testing.assert_allclose(back, z, atol=1e-8)
    np.testing.assert_allclose(other, -logdet, atol=1e-7)


def test_one_direction_is_one_pass(monkeypatch):
    """Without the root finder, the density model scores and the other samples."""

    def refuse(*arguments):
        raise RuntimeError("a root was looked for")

    density, sampling = make(CASE), make(SAMPLING)
    x, _ = rows(CASE, 4)
    monkeypatch.setattr(planar, "monotone_root", refuse)
    assert np.isfinite(density.log_prob(x)).all()
    assert np.isfinite(sampling.sample(4)).all()
    for call in (lambda: density.sample(4), lambda: sampling.log_prob(x)):
        with pytest.raises(RuntimeError, match="root"):
            call()


def test_options_are_checked():
    with pytest.raises(ValueError, match="direction must be"):
        refnaf.build("planar", 2, direction="both")
    with pytest.raises(ValueError, match="no option 'hidden'"):
        refnaf.build("planar", 2, hidden=(8,))
    with pytest.raises(ValueError, match="flows must be"):
        refnaf.build("planar", 2, flows=0)
    with pytest.raises(ValueError, match="bound must be"):
        refnaf.build("planar", 2, bound=-1)
    with pytest.raises(ValueError, match="components must be"):
        refnaf.build("made-mog", 2, components=0)


def test_both_are_fitted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    x[:, 1] += np.tanh(3 * x[:, 0])
    for model, options in (("planar", {"flows": 4}), ("made-mog", {"components": 3, "hidden": (16,)})):
        start = refnaf.build(model, 2, **options).log_prob(x).mean()
        flow = refnaf.fit(x, model, epochs=8, seed=0, **options)
        assert flow.log_prob(x).mean() > start + 0.02, model


def _scaled(function, position, factor):
    def planted(*args, **kwargs):
        out = list(function(*args, **kwargs))
        out[position] = out[position] * factor
        return tuple(out)

    return planted


@pytest.mark.parametrize("case", [CASE, CONDITIONAL, SAMPLING], ids=["density", "conditional", "sampling"])
@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_a_wrong_vjp_is_caught(monkeypatch, case, position):
    monkeypatch.setattr(planar, "vjp", _scaled(planar.vjp, position, 1.001))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(case), *rows(case, 5), 1e-9)


def test_a_wrong_sign_of_the_log_determinant_is_caught(monkeypatch):
    monkeypatch.setattr(planar, "forward", _scaled(planar.forward, 1, -1))
    with pytest.raises(AssertionError):
        checks.log_determinant(make(CASE), *rows(CASE, 3), 1e-10)
    with pytest.raises(AssertionError):
        checks.twins(make(CASE), *rows(CASE, 3), 1e-11)


def test_a_wrong_inverse_is_caught(monkeypatch):
    monkeypatch.setattr(planar, "inverse", _scaled(planar.inverse, 0, 1 + 1e-6))
    with pytest.raises(AssertionError, match="round trip"):
        checks.round_trip(make(CASE), *rows(CASE, 5), 1e-9)


def test_a_wrong_implicit_vjp_is_caught(monkeypatch):
    monkeypatch.setattr(planar, "solve_transposed", lambda saved, wanted: wanted.copy())
    with pytest.raises(AssertionError, match="gradient"):
        checks.inverse_gradients(make(CASE, spread=0.15), *rows(CASE, 4, scale=1.0), 1e-7)
