"""What a differentiated flow keeps for its backward pass: right however the graph is used, and given back."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad, jacobian, make_vjp

from refnaf.flows import differentiable
from tests.cases import CASES, make, rows
from tests.checks import close, reference_log_prob

NAMES = ("maf-ddsf-D3-C2-units=5", "iaf-D2", "made-mog-D3-C2-components=4", "planar-D2", "bnaf-D3-C2")
KEPT = (differentiable.MOST_KEPT, 0)
BACKENDS = ("numpy", "numba")


@pytest.fixture(
    params=[(n, b, k) for n in NAMES for b in BACKENDS for k in KEPT], ids=lambda p: f"{p[0]}-{p[1]}-{p[2]}"
)
def subject(request, monkeypatch):
    """A flow in several chunks, its rows and context; and whether runs are kept or not."""
    name, backend, kept = request.param
    monkeypatch.setattr(differentiable, "MOST_KEPT", kept)
    flow = make(CASES[name], backend=backend)
    flow._chunk = 4
    return flow, *rows(CASES[name], 9)


def _expected(flow, x, context, weights):
    """Gradients of the weighted log-densities with respect to x and to the parameters, by the reference."""

    def loss(x, params):
        return anp.sum(weights * reference_log_prob(flow, x, context, params))

    return grad(loss)(x, dict(flow.params)), grad(loss, 1)(x, dict(flow.params))


def _agree(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        close(got[name], array, 1e-8, name)


def test_a_graph_whose_answer_is_dropped_and_another_made(subject):
    flow, x, context = subject
    weights = np.linspace(0.5, 1.5, len(x))
    vjp, answer = make_vjp(lambda p: flow.log_prob(x, context, p))(dict(flow.params))
    del answer
    gc.collect()
    # the buffers of the first must not have been given to this
    make_vjp(lambda p: flow.log_prob(x + 1, context, p))(dict(flow.params))
    flow.log_prob(x - 1, context)
    _agree(vjp(weights), _expected(flow, x, context, weights)[1])


def test_two_graphs_alive_at_once(subject):
    flow, x, context = subject
    weights = np.linspace(0.5, 1.5, len(x))
    first, _ = make_vjp(lambda p: flow.log_prob(x, context, p))(dict(flow.params))
    second, _ = make_vjp(lambda p: flow.log_prob(x + 1, context, p))(dict(flow.params))
    got = second(weights), first(weights)
    _agree(got[0], _expected(flow, x + 1, context, weights)[1])
    _agree(got[1], _expected(flow, x, context, weights)[1])


def test_one_graph_through_the_same_flow_twice(subject):
    flow, x, context = subject

    def loss(params):
        return anp.sum(flow.log_prob(x, context, params)) - 0.5 * anp.sum(flow.log_prob(-x, context, params))

    expected, other = (_expected(flow, s * x, context, np.ones(len(x)))[1] for s in (1, -1))
    _agree(grad(loss)(dict(flow.params)), {k: expected[k] - 0.5 * other[k] for k in expected})


def test_a_pull_may_be_repeated(subject):
    flow, x, context = subject
    vjp, _ = make_vjp(lambda p: flow.log_prob(x, context, p))(dict(flow.params))
    rng = np.random.default_rng(0)
    for weights in rng.normal(size=(3, len(x))):
        first = {name: array.copy() for name, array in vjp(weights).items()}
        again = vjp(weights)
        for name, array in first.items():
            np.testing.assert_array_equal(again[name], array)
        _agree(first, _expected(flow, x, context, weights)[1])


@pytest.mark.parametrize("method", ["log_prob", "forward", "inverse"])
def test_jacobians_are_the_gradients_of_each_entry(subject, method):
    flow, x, context = subject
    x, context, flow._chunk = x[:3], None if context is None else context[:3], 2
    if method == "inverse":
        x = flow.forward(x, context)[0]

    def image(point):
        out = getattr(flow, method)(point, context)
        return out if method == "log_prob" else anp.concatenate([out[0], out[1][:, None]], axis=1)

    whole = jacobian(image)(x)
    for index in list(np.ndindex(*whole.shape[: -x.ndim]))[::3]:
        one = grad(lambda point, index=index: image(point)[index])(x)
        np.testing.assert_array_equal(whole[index], one)
    # a row depends on itself alone
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        assert (whole[i][..., others, :] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kept", KEPT)
def test_parameters_come_as_any_mapping(backend, kept, monkeypatch):
    monkeypatch.setattr(differentiable, "MOST_KEPT", kept)
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow, (x, context) = make(case, backend=backend), rows(case, 5)
    expected_x, expected = _expected(flow, x, context, np.ones(5))

    def loss(params):
        return anp.sum(flow.log_prob(x, context, params))

    # a plain dict that nothing traces, beside traced rows
    for params in (dict(flow.params), flow.params, None):
        got = grad(lambda x, params=params: anp.sum(flow.log_prob(x, context, params)))(x)
        close(got, expected_x, 1e-8)
    # other things in the traced dict
    more = {"scale": 2.0, "head": [np.ones(2), {"bias": np.zeros(3)}], **flow.params}
    got = grad(lambda p: p["scale"] * loss(p) + anp.sum(p["head"][0]))(more)
    assert list(got) == list(more)
    assert got["scale"] == pytest.approx(loss(flow.params))
    np.testing.assert_array_equal(got["head"][0], 1)
    np.testing.assert_array_equal(got["head"][1]["bias"], 0)
    _agree({k: got[k] for k in flow.params}, {k: 2 * v for k, v in expected.items()})
    # some of them traced, in another order
    chosen = [name for name in flow.params if "weight" in name][::-1]
    got = grad(lambda some: loss({**flow.params, **{k: some[k] for k in chosen}}))({k: flow.params[k] for k in chosen})
    _agree({k: got[k] for k in chosen}, {k: expected[k] for k in chosen})


def test_float64_parameters_of_a_float32_flow_have_float64_gradients():
    case = CASES["maf-D2"]
    flow, (x, _) = make(case, dtype="float32"), rows(case, 5)
    params = {name: array.astype(np.float64) for name, array in flow.params.items()}
    got = grad(lambda p: anp.sum(flow.log_prob(x, params=p)))(params)
    assert {array.dtype for array in got.values()} == {np.dtype(np.float64)}
    _, expected = _expected(flow.astype("float64"), x, None, np.ones(5))
    for name, array in expected.items():
        close(got[name], array, 1e-4, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_of_one_row_for_all_gathers_their_gradients(backend):
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow, (x, context) = make(case, backend=backend), rows(case, 6)
    one = context[:1]
    each = grad(lambda c: anp.sum(flow.log_prob(x, c)))(np.repeat(one, 6, axis=0))
    close(grad(lambda c: anp.sum(flow.log_prob(x, c)))(one), each.sum(axis=0, keepdims=True), 1e-12)
    close(grad(lambda c: anp.sum(flow.log_prob(x[:1], c)))(one), each[:1], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["log_prob", "forward", "inverse"])
def test_no_rows_have_gradients_of_zeros(method, backend):
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow = make(case, backend=backend)
    x, context = np.zeros((0, 3)), np.zeros((0, 2))

    def loss(x, context, params):
        out = getattr(flow, method)(x, context, params)
        return anp.sum(out) if method == "log_prob" else anp.sum(out[0]) + anp.sum(out[1])

    assert grad(loss)(x, context, dict(flow.params)).shape == (0, 3)
    assert grad(loss, 1)(x, context, dict(flow.params)).shape == (0, 2)
    got = grad(loss, 2)(x, context, dict(flow.params))
    assert all(got[name].shape == array.shape and not got[name].any() for name, array in flow.params.items())


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["maf-D4", "maf-dsf-D2-units=5", "made-mog-D2-components=4", "bnaf-D2"])
def test_where_float32_overflows_values_and_gradients_are_those_of_float64(name, backend, kept, monkeypatch):
    monkeypatch.setattr(differentiable, "MOST_KEPT", kept)
    flow = make(CASES[name], dtype="float32", backend=backend)
    x = np.full((3, flow.dim), 1e60)
    x[1] = 0.5
    x[2] = -1e30
    vjp, answer = make_vjp(lambda x: flow.log_prob(x))(x)
    np.testing.assert_array_equal(answer, flow.log_prob(x))
    expected = elementwise_grad(flow.astype("float64").log_prob)(x)
    assert np.isfinite(answer).all() and np.isfinite(expected).all()
    np.testing.assert_allclose(vjp(np.ones(3)), expected, rtol=1e-6)


def test_the_refused_are_refused_in_one_line_and_leave_nothing(recwarn):
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow, (x, context) = make(case), rows(case, 4)
    before = len(differentiable._runs)
    wrong = {**flow.params, "1.weight.0": np.zeros((2, 2))}
    for arguments, says in [
        ((x * np.nan, context, dict(flow.params)), "NaN or inf"),
        ((x[:, :2], context, dict(flow.params)), "must have shape"),
        ((x, context[:3], dict(flow.params)), "as many rows"),
        ((x, None, dict(flow.params)), "needs a context"),
        (
            (x, context, {"1.weight.0": flow.params["1.weight.0"]}),
            "must hold every parameter of the flow: .* is missing",
        ),
        ((x, context, wrong), "parameter 1.weight.0 must have shape"),
    ]:
        for argnum in (0, 2):
            with pytest.raises(ValueError, match=says) as caught:
                grad(lambda x, c, p: anp.sum(flow.log_prob(x, c, p)), argnum)(*arguments)
            assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=says):
            flow.log_prob(*arguments)
    with pytest.raises(ValueError, match="first derivatives alone"):
        grad(lambda x: anp.sum(grad(lambda y: anp.sum(flow.log_prob(y, context)))(x) ** 2))(x)
    del caught
    gc.collect()
    assert len(differentiable._runs) == before
    assert not recwarn.list


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["log_prob", "forward", "inverse"])
def test_memory_is_given_back(method, backend):
    case = CASES["maf-dsf-D2-units=5"]
    flow, (x, _) = make(case, backend=backend), rows(case, 30)
    flow._chunk = 4  # more chunks than operations are spared

    def loss(params):
        out = getattr(flow, method)(x, params=params)
        return anp.sum(out) if method == "log_prob" else anp.sum(out[0] ** 2) + anp.sum(out[1])

    gc.collect()
    before = len(differentiable._runs)
    for _ in range(8):
        grad(loss)(dict(flow.params))
    vjps = [make_vjp(loss)(dict(flow.params)) for _ in range(3)]
    del vjps
    gc.collect()
    assert len(differentiable._runs) == before
    assert len(differentiable._spare[backend]) <= differentiable.MOST_SPARE


def test_an_answer_that_lives_to_the_end_of_the_process_is_no_trouble():
    code = """
import autograd.numpy as np, refnaf
from autograd import make_vjp
flow = refnaf.build("maf", 2, flows=1, hidden=(4,))
vjp, answer = make_vjp(lambda x: flow.log_prob(x))(np.zeros((3, 2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_threads_of_a_program_may_differentiate_at_the_same_time():
    case = CASES["maf-dsf-D2-units=5"]
    flow, (x, _) = make(case), rows(case, 40)

    def one(k):
        return grad(lambda p: anp.sum(flow.log_prob(x + k, params=p)))(dict(flow.params))

    expected = [one(k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, [k % 8 for k in range(64)]))
    for k, got in enumerate(found):
        for name, array in expected[k % 8].items():
            np.testing.assert_array_equal(got[name], array)
