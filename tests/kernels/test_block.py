"""The block network's array twin: values, VJPs, tails, inverse, solves; and mistakes that must be caught."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import grad
from autograd import numpy as anp

import refnaf
from refnaf import ops
from refnaf.flows import Flow
from refnaf.flows.block import Block
from refnaf.flows.fixed import Permutation, Standardise
from refnaf.kernels.array import block, block_inverse
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import block as reference
from tests import checks
from tests.cases import CASES, make, rows
from tests.reference.test_block import network

FORMS = reference.RESIDUALS
WHOLE_LINE = [form for form in FORMS if form != "none"]
#: Residual forms with an option that other libraries have.
SPECIAL = [
    ("none", {"leak": 0.01, "bound": None}),
    ("linear", {"leak": 0.2}),
    ("none", {"epsilon": 0.05}),
    ("gated", {"epsilon": 0.05, "leak": 0.1}),
    ("normal", {"epsilon": 1e-8}),
]
TOLERANCE = {np.float64: 1e-12, np.float32: 3e-5}
CASE = CASES["bnaf-D4"]


def _cast(net, dtype):
    lists = ([a.astype(dtype) for a in part] for part in net[:4])
    return reference.Network(*lists, net.residual, None if net.mix is None else net.mix.astype(dtype), *net[6:])


def _points(dim, n, scale, dtype=np.float64, context_dim=0, seed=1):
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(dim, n))).astype(dtype)
    return x, rng.normal(size=(context_dim, n)).astype(dtype) if context_dim else None


def _close(got, expected, tolerance):
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    assert np.max(np.abs(got - expected)) <= tolerance * max(1, np.max(np.abs(expected)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize(("residual", "options"), [*((form, {}) for form in FORMS), *SPECIAL])
def test_values_and_vjps_are_the_references_over_the_whole_range(residual, options, context_dim, scale, dtype):
    net = _cast(network(3, (5, 4), context_dim, residual, **options), dtype)
    wide = _cast(net, np.float64)
    x, context = _points(3, 6, scale, dtype, context_dim)
    x64, context64 = x.astype(np.float64), None if context is None else context.astype(np.float64)
    y, log_slope, saved = block.forward(x, context, net, ws=Workspace())
    expected = reference.block(x64, context64, wide)
    _close(y, expected[0], TOLERANCE[dtype])
    _close(log_slope, expected[1], TOLERANCE[dtype])
    rng = np.random.default_rng(2)
    grad_y, grad_slope = rng.normal(size=x.shape).astype(dtype), rng.normal(size=(1, 6)).astype(dtype)

    def objective(x, context, weights, gains, biases, contexts, mix):
        net = reference.Network(weights, gains, biases, contexts, residual, mix, *wide[6:])
        y, log_slope = reference.block(x, context, net)
        return anp.sum(grad_y * y) + anp.sum(grad_slope * log_slope)

    arguments = (x64, context64, *wide[:4], wide.mix)
    out = block.vjp(saved, grad_y, grad_slope, Workspace())
    assert out["x"].dtype == dtype
    tolerance = 10 * TOLERANCE[dtype] * (1 if dtype == np.float64 else min(scale, 30))
    for k, name in enumerate(("x", "context", "weights", "gains", "biases", "contexts", "mix")):
        if arguments[k] is None or (name == "contexts" and not context_dim):
            assert out[name] is None or name == "contexts"
            continue
        with np.errstate(over="ignore"):  # autograd divides by cosh(z)^2
            wanted = grad(objective, k)(*arguments)
        for got, each in zip(out[name], wanted, strict=True) if isinstance(wanted, list) else [(out[name], wanted)]:
            _close(got, each, tolerance)


@pytest.mark.parametrize("residual", FORMS)
def test_far_out_slopes_are_exact_where_they_underflow(residual):
    net = network(2, residual=residual)
    x = np.array([[1e3, -1e5, 1e30, 2.0], [1e3, 1e5, -1e30, 1e3]])
    y, log_slope, saved = block.forward(x, None, net, ws=Workspace())
    expected = reference.block(x, None, net)
    np.testing.assert_allclose(y, expected[0], rtol=1e-13)
    np.testing.assert_allclose(log_slope, expected[1], rtol=1e-13)
    out = block.vjp(saved, np.ones_like(x), np.ones((1, 4)), Workspace())
    lists = [part if isinstance(part, list) else [part] for part in out.values() if part is not None]
    assert all(np.isfinite(a).all() for part in lists for a in part if a is not None)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("residual", WHOLE_LINE)
def test_the_inverse_returns_x(residual, scale, dtype):
    net = _cast(network(4, (6, 5), 2, residual, spread=0.5), dtype)
    x, context = _points(4, 300, scale, dtype, 2)
    y, log_slope, _ = block.forward(x, context, net, ws=Workspace())
    back, other, residual = block_inverse.inverse(y, context, net, ws=Workspace())
    tolerance = 1e-9 if dtype == np.float64 else 2e-3
    assert np.max(np.abs(back - x) / (1 + np.abs(x))) <= tolerance
    eps = np.finfo(dtype).eps
    assert np.max(np.abs(residual) / (1 + np.abs(y))) <= 64 * eps
    assert np.max(np.abs(other + log_slope)) <= 1e3 * tolerance


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("sizes", [(6,), (6, 5), (4, 3, 4)])
@pytest.mark.parametrize(("residual", "leak"), [("none", 0.01), ("none", 0.5), ("gated", 0.1), ("linear", 1.0)])
def test_with_a_leak_every_y_has_an_inverse(residual, leak, sizes, scale, dtype):
    net = _cast(network(3, sizes, 2, residual, spread=0.5, leak=leak), dtype)
    y, context = _points(3, 200, scale, dtype, 2)
    x, log_slope, residual = block_inverse.inverse(y, context, net, ws=Workspace())
    back, slope, _ = block.forward(x, context, net, ws=Workspace())
    eps = np.finfo(dtype).eps
    # rounding of x, and of the sums of earlier dimensions, which here are as large as theirs
    size = np.exp(slope) * (1 + np.abs(x)) + 1 + np.abs(x).max(axis=0) * np.exp(slope).max(axis=0)
    assert (np.abs(back - y) <= 1e3 * eps * size).all()
    assert (np.abs(residual) <= 1e3 * eps * size).all()
    np.testing.assert_allclose(log_slope, -slope, atol=2e-2 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("leak", [0.0, 0.01, 1.0])
def test_the_bracket_holds_the_root(leak):
    for seed in range(20):
        residual = FORMS[seed % 4] if leak else WHOLE_LINE[seed % 3]
        net = network(1, (5, 4), residual=residual, spread=2.0, seed=seed, leak=leak)
        x = np.concatenate([_points(1, 50, 10.0**k, seed=seed)[0] for k in range(-2, 12, 2)], axis=1)
        y = block.forward(x, None, net, ws=Workspace())[0]
        own = [block.weight(raw, gain, 1, 0.0, Workspace()).full for raw, gain in zip(*net[:2], strict=True)]
        known = [np.broadcast_to(bias[:, None], (len(bias), x.shape[1])) for bias in net.biases]
        low, high = block_inverse._bracket(y[0], own, known, block.mixture_of(net, np.float64), leak)
        assert (low <= x[0]).all() and (x[0] <= high).all()


def test_the_inverse_over_wild_parameters_meets_its_bound():
    for seed in range(5):
        net = network(2, (7, 6), residual="linear", spread=3.0, seed=seed)
        y = _points(2, 400, 10.0, seed=seed)[0]
        x, log_slope, residual = block_inverse.inverse(y, None, net, ws=Workspace())
        back, slope, _ = block.forward(x, None, net, ws=Workspace())
        assert np.isfinite(x).all() and np.isfinite(log_slope).all()
        # rounding of x through the steepest place, and of what the network sums up
        size = sum(np.exp(gain).max() for gain in net.gains) * 30
        assert (np.abs(residual) <= 64 * np.finfo(float).eps * ((1 + np.abs(x)) * np.exp(slope) + size)).all()
        # the dimensions see each other's inputs unrounded: the same image again
        np.testing.assert_allclose(back - y, residual, atol=1e-9)


def test_without_a_residual_what_lies_in_the_image_is_inverted_and_the_rest_refused():
    net = network(3, (5, 4))
    x, _ = _points(3, 50, 1.0)
    y = block.forward(x, None, net, ws=Workspace())[0]
    back, _, residual = block_inverse.inverse(y, None, net, ws=Workspace())
    np.testing.assert_allclose(back, x, atol=1e-9)
    assert np.abs(residual).max() < 1e-13
    y[1, [3, 7]] = 1e3
    with pytest.raises(ValueError, match="2 rows lie outside the image of a B-NAF layer"):
        block_inverse.inverse(y, None, net, ws=Workspace())


@pytest.mark.parametrize(("residual", "options"), [*((form, {}) for form in FORMS), *SPECIAL])
def test_solves_with_the_transposed_jacobian(residual, options):
    net = network(4, (5, 4), residual=residual, **options)
    x, _ = _points(4, 6, 1.0)
    wanted = np.random.default_rng(3).normal(size=x.shape)
    _, _, saved = block.forward(x, None, net, ws=Workspace())
    found = block_inverse.solve_transposed(saved, wanted)
    back = block.vjp(saved, found, np.zeros((1, 6)), Workspace())["x"]
    np.testing.assert_allclose(back, wanted, rtol=1e-10, atol=1e-10)


def test_a_training_step_takes_no_new_buffers():
    engine = ops.make("numpy")
    net, (x, _) = network(3, (5, 4), residual="linear"), _points(3, 8, 1.0)
    sizes = []
    for _ in range(3):
        engine.workspace.reset()
        saved = engine.block(x, None, net)[2]
        engine.block_vjp(saved, x, np.ones((1, 8)))
        sizes.append([id(buffer) for buffer in engine.workspace._buffers])
    assert sizes[0] == sizes[1] == sizes[2] and len(sizes[0]) > 10


@pytest.mark.parametrize("residual", [*FORMS, "published"])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_every_form_has_every_derivative(residual, context_dim):
    flow = refnaf.build("bnaf", 3, context_dim, dtype="float64", flows=2, hidden=(5, 4), residual=residual)
    rng = np.random.default_rng(1)
    flow = flow.replace({k: v + 0.2 * rng.normal(size=v.shape) for k, v in flow.params.items()})
    x, context = (a if a is None else a.T for a in _points(3, 4, 1.0, context_dim=context_dim))
    checks.log_determinant(flow, x, context, 1e-10)
    checks.twins(flow, x, context, 1e-11)
    checks.gradients(flow, x, context, 1e-9)
    checks.inverse_gradients(flow, x, context, 1e-7)
    checks.round_trip(flow, x, context, 1e-9)


@pytest.mark.parametrize("options", [{"leak": 0.01, "residual": "none", "bound": None}, {"leak": 0.1, "bound": 3.0}])
def test_a_flow_with_a_leak_is_one_like_any_other(options, tmp_path):
    layers = [Standardise(3, 2), Block(3, 2, hidden=(5, 4), **options), Permutation(3, 2, order="reversed")]
    layers.append(Block(3, 2, hidden=(4,), **options))
    rng = np.random.default_rng(1)
    params = {
        f"{k}.{name}": array + 0.2 * rng.normal(size=array.shape)
        for k, layer in enumerate(layers)
        for name, array in layer.initial(rng).items()
    }
    masks = {f"{k}.{name}": mask for k, layer in enumerate(layers) for name, mask in layer.masks().items()}
    params = {name: array * masks.get(name, 1) for name, array in params.items()}
    flow = Flow(layers, params, model="bnaf", dtype="float64")
    x, context = (a.T for a in _points(3, 4, 1.0, context_dim=2))
    checks.log_determinant(flow, x, context, 1e-10)
    checks.twins(flow, x, context, 1e-11)
    checks.gradients(flow, x, context, 1e-9)
    checks.inverse_gradients(flow, x, context, 1e-7)
    checks.round_trip(flow, x, context, 1e-9)
    flow.save(tmp_path / "flow.safetensors")
    again = refnaf.load(tmp_path / "flow.safetensors")
    assert [layer.config() for layer in again.layers] == [layer.config() for layer in layers]
    np.testing.assert_array_equal(again.log_prob(x, context), flow.log_prob(x, context))


def test_only_options_that_differ_from_the_defaults_are_written():
    assert set(Block(2).config()) == {"hidden", "residual"}
    options = {"leak": 0.5, "bound": None, "epsilon": 1e-8}
    assert {**Block(2).config(), **options} == Block(2, **options).config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leak": -0.1}, "leak must be a number from 0 to 1, got -0.1"),
        ({"leak": np.nan}, "leak must be a number from 0 to 1"),
        ({"epsilon": 2.0}, "epsilon must be a number from 0 to 1"),
        ({"bound": 0.0}, "bound must be a positive number"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Block(2, 1, **options)


def test_each_layer_is_triangular():
    flow = make(CASE)
    x, _ = rows(CASE, 6)
    engine = ops.make("numpy")
    seen = 0
    for layer, params in zip(flow.layers, flow.layer_params(), strict=True):
        if isinstance(layer, Block):
            image = layer.forward(engine, params, x.T, None)[0].copy()
            for j in range(4):
                moved = x.T.copy()
                moved[j] += 0.25
                after = layer.forward(engine, params, moved, None)[0]
                np.testing.assert_array_equal(after[:j], image[:j])
                assert (after[j] > image[j]).all()
                assert (after[j + 1 :] != image[j + 1 :]).all()
            seen += 1
    assert seen == 2


def _planted(monkeypatch, module, name, change):
    honest = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: change(honest(*args, **kwargs)))


@pytest.mark.parametrize("key", ["weights", "gains", "biases", "x", "mix", "contexts", "context"])
def test_a_wrong_vjp_is_caught(monkeypatch, key):
    def change(out):
        out[key] = [1.001 * a for a in out[key]] if isinstance(out[key], list) else 1.001 * out[key]
        return out

    case = CASES["bnaf-D3-C2"]
    flow = make(case, backend="numpy")
    checks.gradients(flow, *rows(case, 5), 1e-9)
    _planted(monkeypatch, block, "vjp", change)
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(flow, *rows(case, 5), 1e-9)


def test_a_wrong_sign_of_the_log_slopes_is_caught(monkeypatch):
    _planted(monkeypatch, block, "forward", lambda out: (out[0], -out[1], out[2]))
    with pytest.raises(AssertionError):
        checks.log_determinant(make(CASE, backend="numpy"), *rows(CASE, 3), 1e-10)
    with pytest.raises(AssertionError):
        checks.twins(make(CASE, backend="numpy"), *rows(CASE, 3), 1e-11)


def test_a_wrong_inverse_and_a_wrong_solve_are_caught(monkeypatch):
    _planted(monkeypatch, block_inverse, "solve_transposed", lambda out: 1.001 * out)
    with pytest.raises(AssertionError, match="gradient"):
        checks.inverse_gradients(make(CASE, spread=0.15, backend="numpy"), *rows(CASE, 4, scale=1.0), 1e-7)
    _planted(monkeypatch, block_inverse, "inverse", lambda out: (out[0] + 1e-6, *out[1:]))
    with pytest.raises(AssertionError, match="round trip"):
        checks.round_trip(make(CASE, backend="numpy"), *rows(CASE, 5), 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "one or more positive numbers"),
        ({"residual": "sum"}, "residual must be one of linear, none, normal, gated"),
        ({"activation": "relu"}, "has no option 'activation'"),
        ({"permutation": "odd"}, "permutation must be"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        refnaf.build("bnaf", 2, **options)


@pytest.mark.parametrize("with_context", [False, True])
def test_a_short_fit_beats_a_gaussian(with_context, tmp_path):
    rng = np.random.default_rng(0)
    c = rng.normal(size=(1500, 1))
    x = np.concatenate([c + rng.normal(size=c.shape) ** 2, np.sin(2 * c) + 0.2 * rng.normal(size=c.shape)], axis=1)
    context = {"context": c} if with_context else {}
    flow = refnaf.fit(x, "bnaf", epochs=25, threads=1, **context)
    plain = refnaf.fit(x, "gaussian", threads=1, **context)
    gain = (flow.log_prob(x, **context) - plain.log_prob(x, **context)).mean()
    assert gain > 0.3
    flow.save(tmp_path / "b.safetensors")
    again = refnaf.load(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(again.log_prob(x, **context), flow.log_prob(x, **context))
    drawn, log_prob = again.sample(1500, seed=3, return_log_prob=True, **context)
    np.testing.assert_allclose(log_prob, again.log_prob(drawn, **context), atol=1e-2)
    assert np.abs(drawn.mean(axis=0) - x.mean(axis=0)).max() < 0.25
