"""Whole flows on the backend "cuda", run by the simulator on arrays that refuse what a GPU's would."""

import json

import numpy as np
import pytest

import refnaf
from refnaf.objective import NegativeLogLikelihood
from tests.kernels.device_array import TRANSFERS, device

pytest.importorskip("numba_cuda")
# the simulator computes with NumPy's numbers, which warn where a GPU overflows
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: Model, options, columns of context.
FLOWS = {
    "maf": ("maf", {}, 0),
    "maf relu": ("maf", {"activation": "relu"}, 0),
    "maf tanh linear": ("maf", {"activation": "tanh", "linear": True}, 0),
    "maf context": ("maf", {}, 2),
    "made-mog": ("made-mog", {"components": 2}, 0),
    "maf-dsf": ("maf-dsf", {"units": 3}, 0),
    "maf-ddsf": ("maf-ddsf", {"units": 3}, 0),
    "maf-ddsf channels": ("maf-ddsf", {"units": 2, "channels": 3}, 1),
    "iaf": ("iaf", {}, 0),
}


def _flow(name, dtype):
    model, options, context = FLOWS[name]
    if model != "made-mog":
        options = {"flows": 2, **options}
    flow = refnaf.build(model, 2, context, hidden=(4,), dtype=dtype, seed=3, **options)
    rng = np.random.default_rng(0)
    moved = {key: a + 0.2 * rng.normal(size=a.shape) for key, a in flow.params.items()}
    flow = flow.replace(moved, backend="numpy")
    flow.layers[0].buffers["mean"], flow.layers[0].buffers["scale"] = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    x = rng.normal(size=(5, 2))
    return flow, x, rng.normal(size=(5, context)) if context else None


SINGLE = ("maf", "made-mog", "maf-dsf", "maf-ddsf")


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in FLOWS), *((name, "float32") for name in SINGLE)]
)
def test_nats_and_samples_are_those_of_the_arrays(name, dtype, monkeypatch):
    flow, x, context = _flow(name, dtype)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    with device(monkeypatch):
        there = flow.replace({}, backend="cuda")
        nats, (z, logdet) = there.log_prob(x, context), there.forward(x, context)
        back, _, residual = there.inverse(z, context, return_residual=True)
        drawn = there.sample(3, seed=1, context=None if context is None else context[:1])
    np.testing.assert_allclose(nats, flow.log_prob(x, context), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(logdet, flow.forward(x, context)[1], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(back, x, rtol=10 * tolerance, atol=10 * tolerance)
    assert residual.max() <= tolerance
    wanted = flow.sample(3, seed=1, context=None if context is None else context[:1])
    np.testing.assert_allclose(drawn, wanted, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_those_of_the_arrays(name, monkeypatch):
    flow, x, context = _flow(name, "float64")
    here = NegativeLogLikelihood(flow)
    loss, grad = here(here.flat(), x, context)
    with device(monkeypatch):
        there = NegativeLogLikelihood(flow.replace({}, backend="cuda"))
        flat, rows = there.flat(), there.put(x)
        conditions = None if context is None else there.put(context)
        for _ in range(2):  # buffers are used again
            found, pulled = there(flat, rows, conditions)
        found, pulled = float(found), pulled.get()
    assert found == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(pulled, grad, rtol=1e-9, atol=1e-11)


SHORT = {"epochs": 2, "batch_size": 16, "hidden": (4,), "flows": 2, "seed": 1, "learning_rate": 1e-2}


def _table(rows=56):
    return np.random.default_rng(5).normal(size=(rows, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]])


def test_a_fit_is_that_of_the_arrays(monkeypatch):
    wanted = refnaf.fit(_table(), "maf", backend="numpy", dtype="float64", **SHORT)
    with device(monkeypatch):
        found = refnaf.fit(_table(), "maf", backend="cuda", dtype="float64", **SHORT)
    for name, array in wanted.params.items():
        np.testing.assert_allclose(found.params[name], array, rtol=1e-6, atol=1e-8)
    assert found.provenance["versions"]["backend"] == "cuda"
    assert found.provenance["training"]["failed_steps"] == 0
    scores = [json.loads(json.dumps(flow.provenance["scores"]["validation"][0])) for flow in (found, wanted)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    assert [h["train"] for h in found.history] == pytest.approx([h["train"] for h in wanted.history], rel=1e-5)


@pytest.mark.slow
def test_a_fit_resumes(monkeypatch, tmp_path):
    how = {"backend": "cuda", "dtype": "float64", **SHORT}
    with device(monkeypatch):
        whole = refnaf.fit(_table(), "maf", **how)
        path = tmp_path / "run.checkpoint"
        refnaf.fit(_table(), "maf", checkpoint=path, max_time=1e-9, **how)
        resumed = refnaf.fit(_table(), "maf", checkpoint=path, resume=True, **how)
    for name, array in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], array)


def test_steps_transfer_nothing_but_the_tally(monkeypatch):
    from refnaf.training.adam_device import DeviceAdam

    flow, x, _ = _flow("maf-ddsf", "float32")
    with device(monkeypatch):
        task = NegativeLogLikelihood(flow.replace({}, backend="cuda"))
        adam, rows = DeviceAdam(task.flat(), decay=1e-4, decayed=[slice(0, 8)]), task.put(x)
        for step in range(3):
            if step == 1:  # what is fixed is there by now
                TRANSFERS.update(put=0, get=0)
            loss, grad = task(adam.flat, rows, None)
            adam.step_unseen(loss, grad, 1e-3)
        assert TRANSFERS == {"put": 0, "get": 0}
        tally = adam.look()
    assert TRANSFERS == {"put": 0, "get": 1}
    assert (tally.taken, tally.left_out) == (3, 0)
    assert np.isfinite(tally.losses)


def test_a_step_that_is_not_finite_is_left_out(monkeypatch):
    from refnaf.training.adam_device import DeviceAdam

    with device(monkeypatch):
        task = NegativeLogLikelihood(_flow("maf", "float32")[0].replace({}, backend="cuda"))
        adam = DeviceAdam(task.flat())
        before, grad = adam.flat.get(), task.put(np.full(task.size, 0.1, np.float32))
        adam.step_unseen(task.put(np.array(np.nan)), grad, 1e-2)
        grad[3] = np.float32(np.inf)
        adam.step_unseen(task.put(np.array(1.0)), grad, 1e-2)
        np.testing.assert_array_equal(adam.flat.get(), before)
        assert adam.look() == (0, 2, 0.0)
        grad[3] = np.float32(0.1)
        adam.step_unseen(task.put(np.array(1.5)), grad, 1e-2)
        assert (adam.flat.get() < before).all()
        assert adam.look() == (1, 0, 1.5)


@pytest.mark.parametrize("model", ["bnaf", "tan", "planar"])
def test_models_without_kernels_are_refused(model):
    flow = refnaf.build(model, 2)
    with pytest.raises(ValueError, match=r"backend 'cuda' has no kernels for .*: use backend 'numba' or 'numpy'"):
        flow.replace({}, backend="cuda")


def test_autograd_and_variational_fits_stay_on_the_host():
    from autograd import grad

    flow = refnaf.build("maf", 2).replace({}, backend="cuda")
    with pytest.raises(ValueError, match="backend='numba'"):
        grad(lambda x: flow.log_prob(x).sum())(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="variational fits run on the host"):
        refnaf.fit_variational(lambda x: -0.5 * (x**2).sum(axis=1), 2, backend="cuda")
