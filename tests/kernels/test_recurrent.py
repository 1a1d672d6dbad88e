"""The recurrent kernels against the reference and autograd, one state a step, and mistakes that must be caught."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf import ops as operations
from refnaf.flows import conditionals, linear
from refnaf.flows.autoregressive import Autoregressive
from refnaf.kernels.array import recurrent, states
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import states as cpu_states
from refnaf.reference import tan
from tests import checks
from tests.cases import CASES, make, rows
from tests.reference.test_tan import each_cell, numbers

CASE = CASES["tan-D4-components=4"]
RNN = CASES["tan-D3-C2-components=4-conditional=lam-transformation=L RNN"]
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-4}
each_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])
each_backend = pytest.mark.parametrize("pieces", [states, cpu_states], ids=["numpy", "numba"])
each_context = pytest.mark.parametrize("context_dim", [0, 2])


def _inputs(name, dtype, dim, context_dim, leak=True, n=6):
    cell, out = numbers(name, dim, 3, context_dim, leak)
    rng = np.random.default_rng(1)
    x, c = 2 * rng.normal(size=(dim, n)), rng.normal(size=(context_dim, n)) if context_dim else None

    def cast(array):
        return None if array is None else array.astype(dtype)

    return cast(x), cast(c), tan.Cell(*map(cast, cell)), tan.Output(*map(cast, out))


def _wide(arguments):
    x, c, cell, out = arguments

    def cast(array):
        return None if array is None else array.astype(np.float64)

    return cast(x), cast(c), tan.Cell(*map(cast, cell)), tan.Output(*map(cast, out))


@each_cell
@each_dtype
@each_context
@pytest.mark.parametrize("dim", [1, 4])
@each_backend
def test_states_and_their_vjp_are_the_references(name, dtype, context_dim, dim, pieces):
    x, c, cell, out = _inputs(name, dtype, dim, context_dim)
    wide_x, wide_c, wide_cell, _ = _wide((x, c, cell, out))
    h, saved = states.forward(x, c, cell, name, 10.0, Workspace(), pieces)
    checks.close(h, tan.states(wide_x, wide_c, wide_cell, name, 10.0), TOLERANCE[dtype], "h")
    cotangent = np.random.default_rng(2).normal(size=h.shape).astype(dtype)

    def objective(x, c, *numbers):
        whole = tan.Cell(*numbers) if c is not None else tan.Cell(*numbers, None)
        # of one dimension the states depend on neither x nor some of the numbers
        rest = sum(anp.sum(0 * array) for array in (x, *numbers))
        return anp.sum(cotangent * tan.states(x, c, whole, name, 10.0)) + rest

    got = states.vjp(saved, cotangent.copy(), Workspace())
    arguments = wide_x, wide_c, *(array for array in wide_cell if array is not None)
    checks.close(got["x"], grad(objective)(*arguments), TOLERANCE[dtype], "x")
    for k, key in enumerate(("inputs", "state", "bias", "on_context")[: len(arguments) - 2]):
        assert got[key].dtype == dtype
        checks.close(got[key], grad(objective, 2 + k)(*arguments), TOLERANCE[dtype], key)
    if c is not None:
        checks.close(got["context"], grad(objective, 1)(*arguments), TOLERANCE[dtype], "context")


@each_cell
@each_dtype
@each_context
@pytest.mark.parametrize("leak", [True, False])
@each_backend
def test_transformations_are_the_references(name, dtype, context_dim, leak, pieces):
    x, c, cell, out = arguments = _inputs(name, dtype, 4, context_dim, leak)
    wide_x, wide_c, wide_cell, wide_out = _wide(arguments)
    y, log_slope, saved = recurrent.forward(x, c, cell, out, name, 10.0, Workspace(), pieces)
    expected = tan.transformation(wide_x, wide_c, wide_cell, wide_out, name, 10.0)
    checks.close(y, expected[0], TOLERANCE[dtype], "y")
    checks.close(log_slope, expected[1], TOLERANCE[dtype], "log dy/dx")
    back, other = recurrent.inverse(y, c, cell, out, name, 10.0, Workspace(), pieces)
    checks.close(back, x, TOLERANCE[dtype], "x")
    checks.close(other, -log_slope, TOLERANCE[dtype], "log dx/dy")
    rng = np.random.default_rng(3)
    on_y, on_logdet = rng.normal(size=y.shape).astype(dtype), rng.normal(size=y.shape[1]).astype(dtype)

    def objective(x, out):
        numbers = tan.Output(*out) if leak else tan.Output(*out, None)
        y, log_slope = tan.transformation(x, wide_c, wide_cell, numbers, name, 10.0)
        return anp.sum(on_y * y) + anp.sum(on_logdet * anp.sum(log_slope, axis=0))

    got = recurrent.vjp(saved, on_y, on_logdet, Workspace())
    plain = list(wide_out) if leak else list(wide_out[:3])
    checks.close(got["x"], grad(objective)(wide_x, plain), TOLERANCE[dtype], "x")
    for key, want, found in zip(tan.Output._fields, grad(objective, 1)(wide_x, plain), got["out"], strict=False):
        assert found.dtype == dtype
        checks.close(found, want, TOLERANCE[dtype], key)


@each_cell
def test_the_transposed_solve_undoes_the_vjp(name):
    x, c, cell, out = _inputs(name, np.float64, 5, 2)
    saved = recurrent.forward(x, c, cell, out, name, 10.0, Workspace(), states)[2]
    wanted = np.random.default_rng(4).normal(size=x.shape)
    found = recurrent.solve_transposed(saved, wanted, Workspace())
    again = recurrent.vjp(saved, found, np.zeros(x.shape[1]), Workspace())["x"]
    np.testing.assert_allclose(again, wanted, atol=1e-11)


def test_an_inverse_takes_one_step_of_the_state_a_dimension(monkeypatch):
    taken = []
    honest = states.Steps.__call__
    monkeypatch.setattr(states.Steps, "__call__", lambda self, i, before: taken.append(i) or honest(self, i, before))
    flow = make(CASE)
    flow.inverse(np.zeros((3, 4)))
    recurrences = sum(layer.kind in ("recurrent", "ram") for layer in flow.layers)
    assert recurrences == 3 and taken == list(range(4)) * recurrences


def test_lam_with_a_linear_f_is_a_masked_network_without_hidden_layers():
    """Theta linear in the dimensions before: what Autoregressive computes with ``hidden=()``."""
    mixture = {"name": "mog", "components": 2}
    ours = conditionals.LAM(3, 1, transformer_config=mixture, state=4, hidden=())
    theirs = Autoregressive(3, 1, transformer_config=mixture, hidden=())
    rng = np.random.default_rng(5)
    params = {name: rng.normal(size=array.shape) for name, array in ours.initial(rng).items()}
    params["linear.weight"] *= ours.mask
    f = params["weight.0"]

    def through(name):
        """Rows of the two linear maps, one behind the other, by dimension."""
        array = params[f"linear.{name}"].reshape(4, 3, -1)
        return np.einsum("pk,kij->ipj", f, array).reshape(18, -1)

    same = {"weight.0": through("weight"), "context.0": through("context")}
    same["bias.0"] = through("bias")[:, 0] + params["bias.0"]
    x, c = rng.normal(size=(3, 7)), rng.normal(size=(1, 7))
    from refnaf.ops import ArrayOps

    got = ours.pseudo_parameters(ArrayOps(), params, x, c)[0]
    np.testing.assert_allclose(got, theirs.pseudo_parameters(ArrayOps(), same, x, c)[0], rtol=1e-11, atol=1e-12)


def test_a_linear_layer_is_a_product_of_triangular_matrices():
    layer = linear.LU(4)
    rng = np.random.default_rng(6)
    params = {
        name: rng.normal(size=array.shape) * layer.masks().get(name, 1) for name, array in layer.initial(rng).items()
    }
    x = rng.normal(size=(4, 5))
    y, logdet, _ = layer.forward(operations.make("numpy"), params, x, None)
    scale = np.exp(params["log_diagonal"])
    lower = scale[:, None] * (np.eye(4) + params["lower"]) / scale
    upper = scale[:, None] * (np.eye(4) + params["upper"])
    assert np.array_equal(lower, np.tril(lower)) and np.array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(np.diag(lower), 1)
    np.testing.assert_allclose(y, lower @ upper @ x + params["shift"][:, None], rtol=1e-12)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(lower @ upper)[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"conditional": "nade"}, "conditional must be one of ram, lam, not 'nade'"),
        ({"transformation": "L GRU"}, "transformation must be 'none' or words of L, RNN, SRNN, not 'L GRU'"),
        ({"transformation": ""}, "transformation must be"),
        ({"state": 0}, "state must be a whole number"),
        ({"state": 2.5}, "state must be a whole number"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"permutation": "odd"}, "permutation must be"),
        ({"units": 3}, "no option 'units'"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(ValueError, match=says):
        refnaf.build("tan", 2, **options)


def test_what_the_layers_refuse():
    from refnaf.flows.recurrent import Recurrent

    with pytest.raises(ValueError, match="form of a recurrent layer"):
        Recurrent(2, form="lstm")
    with pytest.raises(ValueError, match="cell must be one of"):
        Recurrent(2, cell="lstm")
    with pytest.raises(ValueError, match="at least 1 number"):
        Recurrent(2, state=0)
    with pytest.raises(ValueError, match="must be positive"):
        conditionals.RAM(2, transformer_config={"name": "mog"}, hidden=(0,))


def test_words_may_be_joined_by_a_plus():
    plain, joined = (refnaf.build("tan", 3, transformation=text, flows=2) for text in ("L RNN", "L+RNN"))
    assert plain.config == joined.config
    kinds = [layer.kind for layer in plain.layers]
    assert kinds == ["standardise", "lu", "recurrent", "permutation", "lu", "recurrent", "ram"]


# mistakes


def _scaled(function, key, factor):
    def planted(*args, **kwargs):
        out = function(*args, **kwargs)
        out[key] = out[key] * factor
        return out

    return planted


@pytest.mark.parametrize("key", ["x", "inputs", "state", "bias"])
def test_a_wrong_vjp_of_the_states_is_caught(monkeypatch, key):
    monkeypatch.setattr(states.Back, "totals", _scaled(states.Back.totals, key, 1.001))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(CASE), *rows(CASE, 5), 1e-9)


@pytest.mark.parametrize("key", ["context", "on_context"])
def test_a_wrong_vjp_of_the_context_is_caught(monkeypatch, key):
    monkeypatch.setattr(states.Back, "totals", _scaled(states.Back.totals, key, 1.001))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(RNN), *rows(RNN, 5), 1e-9)


@pytest.mark.parametrize("place", range(4))
def test_a_wrong_vjp_of_the_output_is_caught(monkeypatch, place):
    honest = recurrent.vjp

    def planted(*args):
        found = honest(*args)
        out = list(found["out"])
        out[place] = out[place] * 1.001
        return {**found, "out": tan.Output(*out)}

    monkeypatch.setattr(recurrent, "vjp", planted)
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(RNN), *rows(RNN, 5), 1e-9)


def test_a_state_that_sees_its_own_dimension_is_caught(monkeypatch):
    honest = states.Steps.__call__

    def planted(self, i, before):
        return honest(self, i, self.all_of_x[i] if i else None)

    def forward(x, *rest):
        monkeypatch.setattr(states.Steps, "all_of_x", x, raising=False)
        return plain(x, *rest)

    plain = states.forward
    monkeypatch.setattr(states, "forward", forward)
    monkeypatch.setattr(states.Steps, "__call__", planted)
    with pytest.raises(AssertionError, match="not before it"):
        checks.triangular(make(CASE), *rows(CASE, 6))


def test_a_determinant_without_the_leaks_is_caught(monkeypatch):
    monkeypatch.setattr(recurrent, "leaky", lambda t, leak: (tan.leaky(t, leak)[0], np.zeros_like(t)))
    with pytest.raises(AssertionError):
        checks.log_determinant(make(RNN), *rows(RNN, 5), 1e-10)


def test_a_wrong_inverse_is_caught(monkeypatch):
    honest = recurrent.inverse
    monkeypatch.setattr(recurrent, "inverse", lambda *args: (honest(*args)[0] * (1 + 1e-6), honest(*args)[1]))
    with pytest.raises(AssertionError, match="round trip"):
        checks.round_trip(make(CASE), *rows(CASE, 5), 1e-9)


def test_a_wrong_implicit_vjp_is_caught(monkeypatch):
    monkeypatch.setattr(recurrent, "solve_transposed", lambda saved, wanted, ws: wanted.copy())
    with pytest.raises(AssertionError, match="gradient"):
        checks.inverse_gradients(make(CASE, spread=0.15), *rows(CASE, 4, scale=1.0), 1e-7)
