"""The block network's compiled kernels against the array's: values, VJPs, the inverse, the whole range of floats."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf import ops
from refnaf.kernels.array import block as array
from refnaf.kernels.array import block_inverse as array_inverse
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import block as compiled
from refnaf.kernels.cpu import block_inverse as compiled_inverse
from refnaf.kernels.cpu import block_weights
from refnaf.reference import block as reference
from tests import checks
from tests.cases import CASES, make, rows
from tests.kernels.test_block import FORMS, SPECIAL, WHOLE_LINE, _cast, _points
from tests.reference.test_block import network

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_form = pytest.mark.parametrize(("residual", "options"), [*((form, {}) for form in FORMS), *SPECIAL])
#: Of the largest entry: values, cotangents.
TOLERANCE = {np.float32: (2e-6, 2e-5), np.float64: (2e-14, 2e-13)}


def _wide(net, *arrays):
    return _cast(net, np.float64), *(None if a is None else a.astype(np.float64) for a in arrays)


def _grads(x, seed=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=x.shape).astype(x.dtype), rng.normal(size=(1, x.shape[1])).astype(x.dtype)


def _flat(out):
    """A VJP's arrays by name."""
    found = {}
    for name, part in out.items():
        for k, a in enumerate(part if isinstance(part, list) else [part]):
            if a is not None:
                found[f"{name}.{k}"] = a
    return found


def _run(module, net, x, context, grad_y, grad_slope, **how):
    y, log_slope, saved = module.forward(x, context, net, ws=Workspace(), **how)
    return saved, {"y": y, "log_slope": log_slope, **_flat(module.vjp(saved, grad_y, grad_slope, Workspace()))}


def _compare(net, x, context, stretch=1.0):
    """The compiled twin against the array's in float64; what the former saved."""
    dtype = x.dtype.type
    saved, got = _run(compiled, net, x, context, *_grads(x))
    wide, *inputs = _wide(net, x, context, *_grads(x))
    _, expected = _run(array, wide, *inputs)
    assert got.keys() == expected.keys()
    for name, b in expected.items():
        assert got[name].dtype == dtype and got[name].shape == b.shape, name
        bound = stretch * TOLERANCE[dtype][name not in ("y", "log_slope")]
        worst = np.max(np.abs(got[name] - b), initial=0) / max(1, np.max(np.abs(b), initial=0))
        assert worst <= bound, f"{name}: {worst}"
    return saved


@each_dtype
@each_form
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_values_and_vjps_are_the_arrays(scale, context_dim, residual, options, dtype):
    net = _cast(network(3, (5, 4), context_dim, residual, **options), dtype)
    saved = _compare(net, *_points(3, 300, scale, dtype, context_dim), stretch=max(1.0, scale))
    assert saved.careful is None


@each_dtype
@pytest.mark.parametrize("sizes", [(1,), (3,), (16, 16), (2, 7, 3)])
@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 257])
def test_every_shape(n, dim, sizes, dtype):
    eps = np.finfo(dtype).eps
    for residual in ("linear", "none"):
        net = _cast(network(dim, sizes, 1, residual, spread=0.4), dtype)
        x, context = _points(dim, n, 1.0, dtype, 1)
        _compare(net, x, context)
        y, log_slope, saved = compiled.forward(x, context, net, ws=Workspace(), keep=False)
        assert saved is None
        for a, b in zip((y, log_slope), compiled.forward(x, context, net, ws=Workspace())[:2], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=16 * eps * (1 + np.max(np.abs(b), initial=0)))
        back, other, residual = compiled_inverse.inverse(y, context, net, ws=Workspace())
        assert back.shape == other.shape == residual.shape == x.shape and back.dtype == dtype
        assert np.max(np.abs(compiled.forward(back, context, net, ws=Workspace())[0] - y), initial=0) < 2e3 * eps


