"""The conditioner along the order, in blocks of steps, is the conditioner in one pass."""

from __future__ import annotations

import numpy as np
import pytest

import refnaf
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.incremental import ROWS, Incremental
from refnaf.ops import ArrayOps

ORDERS = {
    "natural": np.arange(1, 24),
    "reversed": np.arange(23, 0, -1),
    "random": 1 + np.random.default_rng(0).permutation(23),
    # in one piece for some blocks and not for others
    "partly": np.concatenate([np.arange(1, 14), 14 + np.random.default_rng(1).permutation(10)]),
}


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("hidden", [(), (23,), (50, 70), (70, 23, 200)], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("transformer", [{"name": "affine"}, {"name": "dsf", "units": 22}], ids=["affine", "dsf"])
def test_steps_are_the_pass(transformer, order, hidden, context_dim):
    dim, n = 23, 3
    layer = Autoregressive(
        dim, context_dim, transformer_config=transformer, hidden=hidden, order=ORDERS[order].tolist()
    )
    rng = np.random.default_rng(2)
    params = {name: a + 0.1 * rng.normal(size=a.shape) for name, a in layer.initial(rng).items()}
    params |= {name: params[name] * mask for name, mask in layer.masks().items()}
    x, context = rng.normal(size=(dim, n)), rng.normal(size=(context_dim, n)) if context_dim else None
    whole, _ = layer.pseudo_parameters(ArrayOps(), params, x, context)
    steps = Incremental(layer, params, x, context)
    known: list = [None] * dim
    for i in np.argsort(layer.ranks):
        np.testing.assert_allclose(steps(i, known), whole[i], rtol=1e-11, atol=1e-12, err_msg=f"dimension {i}")
        known[i] = x[i]


def test_blocks_are_of_several_steps():
    layer = Autoregressive(23, 0, transformer_config={"name": "affine"}, hidden=(130, 92))
    params = layer.initial(np.random.default_rng(0))
    block = Incremental(layer, params, np.zeros((23, 2)), None).block
    assert 1 < block < 23
    assert 0.5 * ROWS < block * 92 / 23 < 2 * ROWS


def test_a_wide_flow_comes_back():
    flow = refnaf.build("maf", 40, hidden=(160, 160), permutation="random", dtype="float64")
    rng = np.random.default_rng(3)
    flow = flow.replace({name: a + 0.02 * rng.normal(size=a.shape) for name, a in flow.params.items()})
    x = rng.normal(size=(50, 40))
    np.testing.assert_allclose(flow.inverse(flow.forward(x)[0])[0], x, rtol=1e-9, atol=1e-9)
