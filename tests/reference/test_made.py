from __future__ import annotations

import itertools

import numpy as np
import pytest

from refnaf.reference import made

CONFIGS = list(
    itertools.product(
        [1, 2, 3, 7], ["natural", "reversed", "random"], [(), (1,), (3,), (16, 5), (4, 9, 2)], [False, True]
    )
)


@pytest.mark.parametrize(("dim", "order", "hidden", "context"), CONFIGS)
def test_the_product_of_the_masks_is_autoregressive(dim, order, hidden, context):
    ranks = made.input_ranks(dim, order, seed=3)
    layers = made.masks(ranks, made.degrees(dim, hidden, context), outputs=2)
    product = np.eye(dim)
    for mask in layers:
        product = mask @ product
    reads = product.reshape(dim, 2, dim).sum(axis=1) > 0
    assert not reads[ranks[:, None] <= ranks[None, :]].any()
    # and nothing is cut that need not be, where there are units enough for every degree
    if all(width >= dim for width in hidden):
        assert reads[ranks[:, None] > ranks[None, :]].all()


def test_degrees_are_sorted_and_spread_evenly():
    np.testing.assert_array_equal(made.hidden_degrees(4, 6), [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(made.hidden_degrees(4, 8, context=True), [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(made.hidden_degrees(1, 3), [0, 0, 0])


def test_orders():
    np.testing.assert_array_equal(made.input_ranks(3, "reversed"), [3, 2, 1])
    np.testing.assert_array_equal(made.input_ranks(3, [2, 3, 1]), [2, 3, 1])
    assert sorted(made.input_ranks(9, "random", seed=1)) == list(range(1, 10))
    for bad in ("forwards", [1, 2], [1, 1, 2], [0, 1, 2]):
        with pytest.raises(ValueError, match="order"):
            made.input_ranks(3, bad)


@pytest.mark.parametrize("name", made.ACTIVATIONS)
def test_activations(name):
    x = np.array([-800.0, -1.0, 0.0, 2.0])
    expected = {"elu": np.where(x > 0, x, np.expm1(x)), "relu": np.maximum(x, 0), "tanh": np.tanh(x)}[name]
    np.testing.assert_allclose(made.activate(x, name), expected)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation"):
        made.activate(np.zeros(1), "swish")
