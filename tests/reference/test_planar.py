"""The planar map against its formulas written out, and where it must hold."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import jacobian

from refnaf.reference import planar, stable


def _parameters(dim, n, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [scale * rng.normal(size=(dim, n)), scale * rng.normal(size=(dim, n)), scale * rng.normal(size=n)]


@pytest.mark.parametrize("samples", [1, 6])
def test_it_is_equation_8_with_the_papers_constraint(samples):
    z = np.random.default_rng(1).normal(size=(3, 6))
    u, w, b = _parameters(3, samples)
    got, logdet = planar.planar(z, u, w, b)
    for n in range(6):
        u_n, w_n, b_n = (a[..., n % samples] for a in (u, w, b))
        along = w_n @ u_n
        m = -1 + np.log1p(np.exp(along + stable.inverse_softplus(1 - 1e-6))) + 1e-6
        u_hat = u_n + (m - along) * w_n / (w_n @ w_n)
        h = np.tanh(w_n @ z[:, n] + b_n)
        np.testing.assert_allclose(got[:, n], z[:, n] + u_hat * h, rtol=1e-13)
        psi = (1 - h * h) * w_n
        assert logdet[n] == pytest.approx(np.log(abs(1 + u_hat @ psi)), rel=1e-10, abs=1e-13)


def test_log_determinants_are_those_of_autograds_jacobian():
    u, w, b = _parameters(4, 1, 2.0)
    for z in np.random.default_rng(2).normal(size=(6, 4)):
        matrix = jacobian(lambda v: planar.planar(v[:, None], u, w, b)[0][:, 0])(z)
        sign, expected = np.linalg.slogdet(matrix)
        assert sign > 0
        assert planar.planar(z[:, None], u, w, b)[1][0] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
def test_every_u_is_moved_to_where_the_map_is_a_bijection(scale):
    u, w, _ = _parameters(3, 500, scale)
    u_hat, slope = planar.constrain(u, w)
    assert (slope >= stable.SLOPE_FLOOR).all()
    size = np.sqrt((w * w).sum(axis=0) * (u_hat * u_hat).sum(axis=0))
    along = (w * u).sum(axis=0)
    rounding = 8 * np.finfo(float).eps * (1 + size + np.abs(along))
    assert (np.abs(1 + (w * u_hat).sum(axis=0) - slope) <= rounding).all()
    # only along w
    across = (u_hat - u) - w * ((u_hat - u) * w).sum(axis=0) / (w * w).sum(axis=0)
    assert (np.abs(across) <= 1e-12 * (1 + np.abs(u_hat) + np.abs(u))).all()


def test_zero_u_is_the_identity_and_zero_w_a_shift():
    z = np.random.default_rng(3).normal(size=(3, 5))
    u, w, b = _parameters(3, 1)
    y, logdet = planar.planar(z, 0 * u, w, b)
    np.testing.assert_allclose(y, z, atol=1e-14)
    np.testing.assert_allclose(logdet, 0, atol=1e-14)
    y, logdet = planar.planar(z, u, 0 * w, b)
    np.testing.assert_allclose(y, z + u * np.tanh(b), rtol=1e-14)
    np.testing.assert_allclose(logdet, 0, atol=1e-14)


def test_far_out_it_is_a_shift():
    u, w, b = _parameters(2, 1)
    z = np.array([[1e3, -1e10, 1e30], [1e3, 1e10, -1e30]])
    y, logdet = planar.planar(z, u, w, b)
    u_hat, _ = planar.constrain(u, w)
    np.testing.assert_array_equal(y, z + u_hat * np.sign((w * z).sum(axis=0)))
    assert np.array_equal(logdet, np.zeros(3))


def test_the_steepest_fold_still_rises():
    """At w'u^ near -1 the derivative in the middle is the floor, and not its rounding."""
    w = np.array([[1.0], [0.0]])
    u = np.array([[-80.0], [0.3]])
    slope = planar.constrain(u, w)[1]
    assert slope[0] == pytest.approx(1e-6, rel=1e-9)
    got = planar.log_slope(np.array([0.0, 1e-8, 1e-3, 0.5]), slope)
    expected = np.log([1e-6, 1e-6, 2e-6, np.tanh(0.5) ** 2 + 1e-6 * (1 - np.tanh(0.5) ** 2)])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_brackets_hold_the_root_and_a_newton_step_from_it_changes_nothing():
    z = 3 * np.random.default_rng(4).normal(size=(3, 200))
    u, w, b = _parameters(3, 200, 2.0)
    y, logdet = planar.planar(z, u, w, b)
    slope = planar.constrain(u, w)[1]
    low, high = planar.bracket((w * y).sum(axis=0) + b, slope)
    p = (w * z).sum(axis=0) + b
    assert ((low - 1e-12 <= p) & (p <= high + 1e-12)).all()
    # where the map is not nearly flat, so that rounding stays small
    steady = logdet > np.log(1e-2)
    back, other = planar.inverse_from(z, y, u, w, b)
    np.testing.assert_allclose(back[:, steady], z[:, steady], atol=1e-11)
    np.testing.assert_allclose(other[steady], -logdet[steady], atol=1e-10)
