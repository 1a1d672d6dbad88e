"""Options of the transformers: the twins, the VJPs and the inverses of each, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad, grad
from autograd import numpy as anp

from refnaf import ops
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import stable

OPTIONS = {
    "exp": ("affine", {"form": "exp"}),
    "exp-squash": ("affine", {"form": "exp", "how": "squash", "limit": 6.9}),
    "exp-clamp": ("affine", {"form": "exp", "how": "clamp", "limit": 0.7}),
    "exp-none": ("affine", {"form": "exp", "how": "none"}),
    "softplus": ("affine", {"form": "softplus"}),
    "softplus-floor": ("affine", {"form": "softplus", "floor": 1e-3}),
    "sigmoid-floor": ("affine", {"form": "sigmoid", "floor": 1e-3}),
    "gated": ("affine", {"form": "gated"}),
    "gated-clip": ("affine", {"form": "gated", "how": "none", "clip": 1e-2}),
    "dsf-clip": ("dsf", {"clip": 1e-2}),
    "ddsf-clip": ("ddsf", {"clip": 1e-2}),
}
each = pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS)


def _inputs(name):
    rng = np.random.default_rng(0)
    count = {"affine": 2, "dsf": 12, "ddsf": 28}[name]
    shared = [rng.normal(size=s) for s in ((4, 4), (4, 4), (1, 4))] if name == "ddsf" else []
    return [rng.normal(size=(3, 5)), 1.5 * rng.normal(size=(3, count, 5)), *shared]


@each
def test_values_and_vjps(name, options):
    x, theta, *shared = _inputs(name)
    engine = ops.ArrayOps()
    y, log_slope, saved = engine.transform(name, x, theta, shared, options)
    expected = ops.REFERENCE[name](x, np.moveaxis(theta, 1, 0), *shared, **options)
    np.testing.assert_allclose(y, expected[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(log_slope, expected[1] + 0 * x, rtol=1e-12, atol=1e-13)
    rng = np.random.default_rng(1)
    grad_y, grad_slope = rng.normal(size=x.shape), rng.normal(size=(1, 5))

    def objective(x, theta, *shared):
        y, log_slope = ops.REFERENCE[name](x, anp.moveaxis(theta, 1, 0), *shared, **options)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    grad_x, grad_theta, grad_shared = engine.transform_vjp(saved, grad_y, grad_slope)
    for k, got in enumerate((grad_x, grad_theta, *grad_shared)):
        np.testing.assert_allclose(got, grad(objective, k)(x, theta, *shared), rtol=1e-9, atol=1e-11)


@each
def test_log_derivatives(name, options):
    x, theta, *shared = _inputs(name)
    moved = np.moveaxis(theta, 1, 0)
    slope = elementwise_grad(lambda v: ops.REFERENCE[name](v, moved, *shared, **options)[0])(x)
    layers = {"affine": 0, "dsf": 1, "ddsf": 2}[name]
    # a clipped layer's logarithm is low by twice the clip, as the authors' is
    expected = np.log(slope) - 2 * layers * options.get("clip", 0.0)
    got = ops.REFERENCE[name](x, moved, *shared, **options)[1] + 0 * x
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@each
def test_inverses(name, options):
    x, theta, *shared = _inputs(name)
    engine = ops.ArrayOps()
    y = engine.transform(name, x, theta, shared, options)[0].copy()
    for i in range(len(x)):
        back, log_slope, residual = engine.invert(name, y[i], theta[i], shared, options)
        np.testing.assert_allclose(back, x[i], rtol=1e-9, atol=1e-10)
        forward = engine.transform(name, back[None], theta[i : i + 1], shared, options)[1][0]
        np.testing.assert_allclose(log_slope, -forward, atol=1e-9)
        assert np.abs(residual).max() < 1e-12


@pytest.mark.parametrize("clip", [1e-6, 1e-2])
def test_clipping_is_undone_within_its_image_and_infinite_beyond(clip):
    y = np.linspace(-8, 8, 33)
    clipped, log_slope = stable.clip_logit(y, clip)
    np.testing.assert_allclose(stable.unclip_logit(clipped, clip), y, rtol=1e-8)
    m = 1 / (1 + np.exp(-y))
    np.testing.assert_allclose(clipped, stable.logit(m * (1 - clip) + clip / 2), rtol=1e-9, atol=1e-12)
    slope = elementwise_grad(lambda v: stable.clip_logit(v, clip)[0])(y)
    np.testing.assert_allclose(log_slope, np.log(slope) - 2 * clip)
    edge = np.log(2 / clip - 1)
    assert np.array_equal(stable.unclip_logit(np.array([edge + 1, -edge - 1]), clip), [np.inf, -np.inf])


@pytest.mark.parametrize("name", ["dsf", "ddsf"])
def test_outside_the_image_of_a_clipped_transformer_the_residual_says_so(name):
    _, theta, *shared = _inputs(name)
    y = np.array([-40.0, -20.0, 0.0, 20.0, 40.0])
    x, log_slope, residual = ops.ArrayOps().invert(name, y, theta[0], shared, {"clip": 1e-2})
    assert np.isfinite(x).all() and np.isfinite(log_slope).all()
    assert np.abs(residual[[0, 1, 3, 4]]).min() > 1 and abs(residual[2]) < 1e-12


def test_an_option_of_another_form_is_refused():
    from refnaf.flows.transformers import transformer

    with pytest.raises(ValueError, match="no option"):
        transformer({"name": "affine", "form": "softplus", "clip": 1e-6})
    with pytest.raises(ValueError, match="no option"):
        transformer({"name": "affine", "form": "exp", "how": "cut"})
    assert transformer({"name": "dsf", "units": 3, "clip": 1e-6}).config() == {"name": "dsf", "units": 3, "clip": 1e-6}


def test_the_workspace_is_not_needed_twice():
    """A transform's saved arrays outlive a second transform of the same workspace."""
    x, theta = _inputs("dsf")
    module, ws = ops.ARRAY["dsf"], Workspace()
    saved = module.forward(x, theta, ws=ws, clip=1e-2)[2]
    first = module.vjp(saved, np.ones_like(x), np.ones((1, 5)), ws)[0].copy()
    module.forward(x + 1, theta, ws=ws)
    np.testing.assert_array_equal(module.vjp(saved, np.ones_like(x), np.ones((1, 5)), ws)[0], first)
