"""Flows of zuko, against its stored numbers and, where it is installed, against fresh ones."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf.flows.fixed import Softclip
from refnaf.interop import from_zuko
from refnaf.interop.zuko import parameters
from tests import checks
from tests.interop import stored

CASES = stored.names("zuko")
#: zuko's inverse of a NAF bisects to 1e-6 in each transform, and errors grow from one to the next.
BISECTION = 1e-3


def flow_of(numbers):
    return from_zuko(stored.state(numbers), **stored.config(numbers))


def check_values(numbers, tolerance=1e-10):
    """The flow is theirs: noise, log-determinant and nats of x, and the inverse."""
    flow, context = flow_of(numbers), numbers.get("context")
    z, logdet = flow.forward(numbers["x"], context)
    stored.agree(z, numbers["y"], tolerance)
    stored.agree(logdet, numbers["logdet"], tolerance)
    stored.agree(flow.log_prob(numbers["x"], context), numbers["log_prob"], tolerance)
    naf = flow.model == "maf-monotonic"
    x, back_logdet = flow.inverse(numbers["back_y"], context)
    stored.agree(x, numbers["back_x"], BISECTION if naf else tolerance)
    again, logdet = flow.forward(x, context)
    stored.agree(again, numbers["back_y"], tolerance)
    stored.agree(logdet, -back_logdet, 1e-9)


def test_the_stored_cases_are_there():
    assert len(CASES) == 13


@pytest.mark.parametrize("name", CASES)
def test_stored_numbers(name):
    check_values(stored.load("zuko", name))


@pytest.mark.peers
@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("name", CASES)
def test_fresh_numbers(name, seed):
    peer = pytest.importorskip("tests.interop.peer_zuko")
    check_values(peer.random(name, seed))


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["MAF", "NAF"])
@pytest.mark.parametrize(("dim", "context_dim"), [(2, 0), (6, 3)])
def test_their_default_sizes(kind, dim, context_dim):
    peer = pytest.importorskip("tests.interop.peer_zuko")
    peer.CASES["default"] = (getattr(peer, kind), dim, context_dim, {"randperm": True}, {})
    check_values(peer.random("default", 3, scale=0.05))


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_torchs(name):
    peer = pytest.importorskip("tests.interop.peer_zuko")
    state, data, expected = peer.gradients(name, 4)
    told = peer.CASES[name][4]
    flow = from_zuko(state, **told)

    def nats(trained):
        return anp.mean(flow.log_prob(**data, params=parameters({**state, **trained}, **told)))

    got = grad(nats)({k: state[k] for k in expected})
    for name in expected:
        checks.close(got[name], expected[name], 1e-9, name)


@pytest.mark.parametrize("name", ["maf-residual-context", "naf", "naf-context", "naf-one-context"])
def test_the_flow_has_every_property(name):
    numbers = stored.load("zuko", name)
    flow, x, context = flow_of(numbers), numbers["x"], numbers.get("context")
    checks.log_determinant(flow, x, context, 1e-10)
    checks.twins(flow, x, context, 1e-12)
    checks.gradients(flow, x, context, 1e-8)
    checks.round_trip(flow, x, context, 1e-9)
    checks.twins(flow.astype("float32"), x, context, 1e-3)


def test_the_file_holds_the_flow(tmp_path):
    numbers = stored.load("zuko", "naf")
    flow = flow_of(numbers)
    flow.save(tmp_path / "flow.safetensors")
    back = refnaf.load(tmp_path / "flow.safetensors")
    assert back.config == flow.config
    np.testing.assert_array_equal(back.log_prob(numbers["x"]), flow.log_prob(numbers["x"]))
    assert sum(isinstance(layer, Softclip) for layer in back.layers) == 1


def test_a_network_that_all_features_share():
    numbers = stored.load("zuko", "naf")
    state = stored.state(numbers)
    one = {k: v[0] if ".univariate." in k else v for k, v in state.items()}
    same = {k: np.stack([v] * 3) if ".univariate." in k else v for k, v in one.items()}
    x = numbers["x"]
    np.testing.assert_array_equal(from_zuko(one).log_prob(x), from_zuko(same).log_prob(x))


def test_the_base_may_be_named_by_position_or_left_out():
    numbers = stored.load("zuko", "maf-context")
    state, x, context = stored.state(numbers), numbers["x"], numbers["context"]
    told = stored.config(numbers)
    old = {k.replace("base.loc", "base._0").replace("base.scale", "base._1"): v for k, v in state.items()}
    assert (state["base.loc"] != 0).all()
    nats = [from_zuko(s, **told).log_prob(x, context) for s in (state, old)]
    np.testing.assert_array_equal(*nats)
    alone = {k: v for k, v in state.items() if "base." not in k}
    z = from_zuko(alone, **told).forward(x, context)[0]
    stored.agree((z - state["base.loc"]) / state["base.scale"], numbers["y"])


def _changed(name, drop=(), **extra):
    state = {k: v for k, v in stored.state(stored.load("zuko", name)).items() if not k.startswith(tuple(drop))}
    return {**state, **{k.replace("__", "."): v for k, v in extra.items()}}


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({}, {}, "the state is empty"),
        ([1], {}, "mapping of names"),
        (_changed("maf"), {"activation": "silu"}, "activation must be one of"),
        (_changed("maf"), {"slope": 0.0}, "slope must be between 0 and 1"),
        (_changed("maf", base__lower=np.zeros(4)), {}, "base.lower"),
        (_changed("maf", transform__transforms__0__A=np.eye(4)), {}, "GF"),
        (_changed("maf", transform__transforms__0__mask=np.ones(4)), {}, "coupling"),
        (_changed("maf", transform__ode__0__weight=np.eye(4)), {}, "CNF"),
        (_changed("maf", transform__transforms__0__univariate__integrand__0__weight=np.eye(4)), {}, "UNAF"),
        (_changed("maf", transform__transforms__0__more=np.eye(4)), {}, "holds what cannot be represented: more"),
        (_changed("maf", drop=["transform.transforms.0."]), {}, "place 0 has no numbers"),
        (_changed("maf", transform__transforms__3__order=np.arange(4)), {}, "place 2 has no numbers"),
        (_changed("naf", drop=["transform.transforms.0.univariate."]), {}, "2 numbers a feature|no numbers"),
        (_changed("maf-one", drop=["base", "transform.transforms.0.phi.1"]), {}, "1 numbers a feature, expected 2"),
        (_changed("maf-one-context", transform__transforms__0__hyper__3__weight=np.eye(5)), {}, "normalize=True"),
    ],
)
def test_what_cannot_be_represented_is_refused(state, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_zuko(state, **options)
    assert "\n" not in str(caught.value)


def test_contexts_of_different_widths_are_refused():
    state = _changed("maf-one-context")
    name = "transform.transforms.1.hyper.0.weight"
    with pytest.raises(ValueError, match="different widths"):
        from_zuko({**state, name: state[name][:, :1]})


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["NSF", "NICE", "RealNVP", "SOSPF", "BPF", "NCSF", "CNF", "UNAF", "GF", "GMM"])
def test_other_flows_are_refused_by_name(kind):
    zuko = pytest.importorskip("zuko")
    flow = getattr(zuko.flows, kind)(3, 2)
    with pytest.raises(ValueError, match=r"represented|belongs to neither"):
        from_zuko({k: v.numpy() for k, v in flow.state_dict().items()})
