"""Flows with monotone networks and soft clips: every property of a flow."""

from __future__ import annotations

import numpy as np
import pytest

import refnaf
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Softclip, Standardise
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from tests import checks

sizes = pytest.mark.parametrize(
    ("dim", "context_dim", "channels"), [(1, 0, None), (3, 0, None), (2, 2, None), (3, 1, 4)]
)


def _flow(dim=3, context_dim=0, channels=None, inverse=False, dtype="float64", spread=0.3, bound=3.0):
    def layer():
        made = Autoregressive(
            dim,
            context_dim,
            transformer_config={"name": "monotonic", "signal": 3, "hidden": [5, 4]},
            hidden=[7],
            channels=channels,
        )
        return Inverse(dim, context_dim, layer=made) if inverse else made

    # run backwards, a clip would have to meet points outside its image
    between = [] if inverse else [Softclip(dim, context_dim, bound=bound)]
    layers = [Standardise(dim, context_dim, dtype=dtype), layer(), *between, layer()]
    rng = np.random.default_rng(1)
    params = {
        f"{k}.{name}": a + spread * rng.normal(size=a.shape)
        for k, part in enumerate(layers)
        for name, a in part.initial(rng).items()
    }
    return Flow(layers, params, model="maf-monotonic", dtype=dtype)


def _rows(flow, n=4, seed=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, flow.dim)), rng.normal(size=(n, flow.context_dim)) if flow.context_dim else None


@sizes
def test_values(dim, context_dim, channels):
    flow = _flow(dim, context_dim, channels)
    data = _rows(flow)
    checks.triangular(flow, *data)
    checks.log_determinant(flow, *data, 1e-10)
    checks.twins(flow, *data, 1e-12)
    checks.round_trip(flow, *data, 1e-10)
    checks.twins(_flow(dim, context_dim, channels, dtype="float32"), *data, 2e-4)
    other = _flow(dim, context_dim, channels, inverse=True)
    checks.log_determinant(other, *data, 1e-9)
    checks.round_trip(other, *data, 1e-9)


@sizes
def test_gradients(dim, context_dim, channels):
    flow = _flow(dim, context_dim, channels)
    checks.gradients(flow, *_rows(flow), 1e-9)
    checks.inverse_gradients(flow, *_rows(flow), 1e-7)
    other = _flow(dim, context_dim, channels, inverse=True)
    checks.gradients(other, *_rows(other), 1e-7)


def test_every_dimension_has_weights_of_its_own():
    flow = _flow()
    assert flow.params["1.shared.0"].shape == (3, 5, 4)
    x, _ = _rows(flow)
    z = Flow(flow.layers[:2], {k: v for k, v in flow.params.items() if k.startswith("1.")}, model="", dtype="float64")
    changed = z.params["1.shared.4"].copy()
    changed[2] *= 2
    moved = z.replace({"1.shared.4": changed}).forward(x)[0]
    np.testing.assert_array_equal(moved[:, :2], z.forward(x)[0][:, :2])
    assert (moved[:, 2] != z.forward(x)[0][:, 2]).all()


def test_the_file_holds_the_flow(tmp_path):
    flow = _flow(2, 2)
    flow.save(tmp_path / "flow.safetensors")
    back = refnaf.load(tmp_path / "flow.safetensors")
    assert back.config == flow.config
    np.testing.assert_array_equal(back.log_prob(*_rows(flow)), flow.log_prob(*_rows(flow)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_soft_clip(dtype):
    flow = Flow([Standardise(2, dtype=dtype), Softclip(2, bound=11.0)], {}, model="", dtype=dtype)
    x = np.array([[0.0, -1.0], [11.0, 1e3], [-1e30, 5.0]])
    z, logdet = flow.forward(x)
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(z, x / (1 + np.abs(x) / 11), rtol=tolerance)
    np.testing.assert_allclose(logdet, -2 * np.log1p(np.abs(x) / 11).sum(axis=1), rtol=tolerance)
    back, other, residual = flow.inverse(z[:2], return_residual=True)
    np.testing.assert_allclose(back, x[:2], rtol=100 * tolerance)
    np.testing.assert_allclose(other, -logdet[:2], rtol=tolerance)
    assert (residual == 0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outside_the_image_the_soft_clip_answers_with_its_distance(dtype):
    flow = Flow([Standardise(2, dtype=dtype), Softclip(2, bound=11.0)], {}, model="", dtype=dtype)
    x, logdet, residual = flow.inverse(np.array([[12.5, 1.0], [-11.0, -40.0]]), return_residual=True)
    assert np.isfinite(x).all() and np.isfinite(logdet).all()
    assert x[0, 0] > 1e6 and (x[1] < -1e6).all()
    np.testing.assert_allclose(residual, [1.5, 29.0], rtol=1e-5)


def test_a_soft_clip_needs_a_positive_bound():
    with pytest.raises(ValueError, match="positive bound, got 0"):
        Softclip(2, bound=0)
