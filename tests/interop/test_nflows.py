"""nflows' masked autoregressive flows, imported: the library's own numbers, stored and fresh; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import refnaf
from refnaf.interop import from_nflows
from tests import checks
from tests.interop.stored import agree, config, load, names, state

NAMES = names("nflows")


def _flow(numbers, **options):
    return from_nflows(state(numbers), **{**config(numbers), **options})


def _check(numbers):
    flow, context = _flow(numbers), numbers.get("context")
    if "y" in numbers:
        y, logdet = flow.forward(numbers["x"], context)
        agree(y, numbers["y"])
        agree(logdet, numbers["logdet"])
        x, logdet = flow.inverse(numbers["back_y"], context)
        agree(x, numbers["back_x"])
        agree(logdet, numbers["back_logdet"])
    if "log_prob" in numbers:
        agree(flow.log_prob(numbers["x"], context), numbers["log_prob"])


@pytest.mark.parametrize("name", NAMES)
def test_stored_numbers(name):
    _check(load("nflows", name))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NAMES)
def test_fresh_numbers(name, seed):
    pytest.importorskip("nflows")
    from tests.interop import peer_nflows

    assert sorted(peer_nflows.CASES) == NAMES
    _check(peer_nflows.random(name, seed, rows=20, scale=0.2 + 0.05 * seed))


@pytest.mark.parametrize("name", ["maf", "context", "context-plain", "no-blocks", "standardised", "mog-base"])
def test_the_flow_is_one_like_any_other(name, tmp_path):
    numbers = load("nflows", name)
    flow, context = _flow(numbers), numbers.get("context")
    flow.save(tmp_path / "flow.safetensors")
    again = refnaf.load(tmp_path / "flow.safetensors")
    np.testing.assert_array_equal(again.log_prob(numbers["x"], context), flow.log_prob(numbers["x"], context))
    few = numbers["x"][:2], None if context is None else context[:2]
    checks.log_determinant(flow, *few, 1e-8)
    checks.gradients(flow, *few, 1e-8)


def test_residual_blocks_are_represented_as_such():
    layer = _flow(load("nflows", "maf")).layers[2]
    assert (layer.config()["skips"], layer.config()["linear"], layer.hidden) == ([[2, 0]], [2], [6] * 3)
    layer = _flow(load("nflows", "tanh")).layers[1]
    # a first block for what the context adds to the first layer
    assert (layer.config()["skips"], layer.config()["linear"]) == ([[2, 0], [4, 2], [6, 4]], [6])
    assert layer.config()["degrees"][1] == [0] * 8


def test_a_leading_affine_transform_is_the_standardisation():
    flow = _flow(load("nflows", "standardised"))
    np.testing.assert_allclose(flow.buffers["0.scale"], [0.5, 2.0, 1 / 1.5])
    assert [layer.kind for layer in flow.layers[1:]] == [
        "permutation",
        "autoregressive",
        "triangular",
        "permutation",
        "inverse",
    ]


def test_the_scale_of_earlier_versions():
    numbers = load("nflows", "one")
    weight = {name: np.zeros_like(array) for name, array in state(numbers).items() if "weight" in name}
    raw, shift = -0.7, 0.3
    flow = from_nflows(
        {**state(numbers), **weight, "autoregressive_net.final_layer.bias": np.array([raw, shift])}, scale="sigmoid"
    )
    y, logdet = flow.forward(np.array([[2.0]]))
    scale = 1 / (1 + np.exp(-(raw + 2))) + 1e-3
    np.testing.assert_allclose([y[0, 0], logdet[0]], [2 * scale + shift, np.log(scale)], rtol=1e-12)


def test_mixtures_are_those_of_made_mog():
    flow = _flow(load("nflows", "mog-context"))
    assert (flow.model, flow.dim, flow.context_dim, len(flow.layers)) == ("made-mog", 3, 2, 2)
    assert flow.layers[1].transformer.config() == {"name": "mog", "components": 2, "floor": 1e-2}
    inner = {name.removeprefix("_made."): array for name, array in state(load("nflows", "mog-context")).items()}
    x = np.random.default_rng(0).normal(size=(4, 3))
    agree(from_nflows(inner).log_prob(x, x[:, :2]), flow.log_prob(x, x[:, :2]), 0)
    assert _flow(load("nflows", "mog-base")).model == "maf-mog"
    checks.round_trip(flow, x, x[:, :2], 1e-10)


BLOCK = "autoregressive_net.blocks.0."


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("maf", {"_embedding_net.weight": np.ones((2, 2))}, "beside its transform"),
        ("maf", {"_distribution._loc": np.ones(3)}, "beside its transform"),
        ("dropout", {BLOCK + "batch_norm_layers.0.weight": np.ones(5)}, "batch_norm_layers"),
        ("maf", {"_transform._transforms.4.unconstrained_upper_diag": np.ones(3)}, "unconstrained_upper_diag"),
        ("maf", {"_transform._transforms.5._permutation": np.arange(3)}, "at place 4 has no numbers"),
        ("maf", {"_transform._transforms.4._permutation": np.arange(2)}, r"features \[2, 3\]"),
        ("one", {"autoregressive_net.final_layer.weight": np.ones((3, 4))}, "3 numbers a feature, expected 2"),
    ],
)
def test_what_does_not_fit_is_refused(name, change, message):
    numbers = load("nflows", name)
    with pytest.raises(ValueError, match=message) as caught:
        from_nflows({**state(numbers), **change})
    assert "\n" not in str(caught.value)


def test_foreign_states_are_refused():
    numbers = load("nflows", "one")
    with pytest.raises(ValueError, match="the state is empty"):
        from_nflows({})
    with pytest.raises(ValueError, match="at place 0 of nflows"):
        from_nflows({"gamma": np.ones(3)})
    with pytest.raises(ValueError, match="buffers included"):
        from_nflows({k: v for k, v in state(numbers).items() if not k.endswith("mask")})
    with pytest.raises(ValueError, match="activation must be one of"):
        from_nflows(state(numbers), activation="gelu")
    with pytest.raises(ValueError, match="'softplus' or 'sigmoid'"):
        from_nflows(state(numbers), scale="exp")
