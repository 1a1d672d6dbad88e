"""The free energy and its two gradients; the likelihood's are those of the chain, see tests/flows."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad

from refnaf import ops_backends as backends
from refnaf.flows import chain
from refnaf.kernels.array import workspace
from refnaf.objective import FreeEnergy, NegativeLogLikelihood
from refnaf.ops import ReferenceOps
from refnaf.parallel import Workers
from refnaf.reference.density import normal_log_prob
from refnaf.reference.variational import free_energy, sample_log_prob
from tests.cases import CASES, make, rows
from tests.checks import close

NAMES = (
    "gaussian-D4",
    "maf-dsf-D2-units=5",
    "iaf-D4",
    "iaf-dsf-D2-units=5",
    "iaf-ddsf-D2-units=5",
    "planar-D2-direction=sampling",
    "planar-D4",
    "bnaf-D2",
)


def log_density(x):
    return -0.1 * anp.sum((x - 0.3) ** 4, axis=1) + anp.sum(anp.sin(x), axis=1) * x[:, 0]


def with_gradient(function):
    return lambda x: (function(x), elementwise_grad(function)(x))


def by_reference(flow, z, beta, held=None):
    """The free energy for autograd to trace; with ``held``, those parameters in log q."""

    def loss(params):
        layers, ops = flow.layers, ReferenceOps()
        x, logdet, _, _ = chain.inverse(layers, flow.layer_params(params), ops, z.T, None)
        log_q = sample_log_prob(normal_log_prob(z.T), logdet)
        if held is not None:
            log_q = chain.log_prob(layers, flow.layer_params(held), ops, x, None)
        return free_energy(log_q, log_density(anp.transpose(x)), beta)

    return loss


@pytest.mark.parametrize("path", [False, True], ids=["whole", "path"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_autograd(name, path, monkeypatch):
    monkeypatch.setattr(backends, "chunk_rows", lambda backend: (3, 256))  # so that there are several chunks
    flow = make(CASES[name])
    z = np.random.default_rng(0).normal(size=(7, flow.dim))
    energy = FreeEnergy(flow, with_gradient(log_density))
    loss, gradient = energy(energy.flat(), z, beta=0.7, path=path)
    params = dict(flow.params)
    slow = by_reference(flow, z, 0.7, params if path else None)
    assert loss == pytest.approx(slow(params), rel=1e-10)
    expected = grad(slow)(params)
    for key, array in energy.views(gradient).items():
        close(array, expected[key], 1e-8, key)


@pytest.mark.parametrize("name", NAMES)
def test_path_derivatives_vanish_where_the_flow_is_the_target(name):
    flow = make(CASES[name])
    z = np.random.default_rng(0).normal(size=(40, flow.dim))
    sizes = {}
    for path in (False, True):
        energy = FreeEnergy(flow, with_gradient(flow.log_prob))
        loss, gradient = energy(energy.flat(), z, path=path)
        sizes[path] = np.linalg.norm(gradient)
        assert loss == pytest.approx(0, abs=1e-9)
    assert sizes[True] < 1e-8 < 1e-2 < sizes[False]


def test_both_gradients_have_the_same_mean():
    flow = make(CASES["planar-D2-direction=sampling"])
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(30, 500, 2))
    found = []
    for path in (False, True):
        energy = FreeEnergy(flow, with_gradient(log_density))
        found.append(np.array([energy(energy.flat(), z, path=path)[1].copy() for z in draws]))
    gap = found[0] - found[1]
    error = gap.std(axis=0, ddof=1) / np.sqrt(len(gap))
    assert (np.abs(gap.mean(axis=0)) < 4 * error + 1e-12).all()
    assert (error > 1e-4).any()


@pytest.mark.parametrize("path", [False, True], ids=["whole", "path"])
def test_threads_do_not_change_the_bits(path):
    flow = make(CASES["iaf-dsf-D2-units=5"], dtype="float32")
    z = np.random.default_rng(0).normal(size=(600, 2))
    found = []
    for threads in (1, 3):
        energy = FreeEnergy(flow, with_gradient(log_density), threads)
        for _ in range(2):  # buffers are used again
            loss, gradient = energy(energy.flat(), z, path=path)
            found.append((loss, gradient.tobytes()))
        energy.close()
    assert len(set(found)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name",
    ["maf-D4", "made-mog-D4-components=4", "maf-dsf-D4-units=5", "maf-ddsf-D3-C2-units=5", "maf-ddsf-D1-units=5"],
)
def test_threads_share_a_batch_of_one_chunk_and_do_not_change_the_bits(name, dtype, monkeypatch):
    monkeypatch.setattr(workspace, "SHARED", 1)
    case = CASES[name]
    flow = make(case, dtype=dtype, backend="numba")
    x, context = rows(case, 100)
    honest, shared = Workers.map, []
    monkeypatch.setattr(Workers, "map", lambda self, *args: shared.append(len(args[1])) or honest(self, *args))
    found = []
    for threads in (1, 2):
        objective = NegativeLogLikelihood(flow, threads)
        for _ in range(2):
            shared.clear()
            loss, grad = objective(objective.flat(), x.astype(dtype), context)
            found.append((loss, grad.tobytes()))
            # the batch itself, and halves of what has some
            assert (2 in shared) == (threads == 2)
        objective.close()
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", ["maf-D4", "made-mog-D4-components=4", "maf-ddsf-D3-C2-units=5"])
def test_packed_parameters_and_gradients_are_those_of_the_arrays(name):
    case = CASES[name]
    x, context = rows(case, 9)
    whole, packed = (NegativeLogLikelihood(make(case, backend=backend)) for backend in ("numpy", "numba"))
    assert packed.size != whole.size
    for key, array in packed.params(packed.flat()).items():
        assert array.tobytes() == packed.flow.params[key].tobytes()
    found = [objective(objective.flat(), x, context) for objective in (whole, packed)]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-12)
    grads = packed.params(found[1][1])
    for key, expected in whole.params(found[0][1]).items():
        close(grads[key], expected, 1e-10, key)
    # as a checkpoint has it
    kept = packed.whole(found[1][1])
    assert kept.shape == (whole.size,)
    assert packed.stored(kept).tobytes() == found[1][1].tobytes()
    assert whole.stored(whole.whole(found[0][1])).tobytes() == found[0][1].tobytes()