@each_dtype
def test_one_unit_near_zero_keeps_its_digits(dtype):
    """With nothing else to add up, f is as accurate as its argument."""
    net = _cast(network(1, (1,), residual="none"), dtype)
    for bias in net.biases:
        bias[:] = 0
    x = (10.0 ** -np.arange(1, 9)[None]).astype(dtype)
    y, log_slope, _ = compiled.forward(x, None, net, ws=Workspace())
    expected = reference.block(x.astype(np.float64), None, _cast(net, np.float64))
    np.testing.assert_allclose(y, expected[0], rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(log_slope, expected[1], atol=8 * np.finfo(dtype).eps)


@each_dtype
@pytest.mark.parametrize("residual", FORMS)
def test_slopes_that_underflow_are_done_in_the_log_domain(residual, dtype):
    net = _cast(network(2, (4, 3), 1, residual), dtype)
    x, context = _points(2, 90, 1.0, dtype, 1)
    x[:, 40:43] = [[500, -800, 2e3], [500, 800, 2e3]] if dtype is np.float32 else [[5e3, -8e3, 2e4], [5e3, 8e3, 2e4]]
    saved = _compare(net, x, context, stretch=1e3 if dtype is np.float32 else 1e4)
    assert saved.rare.tolist() == ([40, 41, 42] if residual == "none" else [])
    y, log_slope, _ = compiled.forward(x, context, net, ws=Workspace())
    wide, *inputs = _wide(net, x, context)
    expected = reference.block(*inputs, wide)
    np.testing.assert_allclose(y[:, 40:43], expected[0][:, 40:43], rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(log_slope[:, 40:43], expected[1][:, 40:43], rtol=4 * np.finfo(dtype).eps, atol=1e-30)


@each_dtype
def test_far_columns_do_not_disturb_their_neighbours(dtype):
    net = _cast(network(3, (5, 4), residual="none"), dtype)
    x, _ = _points(3, 70, 1.0, dtype)
    grads = _grads(x)
    _, plain = _run(compiled, net, x, None, *grads)
    x[1, 33] = 1e5
    saved, mixed = _run(compiled, net, x, None, *grads)
    assert saved.rare.tolist() == [33]
    for name in ("y", "log_slope", "x.0"):
        np.testing.assert_array_equal(np.delete(mixed[name], 33, axis=1), np.delete(plain[name], 33, axis=1))
    assert all(np.isfinite(a).all() for a in mixed.values())


@each_dtype
@pytest.mark.parametrize("residual", FORMS)
def test_the_log_domain_is_the_fast_form_where_both_are_right(residual, dtype, monkeypatch):
    net = _cast(network(3, (5, 4), 2, residual), dtype)
    x, context = _points(3, 60, 1.0, dtype, 2)
    _, fast = _run(compiled, net, x, context, *_grads(x))
    monkeypatch.setattr(compiled, "SMALLEST", {np.dtype(dtype): np.inf})
    saved, far = _run(compiled, net, x, context, *_grads(x))
    assert len(saved.rare) == 60
    for name, a in fast.items():
        checks.close(a, far[name], TOLERANCE[dtype][1], name)


@each_dtype
@each_form
@pytest.mark.parametrize("spread", [3.0, 30.0])
def test_no_finite_parameters_give_nan(spread, residual, options, dtype):
    rng = np.random.default_rng(0)
    reach = 150 if dtype is np.float64 else 18
    for seed in range(4):
        net = _cast(network(3, (5, 4), 2, residual, spread=spread, seed=seed, **options), dtype)
        context = _points(3, 40, 1.0, dtype, 2)[1]
        x = (rng.choice([-1, 1], (3, 40)) * 10.0 ** rng.uniform(-reach, reach, (3, 40))).astype(dtype)
        x[:, ::3] = rng.normal(size=(3, 14))
        with np.errstate(over="ignore"):
            _, results = _run(compiled, net, x, context, *_grads(x))
        for name, a in results.items():
            assert a.dtype == dtype and not np.isnan(a).any(), name


def test_weights_that_overflow_float32_are_done_in_float64():
    net = _cast(network(2, (4, 3), residual="linear"), np.float32)
    net.gains[0][3], net.gains[1][1] = 100, -120
    x, _ = _points(2, 9, 1.0, np.float32)
    with np.errstate(over="ignore"):
        saved, got = _run(compiled, net, x, None, *_grads(x))
    assert len(saved.rare) == 9
    none = _run(compiled, net, x[:, :0], None, *_grads(x[:, :0]))[1]
    assert none["y"].shape == none["x.0"].shape == (2, 0) and not none["weights.0"].any()
    wide, *inputs = _wide(net, x, *_grads(x))
    _, expected = _run(array, wide, inputs[0], None, *inputs[1:])
    for name, b in expected.items():
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(got[name], b.astype(np.float32), rtol=1e-5)
    y = expected["y"].astype(np.float32)
    for a, b in zip(
        compiled_inverse.inverse(y, None, net, ws=Workspace()),
        array_inverse.inverse(y.astype(np.float64), None, wide, ws=Workspace()),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-30)


def test_a_vjp_that_overflows_float32_is_done_in_float64():
    net = _cast(network(2, (4, 3), residual="linear"), np.float32)
    for gain, bias in zip(net.gains, net.biases, strict=True):
        gain[:], bias[:] = 27.0, 0.0
    x, _ = _points(2, 9, 1e-25, np.float32)
    grad_y, grad_slope = _grads(x)
    saved, got = _run(compiled, net, x, None, 1e5 * grad_y, grad_slope)
    assert saved.careful is None
    with np.errstate(all="ignore"):
        fast = compiled._vjp(saved, 1e5 * grad_y, grad_slope, Workspace())
    assert not compiled._finite(fast)
    assert not any(np.isnan(a).any() for a in got.values())


@each_dtype
def test_how_arrays_lie_does_not_matter(dtype):
    net = _cast(network(3, (5, 4), 2, "linear"), dtype)
    x, context = _points(3, 70, 1.0, dtype, 2)
    grad_y, slope = _grads(x)
    _, expected = _run(compiled, net, x, context, grad_y, slope)
    strange = net._replace(weights=[np.asfortranarray(w) for w in net.weights], gains=[g.copy() for g in net.gains])
    for a in (*strange.weights, *strange.gains, *strange.biases, x, context):
        a.setflags(write=False)
    for inputs in ([x, context], [np.asfortranarray(x), np.asfortranarray(context)]):
        _, got = _run(compiled, strange, *inputs, grad_y, np.broadcast_to(slope, x.shape))
        for name, a in expected.items():
            np.testing.assert_allclose(got[name], a, rtol=0, atol=64 * np.finfo(dtype).eps * np.max(np.abs(a)))


@each_dtype
def test_samples_are_cut_into_parts_without_a_vjp(dtype, monkeypatch):
    net = _cast(network(3, (5, 4), 2, "gated"), dtype)
    x, context = _points(3, 300, 1.0, dtype, 2)
    x[1, 200] = np.finfo(dtype).max / 2
    with np.errstate(over="ignore"):
        expected = compiled.forward(x, context, net, ws=Workspace())
        monkeypatch.setattr(compiled, "TOGETHER", 1)
        monkeypatch.setattr(compiled, "FEWEST", 64)
        got = compiled.forward(x, context, net, ws=Workspace(), keep=False)
    for a, b in zip(got[:2], expected[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=32 * np.finfo(dtype).eps, atol=32 * np.finfo(dtype).eps)


@each_dtype
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize(("dim", "rows_", "columns"), [(1, 1, 1), (4, 3, 1), (3, 5, 4), (20, 16, 16)])
def test_weights_and_their_vjp_are_the_arrays(dim, rows_, columns, epsilon, dtype):
    rng = np.random.default_rng(0)
    mask = np.add(*reference.masks(dim, rows_, columns))
    raw = (rng.normal(size=mask.shape) * mask).astype(dtype)
    gain = rng.normal(size=len(raw)).astype(dtype)
    grad = rng.normal(size=raw.shape).astype(dtype)
    grad_blocks = rng.normal(size=(dim, rows_, columns)).astype(dtype)
    got = block_weights.weight(raw, gain, dim, epsilon, Workspace())
    wide = [a.astype(np.float64) for a in (raw, gain, grad, grad_blocks)]
    expected = array.weight(*wide[:2], dim, epsilon, Workspace())
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got.full[mask > 0], expected.full[mask > 0], rtol=8 * eps)
    np.testing.assert_allclose(got.blocks, expected.blocks, rtol=8 * eps)
    assert got.reach == pytest.approx(expected.blocks.sum(axis=2).max(), rel=1e-5)
    # above the blocks anything may lie in the cotangent
    on_raw, on_gain = block_weights.weight_vjp(got, np.where(mask > 0, grad, np.nan).astype(dtype), grad_blocks)
    wanted_raw, wanted_gain = array.weight_vjp(expected, *wide[2:])
    assert not np.any(on_raw[mask == 0]) and on_raw.dtype == on_gain.dtype == dtype
    for a, b in ((on_raw, wanted_raw), (on_gain, wanted_gain)):
        assert np.max(np.abs(a - b)) <= 64 * eps * max(1, np.max(np.abs(b)))


@each_dtype
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize(("residual", "options"), [*((f, {}) for f in WHOLE_LINE), *SPECIAL[:2], SPECIAL[3]])
def test_the_inverse_returns_x(residual, options, scale, context_dim, dtype):
    net = _cast(network(4, (6, 5), context_dim, residual, spread=0.5, **options), dtype)
    x, context = _points(4, 130, scale, dtype, context_dim)
    y, log_slope, _ = compiled.forward(x, context, net, ws=Workspace())
    back, other, left = compiled_inverse.inverse(y, context, net, ws=Workspace())
    eps = np.finfo(dtype).eps
    # rounding of y, of sums of earlier dimensions as large as y, through the inverse's slope
    steep = np.exp(-log_slope.astype(np.float64).min(axis=0))
    size = (1 + np.abs(x).max(axis=0) + np.abs(y).max(axis=0)) * (1 + steep)
    assert (np.abs(back - x) <= 64 * eps * size).all()
    assert (np.abs(left) <= 64 * eps * (1 + np.abs(y).max(axis=0))).all()
    again = compiled.forward(back, context, net, ws=Workspace())[1]
    np.testing.assert_allclose(other, -again, atol=2e-3 if dtype is np.float32 else 1e-9)


@each_dtype
def test_the_inverse_over_wild_parameters_meets_its_bound(dtype):
    for seed in range(5):
        net = _cast(network(2, (7, 6), residual="linear", spread=3.0, seed=seed), dtype)
        y = _points(2, 400, 10.0, dtype, seed=seed)[0]
        x, log_slope, residual = compiled_inverse.inverse(y, None, net, ws=Workspace())
        slope = compiled.forward(x, None, net, ws=Workspace())[1].astype(np.float64)
        assert np.isfinite(x).all() and np.isfinite(log_slope).all()
        # rounding of x through the steepest place, and of what the network sums up
        size = sum(np.exp(gain.astype(np.float64)).max() for gain in net.gains) * 30
        assert (np.abs(residual) <= 64 * np.finfo(dtype).eps * ((1 + np.abs(x)) * np.exp(slope) + size)).all()


@each_dtype
def test_without_a_residual_what_lies_in_the_image_is_inverted_and_the_rest_refused(dtype):
    net = _cast(network(3, (5, 4)), dtype)
    x, _ = _points(3, 70, 1.0, dtype)
    y = compiled.forward(x, None, net, ws=Workspace())[0]
    back, _, residual = compiled_inverse.inverse(y, None, net, ws=Workspace())
    np.testing.assert_allclose(back, x, atol=1e-9 if dtype is np.float64 else 3e-3)
    assert np.abs(residual).max() < 1e3 * np.finfo(dtype).eps
    y[1, [3, 7]] = 1e3
    with pytest.raises(ValueError, match="2 rows lie outside the image of a B-NAF layer"):
        compiled_inverse.inverse(y, None, net, ws=Workspace())


@each_dtype
def test_roots_where_slopes_underflow_are_the_array_twins(dtype, monkeypatch):
    net = _cast(network(3, (5, 4), 2, "gated"), dtype)
    y, context = _points(3, 70, 1.0, dtype, 2)
    fast = compiled_inverse.inverse(y, context, net, ws=Workspace())
    expected = array_inverse.inverse(y, context, net, ws=Workspace())
    # as if every other slope underflowed
    honest = compiled_inverse._solve

    def some_are_bad(*arguments):
        honest(*arguments)
        x, bad = arguments[9], arguments[13]
        x[::2], arguments[12][:, ::2], bad[::2] = np.nan, np.nan, True

    monkeypatch.setattr(compiled_inverse, "_solve", some_are_bad)
    careful = compiled_inverse.inverse(y, context, net, ws=Workspace())
    tolerance = 1e-3 if dtype is np.float32 else 1e-11
    for a, b, c in zip(fast[:2], careful[:2], expected[:2], strict=True):
        np.testing.assert_allclose(a, c, atol=tolerance)
        np.testing.assert_allclose(b, c, atol=tolerance)


@each_form
@pytest.mark.parametrize("rare", [False, True])
def test_solves_with_the_transposed_jacobian(rare, residual, options, monkeypatch):
    net = network(4, (5, 4), residual=residual, **options)
    x, _ = _points(4, 6, 1.0)
    wanted = np.random.default_rng(3).normal(size=x.shape)
    if rare:
        monkeypatch.setattr(compiled, "SMALLEST", {x.dtype: np.inf})
    results = []
    for backend in ("numpy", "numba"):
        engine = ops.make(backend)
        results.append(engine.block_inverse_vjp(engine.block(x, None, net)[2], wanted))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_a_training_step_takes_no_new_buffers():
    engine = ops.make("numba")
    net, (x, _) = network(3, (5, 4), residual="linear"), _points(3, 8, 1.0)
    sizes = []
    for _ in range(3):
        engine.workspace.reset()
        saved = engine.block(x, None, net)[2]
        engine.block_vjp(saved, x, np.ones((1, 8)))
        sizes.append([id(buffer) for buffer in engine.workspace._buffers])
    assert sizes[0] == sizes[1] == sizes[2] and len(sizes[0]) > 10


@pytest.mark.parametrize("key", ["weights", "gains", "biases", "x", "mix", "contexts", "context"])
def test_a_wrong_vjp_is_caught(monkeypatch, key):
    honest = compiled.vjp

    def wrong(*arguments):
        out = honest(*arguments)
        out[key] = [1.001 * a for a in out[key]] if isinstance(out[key], list) else 1.001 * out[key]
        return out

    case = CASES["bnaf-D3-C2"]
    flow = make(case, backend="numba")
    checks.gradients(flow, *rows(case, 5), 1e-9)
    monkeypatch.setattr(compiled, "vjp", wrong)
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(flow, *rows(case, 5), 1e-9)
