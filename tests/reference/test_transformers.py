"""The reference transformers against naive forms, against each other, and against the authors' numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from autograd import elementwise_grad

from refnaf.reference import affine, ddsf, density, dsf, stable

VECTORS = Path(__file__).parent.parent / "vectors"


def _theta(count, n, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(count, n))


def _matrices(d, layers, seed=1):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=s)
        for k, (n, m, o) in enumerate(ddsf.layer_sizes(d, layers))
        for s in ([(m, n)] if k else []) + [(o, m)]
    ]


def _naive_ddsf(x, theta, matrices):
    """Equations 29 and 30 with explicit matrices, one sample at a time."""
    out = []
    for n in range(len(x)):
        h, jacobian = x[n : n + 1], np.eye(1)
        for (a, b, w, u), (big_u, big_w) in zip(
            ddsf.split(theta[:, n], matrices[0].shape[1], (len(matrices) + 1) // 2), ddsf.pairs(matrices), strict=True
        ):
            d = len(a)
            rows_u = np.ones((d, 1)) if u is None else np.exp(big_u + u) / np.exp(big_u + u).sum(1, keepdims=True)
            rows_w = np.exp(big_w + w) / np.exp(big_w + w).sum(1, keepdims=True)
            slope = stable.slopes(a)
            s = 1 / (1 + np.exp(-(slope * (rows_u @ h) + b)))
            mixed = rows_w @ s
            jacobian = np.diag(1 / (mixed * (1 - mixed))) @ rows_w @ np.diag(s * (1 - s) * slope) @ rows_u @ jacobian
            h = np.log(mixed / (1 - mixed))
        out.append((h[0], np.log(jacobian[0, 0])))
    return np.array(out).T


def test_dsf_is_the_logit_of_a_mixture():
    x, theta = np.linspace(-3, 3, 11), _theta(12, 11)
    a, b, log_w = dsf.constrain(theta)
    mixture = (np.exp(log_w) / (1 + np.exp(-(a * x + b)))).sum(axis=0)
    np.testing.assert_allclose(dsf.dsf(x, theta)[0], np.log(mixture / (1 - mixture)), rtol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_ddsf_is_its_chain_of_explicit_matrices(layers):
    x, theta = np.linspace(-3, 3, 11), _theta(ddsf.parameter_count(4, layers), 11)
    matrices = _matrices(4, layers)
    np.testing.assert_allclose(ddsf.ddsf(x, theta, *matrices), _naive_ddsf(x, theta, matrices), rtol=1e-10)


def test_log_derivatives_are_autograds():
    x, matrices = np.linspace(-4, 4, 9), _matrices(5, 2)
    cases = {
        "dsf": (lambda v: dsf.dsf(v, theta), 15),
        "ddsf": (lambda v: ddsf.ddsf(v, theta, *matrices), ddsf.parameter_count(5, 2)),
        **{form: (lambda v, form=form: affine.affine(v, theta, form), 2) for form in affine.FORMS},
    }
    for function, count in cases.values():
        theta = _theta(count, 9)
        slope = elementwise_grad(lambda v, f=function: f(v)[0])(x)
        np.testing.assert_allclose(function(x)[1] + 0 * x, np.log(slope), rtol=1e-11, atol=1e-12)


def test_tails_are_linear_and_exact():
    theta = _theta(15, 1, 2.0)
    a, _, _ = dsf.constrain(theta)
    for sign in (1.0, -1.0):
        x = np.array([sign * 1e30])
        y, log_slope = dsf.dsf(x, theta)
        # far out, the unit with the smallest slope decides
        assert y[0] == pytest.approx(sign * a.min() * 1e30, rel=1e-14)
        assert log_slope[0] == pytest.approx(np.log(a.min()), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_brackets_hold_the_root(scale):
    x = np.random.default_rng(3).normal(size=200) * 5
    theta, matrices = _theta(15, 200, scale), _matrices(5, 2)
    for function, bracket, args, count in (
        (dsf.dsf, dsf.bracket, (), 15),
        (ddsf.ddsf, ddsf.bracket, matrices, ddsf.parameter_count(5, 2)),
    ):
        theta = _theta(count, 200, scale)
        low, high = bracket(function(x, theta, *args)[0], theta, *args)
        slack = 1e-9 * (1 + np.abs(low) + np.abs(high))
        assert ((low - slack <= x) & (x <= high + slack)).all()


@pytest.mark.parametrize("form", affine.FORMS)
def test_affine_inverse(form):
    x, theta = np.linspace(-3, 3, 7), _theta(2, 7)
    y, log_slope = affine.affine(x, theta, form)
    back, other = affine.inverse(y, theta, form)
    np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_slope + other + 0 * x, 0, atol=1e-14)
    assert np.isfinite(affine.affine(x, 1e30 * np.sign(theta), form)[1]).all()
    with pytest.raises(ValueError, match="form"):
        affine.affine(x, theta, "cubic")


def test_change_of_variables_composes():
    double, shift = (lambda x: (2 * x, np.full(x.shape[1], 3 * np.log(2)))), (lambda x: (x + 1, np.zeros(x.shape[1])))
    x = np.random.default_rng(0).normal(size=(3, 4))
    z, logdet = density.compose([double, shift], x)
    np.testing.assert_allclose(z, 2 * x + 1)
    expected = -0.5 * (z**2).sum(axis=0) - 1.5 * np.log(2 * np.pi) + 3 * np.log(2)
    np.testing.assert_allclose(density.change_of_variables(density.normal_log_prob(z), logdet), expected)


# The authors' code clips at delta = 1e-6: its numbers are those of the equations to a few delta.


def test_the_authors_sigmoidal_flow():
    with np.load(VECTORS / "dsf_transformer.npz") as z:
        x, params, y, logdet = (z[k] for k in ("x", "params", "y", "logdet"))
    raw = np.moveaxis(params, -1, 0)
    d = len(raw) // 3
    got, log_slope = dsf.sigmoid_mixture(
        x, stable.softplus(raw[:d]) + 1e-6, raw[d : 2 * d], stable.log_softmax(raw[2 * d :])
    )
    np.testing.assert_allclose(got, y, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(log_slope.sum(axis=1), logdet, rtol=2e-5, atol=1e-4)


def test_the_authors_dense_sigmoidal_flow():
    with np.load(VECTORS / "ddsf_transformer.npz") as z:
        v = dict(z)
    d = int(v["d"])
    # their first layer has a u of its one input, which is always 1
    raw = np.moveaxis(np.concatenate([v["params_0"][..., : 3 * d], v["params_1"]], axis=-1), -1, 0)
    got, log_slope = ddsf.ddsf(v["x"], raw, v["w_0"], v["u_1"], v["w_1"])
    # what clipping a mixture m by delta moves its logit is delta / (m (1 - m))
    clipped = 1e-5 * (1 + np.exp(np.abs(v["y"])))
    assert (np.abs(got - v["y"]) <= clipped).all()
    assert (np.abs(log_slope.sum(axis=1) - v["logdet"]) <= clipped.sum(axis=1)).all()
