"""The oracle's layers against float64, against their own difference quotients, and at the edges of their images."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.block import Block
from refnaf.flows.conditionals import LAM, RAM
from refnaf.flows.fixed import Permutation, Softclip, Standardise, Triangular
from refnaf.flows.flow import Flow
from refnaf.flows.layer import Layer
from refnaf.flows.linear import LU
from refnaf.flows.planar import Planar
from refnaf.flows.recurrent import Recurrent
from refnaf.verify import oracle, oracle_layers
from refnaf.verify.oracle_values import Value
from refnaf.verify.precision import mpmath, rounded
from tests.cases import CASES, make
from tests.verify.errors import relative

mp = mpmath().mp


#: Layers that no model has by default.
SPECIAL = {
    "block-none": lambda d, c: Block(d, c, hidden=(3,), residual="none"),
    "block-leak": lambda d, c: Block(d, c, hidden=(3, 2), residual="none", leak=0.01, bound=None),
    "block-epsilon": lambda d, c: Block(d, c, hidden=(3, 2), residual="gated", epsilon=1e-3),
    "block-normal": lambda d, c: Block(d, c, hidden=(4,), residual="normal", leak=0.1, bound=2.0),
    "planar": lambda d, c: Planar(d, c, bound=None),
    "mean-elu": lambda d, c: _network(d, c, name="mean", units=3),
    "mean-leakyrelu": lambda d, c: _network(d, c, name="mean", units=3, activation="leakyrelu"),
    "mog-floor": lambda d, c: _network(d, c, name="mog", components=3, floor=1e-3),
    "lu": lambda d, c: LU(d, c),
    "rnn-relu": lambda d, c: Recurrent(d, c, form="rnn", state=3, cell="relu"),
    "srnn-tanh": lambda d, c: Recurrent(d, c, form="srnn", state=3, cell="tanh", bound=2.0),
    "ram-tanh": lambda d, c: RAM(d, c, transformer_config={"name": "affine"}, state=3, hidden=(4,), cell="tanh"),
    "lam-relu": lambda d, c: LAM(d, c, transformer_config={"name": "dsf", "units": 3}, state=3, activation="relu"),
    "monotonic": lambda d, c: _network(d, c, name="monotonic", signal=3, hidden=(4, 3)),
    "monotonic-line": lambda d, c: _network(d, c, name="monotonic", signal=3, hidden=()),
}


def _network(dim, context_dim, **config):
    return Autoregressive(dim, context_dim, transformer_config=config, hidden=(4,), order="reversed")


def _special(name, dim=2, context_dim=1):
    """A flow of that layer alone, away from the identity."""
    rng = np.random.default_rng(5)
    layer = SPECIAL[name](dim, context_dim)
    params = {f"1.{k}": a + 0.3 * rng.normal(size=a.shape) for k, a in layer.initial(rng).items()}
    return Flow([Standardise(dim, context_dim), layer], params, model="maf", dtype="float64")


@pytest.mark.parametrize("name", SPECIAL)
def test_layers_with_special_options(name):
    flow = _special(name)
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    x[1] *= [1e6, -1e6]
    true = oracle.evaluate(flow, x, context, digits=30).rounded()
    z, logdet = flow.forward(x, context)
    assert relative(z, true.z) < 1e-14
    assert relative(logdet, true.logdet) < 1e-14
    usual, usual_context = x[::2], context[::2]
    there = oracle.invert(flow, true.z[::2], usual_context, digits=30).rounded()
    # z was rounded to float64 on the way
    assert relative(there.z, usual) < 1e-13
    assert relative(there.logdet, -true.logdet[::2]) < 1e-13


#: Flows by name whose Jacobian is written in no other way than as a product of slopes.
JACOBIANS = {
    **{name: lambda name=name: _special(name) for name in SPECIAL if name != "block-epsilon"},
    **{name: lambda name=name: make(CASES[f"{name}-D3-C2"]) for name in ("bnaf", "planar")},
}


@pytest.mark.parametrize("name", JACOBIANS)
def test_log_determinants_are_those_of_the_jacobian(name):
    flow = JACOBIANS[name]()
    x, context = np.full(flow.dim, 0.375), np.full((1, flow.context_dim), 0.5)
    step = 2.0**-48
    sides = [[x + sign * step * unit for unit in np.eye(flow.dim)] for sign in (1, -1)]
    high, low = (oracle.evaluate(flow, points, context.repeat(flow.dim, 0)).z for points in sides)
    true = oracle.evaluate(flow, x[None], context)
    with mp.workdps(60):
        jacobian = mp.matrix(((high - low) / (2 * mp.mpf(step))).tolist())
        # the difference quotient is off by the third derivative times the step squared
        assert abs(mp.log(abs(mp.det(jacobian))) - true.logdet[0]) < mp.mpf(10) ** -26


def test_slopes_with_an_epsilon_are_not_quite_those_of_the_map():
    plain, flow = _special("block-epsilon"), _special("block-epsilon")
    plain.layers[1].epsilon = 0.0
    x, context = np.array([[0.3, -0.7]]), np.array([[0.5]])
    with_it, without = (oracle.evaluate(f, x, context).rounded() for f in (flow, plain))
    assert 1e-5 < abs(with_it.logdet - without.logdet) < 1e-2
    assert 1e-5 < np.max(np.abs(with_it.z - without.z)) < 1e-2


def test_a_bounded_image_has_no_inverse_outside():
    flow = _special("block-none")
    context = np.array([[0.5]])
    highest = oracle.evaluate(flow, [[1e6, 1e6]], context).rounded().z
    with pytest.raises(ValueError, match="no inverse outside its bounded image"):
        oracle.invert(flow, highest + np.array([[1e-9, 0.0]]), context)
    inside = oracle.evaluate(flow, [[3.0, -3.0]], context).rounded().z
    within = oracle.invert(flow, inside, context).rounded().z
    assert relative(within, np.array([[3.0, -3.0]])) < 1e-11


def test_a_planar_layer_without_a_direction_is_a_shift():
    u, b = np.array([0.5, -2.0]), np.array([0.75])
    flow = Flow([Standardise(2), Planar(2)], {"1.u": u, "1.w": np.zeros(2), "1.b": b}, model="planar", dtype="float64")
    true = oracle.evaluate(flow, [[1.0, 3.0]]).rounded()
    np.testing.assert_allclose(true.z, [[1.0, 3.0]] + u * np.tanh(b), rtol=1e-15)
    assert true.logdet[0] == 0
    np.testing.assert_allclose(oracle.invert(flow, true.z).rounded().z, [[1.0, 3.0]], rtol=1e-15)


def test_layers_without_a_network():
    rng = np.random.default_rng(0)
    layers = [Standardise(3), Permutation(3, order=[2, 0, 1]), Softclip(3, bound=5.0), Triangular(3)]
    layers[0].buffers["scale"][...] = [0.5, 3.0, 1e-3]
    layers[0].buffers["mean"][...] = [1.0, -1.0, 1e3]
    params = {"3.lower": rng.normal(size=(3, 3)), "3.log_diagonal": rng.normal(size=3), "3.shift": rng.normal(size=3)}
    flow = Flow(layers, params, model="gaussian", dtype="float64")
    x = rng.normal(size=(4, 3)) + np.array([1.0, -1.0, 1e3])
    true = oracle.evaluate(flow, x)
    z, logdet = flow.forward(x)
    assert relative(z, rounded(true.z)) < 1e-12
    assert relative(logdet, rounded(true.logdet)) < 1e-12
    back = oracle.invert(flow, z).rounded()
    assert relative(back.z, x) < 1e-12
    with pytest.raises(ValueError, match="no inverse outside its bound"):
        oracle.invert(flow, 1e3 * np.ones((1, 3)))
    assert all(layer.theta is None for layer in true.layers)


def test_a_new_layer_is_one_entry_and_one_function(monkeypatch):
    class Double(Layer):
        kind = "double"

        def forward(self, ops, params, x, context):
            return 2 * x, np.full(x.shape[1], self.dim * np.log(2)), None

    flow = Flow([Standardise(2), Double(2)], {}, model="gaussian", dtype="float64")
    with pytest.raises(ValueError, match="no equation for layers of kind 'double'"):
        oracle.evaluate(flow, [[1.0, 2.0]])

    def double(layer, params, x, context):
        return Value([2 * value for value in x], len(x) * mp.log(2))

    monkeypatch.setitem(oracle_layers.LAYERS, "double", double)
    true = oracle.evaluate(flow, [[1.0, 2.0]]).rounded()
    np.testing.assert_array_equal(true.z, [[2.0, 4.0]])
    np.testing.assert_allclose(flow.log_prob([[1.0, 2.0]]), true.log_prob, rtol=1e-15)
    with pytest.raises(ValueError, match="INVERSES"):
        oracle.invert(flow, [[1.0, 2.0]])
