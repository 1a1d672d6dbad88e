"""Autoregressive layers whose network is a residual one: every property of a flow, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import refnaf
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.fixed import Standardise
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse
from tests import checks

#: Two blocks of the kind ``h <- h + W act(W act(h))``, the last of which ends without activation; blocks that read h
#: itself; a skip over two blocks at once; and a source with two skips.
WIRINGS = {
    "activated": {"skips": [[2, 0], [4, 2]], "linear": [4]},
    "plain": {"skips": [[2, 0], [4, 2]], "linear": [0, 2, 4]},
    "long": {"skips": [[4, 0], [2, 0]], "linear": []},
    "unmarked": {"skips": [], "linear": [1, 3]},
}
each = pytest.mark.parametrize("context_dim", [0, 2])
every = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)


def _flow(wiring, context_dim, dim=3, inverse=False, gains=False, dtype="float64", seed=0):
    layer = Autoregressive(
        dim,
        context_dim,
        transformer_config={"name": "dsf", "units": 4},
        hidden=[8, 6, 8, 7, 8],
        activation="tanh",
        order=[2, 3, 1],
        gains=gains,
        **wiring,
    )
    rng = np.random.default_rng(seed)
    params = {f"1.{k}": v + 0.3 * rng.normal(size=v.shape) for k, v in layer.initial(rng).items()}
    outer = Inverse(dim, context_dim, layer=layer) if inverse else layer
    return Flow([Standardise(dim, context_dim, dtype=dtype), outer], params, model="maf-dsf", dtype=dtype)


def _rows(flow, n=4, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, flow.dim)), rng.normal(size=(n, flow.context_dim)) if flow.context_dim else None


@every
@each
def test_values(wiring, context_dim):
    flow = _flow(wiring, context_dim)
    data = _rows(flow)
    checks.triangular(flow, *data)
    checks.log_determinant(flow, *data, 1e-10)
    checks.twins(flow, *data, 1e-12)
    checks.round_trip(flow, *data, 1e-10)
    checks.round_trip(_flow(wiring, context_dim, inverse=True), *data, 1e-10)
    checks.twins(_flow(wiring, context_dim, dtype="float32"), *data, 2e-4)


@every
@each
def test_gradients(wiring, context_dim):
    flow = _flow(wiring, context_dim)
    checks.gradients(flow, *_rows(flow), 1e-9)
    checks.inverse_gradients(flow, *_rows(flow), 1e-7)


def test_gradients_with_gains():
    flow = _flow(WIRINGS["activated"], 2, gains=True)
    checks.gradients(flow, *_rows(flow), 1e-9)


def test_the_network_is_the_blocks_formula():
    flow = _flow(WIRINGS["activated"], 2)
    layer, params = flow.layers[1], flow.layer_params()[1]
    x, context = _rows(flow)

    def linear(k, h):
        mask = layer.layer_masks[k]
        return (params[f"weight.{k}"] * mask) @ h + params[f"bias.{k}"][:, None] + params[f"context.{k}"] @ c

    def read(v):
        return v / (1 + np.abs(v) / layer.bound)

    c = read(context.T)
    h = linear(0, read(x.T))
    for k in (1, 3):
        h = h + linear(k + 1, np.tanh(linear(k, np.tanh(h))))
    from refnaf.ops import ArrayOps

    theta = layer.pseudo_parameters(ArrayOps(), params, x.T, context.T)[0]
    np.testing.assert_allclose(theta.reshape(-1, 4), linear(5, h), rtol=1e-12, atol=1e-13)


@every
def test_the_file_holds_the_wiring(wiring, tmp_path):
    flow = _flow(wiring, 0)
    flow.save(tmp_path / "flow.safetensors")
    back = refnaf.load(tmp_path / "flow.safetensors")
    assert back.config == flow.config
    x, _ = _rows(flow)
    np.testing.assert_array_equal(back.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        ({"skips": [[1, 0]]}, "same width"),
        ({"skips": [[0, 2]]}, "to a later one"),
        ({"skips": [[5, 0]]}, "to a later one"),
        ({"linear": [5]}, "hidden layers, 0..4"),
        (
            {"skips": [[2, 0]], "degrees": [[1] * 4 + [2] * 4, [1] * 6, [1] * 8, [1] * 7, [1] * 8]},
            "same width and order",
        ),
    ],
)
def test_wirings_that_do_not_fit_are_refused(wiring, message):
    with pytest.raises(ValueError, match=message):
        _flow(wiring, 0)
