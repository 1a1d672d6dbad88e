"""Every property of every case."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import refnaf
from tests import checks
from tests.cases import BOTH, CASES, make, rows

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_backend = pytest.mark.parametrize(("case", "backend"), BOTH.values(), ids=BOTH.keys())
SMALL = {name: case for name, case in CASES.items() if case.dim <= 2}


@every_case
def test_jacobian_is_triangular(case):
    checks.triangular(make(case), *rows(case, 6))


@every_backend
def test_log_determinant_is_autograds(case, backend):
    checks.log_determinant(make(case, backend=backend), *rows(case, 3), 1e-10)


@every_backend
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-4)])
def test_twins_agree(case, backend, dtype, tolerance):
    checks.twins(make(case, dtype, backend=backend), *rows(case, 7), tolerance)


@every_backend
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-3)])
def test_gradients_agree(case, backend, dtype, tolerance):
    spread = 0.3 if dtype == "float64" else 0.15
    checks.gradients(make(case, dtype, spread, backend=backend), *rows(case, 5, scale=1.5), tolerance)


@every_backend
def test_inverse_gradients_agree(case, backend):
    checks.inverse_gradients(make(case, spread=0.15, backend=backend), *rows(case, 4, scale=1.0), 1e-7)


@every_case
def test_gradients_are_finite_differences(case):
    flow = make(case)
    x, context = rows(case, 4)
    from autograd import grad

    got = grad(lambda p: flow.log_prob(x, context, p).sum())(dict(flow.params))
    rng = np.random.default_rng(5)
    way = {k: rng.normal(size=v.shape) for k, v in flow.params.items()}
    step = 1e-6
    ends = [flow.replace({k: v + s * way[k] for k, v in flow.params.items()}) for s in (step, -step)]
    slope = (ends[0].log_prob(x, context).sum() - ends[1].log_prob(x, context).sum()) / (2 * step)
    masks = flow.masks()
    expected = sum(float(np.sum(got[k] * way[k] * masks.get(k, 1))) for k in got)
    assert slope == pytest.approx(expected, rel=2e-5, abs=1e-5)


@every_backend
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_round_trip(case, backend, scale):
    if scale > 1 and dict(case.options).get("bound", 1) is None:
        pytest.skip("an unbounded conditioner promises nothing far out")
    x, context = rows(case, 40, scale=scale)
    flow = make(case, spread=0.1, backend=backend)
    checks.round_trip(flow, x, context, 1e-9)
    checks.round_trip(flow, np.zeros_like(x), context, 1e-9)


@every_backend
def test_round_trip_in_float32(case, backend):
    flow = make(case, "float32", spread=0.1, backend=backend)
    checks.round_trip(flow, *rows(case, 40), 2e-4)


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL.keys())
def test_density_integrates_to_one(case):
    flow = make(case, spread=0.12)
    _, context = rows(case, 1)
    # where the density jumps, the trapezoidal rule is off by the step times the jump
    tolerance = 1e-6 if case.smooth else 1e-4
    assert checks.integral(flow, context, 4001 if case.dim == 1 else 1001) == pytest.approx(1, abs=tolerance)


@every_backend
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_far_out_everything_is_finite(case, backend, dtype):
    if dict(case.options).get("bound", 1) is None:
        pytest.skip("an unbounded conditioner promises nothing far out")
    flow = make(case, dtype, backend=backend)
    for size in (1e3, 1e10, 1e30):
        x = size * np.array([[1.0] * case.dim, [-1.0] * case.dim, [(-1.0) ** k for k in range(case.dim)]])
        _, context = rows(case, len(x))
        if context is not None:
            context[0] = size
        log_prob = flow.log_prob(x, context)
        assert np.isfinite(log_prob).all() and (log_prob < 0).all()
        for array in (*flow.forward(x, context), *flow.inverse(x, context)):
            assert np.isfinite(array).all()


@every_backend
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batches_of_none_and_one(case, backend, dtype):
    flow = make(case, dtype, backend=backend)
    x, context = rows(case, 3)
    none = None if context is None else context[:0]
    assert flow.log_prob(x[:0], none).shape == (0,)
    assert flow.forward(x[:0], none)[0].shape == (0, case.dim)
    assert flow.inverse(x[:0], none)[0].shape == (0, case.dim)
    assert flow.sample(0, context=none).shape == (0, case.dim)
    one = np.array([flow.log_prob(x[k : k + 1], None if context is None else context[k : k + 1])[0] for k in range(3)])
    np.testing.assert_allclose(one, flow.log_prob(x, context), rtol=1e-12 if dtype == "float64" else 1e-5)


@every_backend
def test_memory_layout_and_integer_types_do_not_matter(case, backend):
    flow = make(case, backend=backend)
    x, context = rows(case, 8)
    expected = flow.log_prob(x, context)
    wide = np.full((16, 2 * case.dim), np.nan)
    wide[::2, ::2] = x
    for same in (np.asfortranarray(x), wide[::2, ::2], x.astype(">f8")):
        np.testing.assert_array_equal(flow.log_prob(same, context), expected)
    whole = np.round(x)
    np.testing.assert_array_equal(flow.log_prob(whole.astype(int), context), flow.log_prob(whole, context))


@every_backend
def test_samples_come_with_their_density(case, backend):
    flow = make(case, spread=0.1, backend=backend)
    _, context = rows(case, 50)
    x, log_prob = flow.sample(50, seed=4, context=context, return_log_prob=True)
    np.testing.assert_allclose(flow.log_prob(x, context), log_prob, atol=1e-8)
    np.testing.assert_array_equal(x, flow.sample(50, seed=4, context=context))
    assert not np.array_equal(x, flow.sample(50, seed=5, context=context))


@every_case
def test_rosenblatt_values_of_samples_are_uniform(case):
    flow = make(case, spread=0.1)
    _, context = rows(case, 1)
    u = flow.rosenblatt(flow.sample(2000, seed=3, context=context), context)
    assert u.shape == (2000, case.dim)
    assert all(stats.kstest(column, "uniform").pvalue > 1e-4 for column in u.T)


@every_case
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_new_flow_is_close_to_the_identity(case, dtype):
    flow = refnaf.build(case.model, case.dim, case.context_dim, dtype=dtype, **dict(case.options))
    x, context = rows(case, 200, scale=1.0)
    z, logdet = flow.forward(x, context)
    order = np.arange(case.dim)
    for layer in flow.layers:
        if layer.kind == "permutation":
            order = order[layer.order]
    assert np.max(np.abs(z - x[:, order])) < 0.5
    assert np.mean(np.abs(logdet)) < 0.15 * case.dim


@every_case
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_saved_and_loaded(case, dtype, tmp_path):
    flow = make(case, dtype)
    x, context = rows(case, 5)
    flow.save(tmp_path / "a.safetensors")
    again = refnaf.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert again.config == flow.config and again.n_params == flow.n_params
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
