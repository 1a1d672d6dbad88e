"""Flows of flowjax, against its stored numbers and, where it is installed, against fresh ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf.interop import from_flowjax
from refnaf.interop.flowjax import parameters
from tests import checks
from tests.interop import stored

CASES = stored.names("flowjax")
BLOCKS = [name for name in CASES if name.startswith("bnaf")]


def flow_of(numbers):
    return from_flowjax(stored.state(numbers), **stored.config(numbers))


def check_values(numbers, tolerance=1e-10, back=1e-10):
    """The flow is theirs: noise, log-determinant and nats of x, and the inverse, where flowjax has them."""
    flow, context = flow_of(numbers), numbers.get("context")
    assert {"y", "back_x"} & set(numbers)
    if "y" in numbers:
        z, logdet = flow.forward(numbers["x"], context)
        stored.agree(z, numbers["y"], tolerance)
        stored.agree(logdet, numbers["logdet"], tolerance)
        stored.agree(flow.log_prob(numbers["x"], context), numbers["log_prob"], tolerance)
    if "back_x" in numbers:
        x, logdet = flow.inverse(numbers["back_y"], context)
        stored.agree(x, numbers["back_x"], back)
        stored.agree(logdet, numbers["back_logdet"], back)


def test_the_stored_cases_are_there():
    assert len(CASES) == 17


@pytest.mark.parametrize("name", CASES)
def test_stored_numbers(name):
    check_values(stored.load("flowjax", name))


@pytest.mark.peers
@pytest.mark.parametrize("seed", [21, 22])
@pytest.mark.parametrize("name", CASES)
def test_fresh_numbers(name, seed):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    check_values(peer.random(name, seed))


@pytest.mark.peers
@pytest.mark.parametrize(("dim", "context_dim"), [(2, 0), (6, 3)])
@pytest.mark.parametrize("kind", ["masked_autoregressive_flow", "block_neural_autoregressive_flow"])
def test_their_default_sizes(kind, dim, context_dim):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    peer.CASES["default"] = (dim, context_dim, getattr(peer, kind), {}, {})
    # by default block networks are inverted to 1e-5 there
    check_values(peer.random("default", 3, scale=0.1), **({"back": 1e-4} if "block" in kind else {}))


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in CASES if name != "planar-sampling"])
def test_gradients_are_jaxs(name):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    state, data, expected = peer.gradients(name, 4)
    told = peer.CASES[name][4]
    flow = from_flowjax(state, **told)
    expected = {k: v for k, v in expected.items() if k.startswith(".bijection.")}

    def nats(trained):
        return anp.mean(flow.log_prob(**data, params=parameters({**state, **trained}, **told)))

    got = grad(nats)({k: state[k] for k in expected})
    largest = max(np.abs(array).max() for array in expected.values())
    for name in expected:
        # JAX's own rounding is that of the largest: the weights of a single input, normalised, have no gradient at all
        checks.close(got[name] / largest, expected[name] / largest, 1e-8, name)


@pytest.mark.parametrize("name", ["maf-context", "iaf-context", "planar", "planar-sampling", *BLOCKS])
def test_the_flow_has_every_property(name, tmp_path):
    numbers = stored.load("flowjax", name)
    flow, x, context = flow_of(numbers), numbers["x"], numbers.get("context")
    checks.log_determinant(flow, x, context, 1e-9)
    checks.gradients(flow, x, context, 1e-7)
    checks.round_trip(flow, x, context, 1e-8)
    flow.save(tmp_path / "flow.safetensors")
    np.testing.assert_array_equal(
        refnaf.load(tmp_path / "flow.safetensors").log_prob(x, context), flow.log_prob(x, context)
    )


def _changed(name, drop="", **extra):
    state = {k: v for k, v in stored.state(stored.load("flowjax", name)).items() if not (drop and re.search(drop, k))}
    return {**state, **extra}


_FIRST = ".bijection.bijection.bijection.bijections[0]"
_NETWORK = f"{_FIRST}.bijection"


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ([1], {}, "mapping of names"),
        (_changed("maf", drop=r"shape\[0\]"), {}, "lacks .bijection.shape.0.; pass .jax.tree_util.keystr"),
        (_changed("maf"), {"activation": "silu"}, "activation must be one of"),
        (_changed("maf"), {"min_scale": 1.0}, "min_scale must be"),
        (_changed("maf", **{f"{_FIRST}.masked_autoregressive_mlp.layers[0].weight": 1.0}), {}, "unwrapped"),
        (_changed("maf", **{f"{_FIRST}.untransformed_dim": 1}), {}, "coupling"),
        (_changed("planar", **{f"{_FIRST}.negative_slope": 0.1}), {}, "leaky ReLU"),
        (_changed("planar", **{f"{_FIRST}.conditioner.layers[0].bias": 0.1}), {}, "MLP of the condition"),
        (_changed("planar", **{f"{_FIRST}.more": np.ones(3)}), {}, "Planar holds .* cannot be represented: more"),
        (_changed("bnaf", drop=r"layers\[1\]"), {}, r"no hidden layer \(nn_depth=0\)"),
        (_changed("bnaf", drop="min_grad"), {}, "relu cannot be represented: pass activation='tanh'"),
        (_changed("bnaf", **{f"{_NETWORK}.activation.max_val": 3.0}), {}, "another activation than tanh"),
        (_changed("bnaf", **{f"{_NETWORK}.activation.min_grad": -1.0}), {}, "leak must be a number from 0 to 1"),
        (_changed("bnaf", **{f"{_NETWORK}.layers[0][0].more": np.ones((2, 1))}), {}, "Network holds what cannot"),
        (_changed("bnaf", **{f"{_NETWORK}.layers[0][0].weight": np.ones((2, 1))}), {}, "unwrapped"),
        (_changed("maf", drop="mlp"), {}, "other layers than MaskedAutoregressive"),
        (_changed("maf", **{f"{_FIRST}.more": np.ones((2, 1))}), {}, "cannot be represented: more"),
        (_changed("maf", **{".base_dist.df": np.ones(3)}), {}, "the base must be Normal"),
        (_changed("maf", **{".bijection.bijection.more": np.ones(3)}), {}, "layers cannot be represented"),
    ],
)
def test_what_cannot_be_represented_is_refused(state, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_flowjax(state, **options)
    assert "\n" not in str(caught.value)


def test_other_transformers_are_refused():
    state = _changed("maf")
    last = f"{_FIRST}.masked_autoregressive_mlp.layers[1]"
    for name in (f"{last}.bias", f"{last}.weight.args[0]", f"{last}.weight.args[1]"):
        state[name] = np.repeat(state[name], 8, axis=1)
    with pytest.raises(ValueError, match="16 parameters, expected 2"):
        from_flowjax(state)


def test_a_planar_layer_without_a_direction_is_refused():
    state = _changed("planar")
    state[f"{_FIRST}.params"] = 0 * state[f"{_FIRST}.params"]
    with pytest.raises(ValueError, match="its w is 0"):
        from_flowjax(state)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["coupling_flow", "triangular_spline_flow"])
def test_other_flows_are_refused_by_name(kind):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    from flowjax import flows

    flow = getattr(flows, kind)(peer.jax.random.key(0), base_dist=peer.Normal(peer.jnp.zeros(3)))
    with pytest.raises(ValueError, match="represented"):
        from_flowjax(peer.leaves(flow))


@pytest.mark.peers
@pytest.mark.parametrize("name", ["maf", "bnaf"])
def test_an_unwrapped_flow_is_refused(name):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    with pytest.raises(ValueError, match=r"before paramax\.unwrap"):
        from_flowjax(peer.leaves(peer.paramax.unwrap(peer.make(name, 0))))


@pytest.mark.peers
@pytest.mark.parametrize("options", [{"nn_depth": 0}, {"activation": "LeakyTanh"}, {"activation": "tanh"}])
def test_other_block_networks_are_refused(options):
    peer = pytest.importorskip("tests.interop.peer_flowjax")
    made = {"LeakyTanh": peer.bijections.LeakyTanh(3.0), "tanh": peer.jnp.tanh}
    options = {name: made.get(option, option) for name, option in options.items()}
    base = peer.StandardNormal((3,))
    flow = peer.block_neural_autoregressive_flow(peer.jax.random.key(0), base_dist=base, **options)
    with pytest.raises(ValueError, match="cannot be represented"):
        from_flowjax(peer.leaves(flow))


def test_block_networks_are_inverted_over_the_whole_line():
    flow = flow_of(stored.load("flowjax", "bnaf"))
    noise = np.array([[-1e4, 0.0, 1e4], [1e8, -1e8, 1e8]])
    x, logdet = flow.inverse(noise)
    back, other = flow.forward(x)
    np.testing.assert_allclose(back, noise, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(logdet, -other, rtol=1e-9)
