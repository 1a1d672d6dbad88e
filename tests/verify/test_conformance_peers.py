"""Flows of other libraries that are right raise no alarm; some that are known not to be are caught."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest

from refnaf.verify import assert_conforms, check_flow
from refnaf.verify.conformance import CHECKS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

_SPEC = importlib.util.spec_from_file_location(
    "peer_wraps", Path(__file__).resolve().parents[2] / "benchmarks" / "peer_wraps.py"
)
assert _SPEC is not None and _SPEC.loader is not None
wraps = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(wraps)

SHAPES = [(2, 0), (3, 2)]


@contextlib.contextmanager
def torch_in(dtype, seed=0):
    """Torch with that default dtype and that seed."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(seed)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """The dtype, which is torch's default while the test runs."""
    with torch_in(request.param):
        yield request.param


def moved(module):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def zuko(name, dim, context_dim):
    flows = pytest.importorskip("zuko.flows")
    return wraps.zuko(moved(getattr(flows, name)(dim, context_dim, transforms=2, hidden_features=(16, 16))))


def nflows(name, options, dim, context_dim):
    transforms = pytest.importorskip("nflows.transforms")
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    layers = []
    for _ in range(2):
        layers.append(getattr(transforms, name)(dim, 16, context_features=context_dim or None, num_blocks=1, **options))
        layers.append(transforms.ReversePermutation(dim))
    return wraps.nflows(moved(Flow(transforms.CompositeTransform(layers), StandardNormal([dim]))))


def pyro(name, dim):
    transforms = pytest.importorskip("pyro.distributions.transforms")
    return wraps.pyro_sampler(moved(getattr(transforms, name)(dim, hidden_dims=[16])), dim)


def flowjax(name, dim, context_dim, seed=1):
    flows = pytest.importorskip("flowjax.flows")
    import jax
    from flowjax.distributions import Normal
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    options = {"base_dist": Normal(jnp.zeros(dim)), "cond_dim": context_dim or None, "flow_layers": 2}
    flow = getattr(flows, f"{name}_flow")(jax.random.key(seed), nn_width=16, nn_depth=1, **options)
    arrays, rest = flows.eqx.partition(flow, flows.eqx.is_inexact_array)
    leaves, tree = jax.tree_util.tree_flatten(arrays)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    # the base normal's own numbers stay as they are
    fixed = len(jax.tree_util.tree_leaves(flows.eqx.filter(flow.base_dist, flows.eqx.is_inexact_array)))
    noise = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    leaves = [leaf + (part if k >= fixed else 0) for k, (leaf, part) in enumerate(zip(leaves, noise, strict=True))]
    return wraps.flowjax(flows.eqx.combine(jax.tree_util.tree_unflatten(tree, leaves), rest))


@pytest.mark.parametrize(("dim", "context_dim"), SHAPES)
@pytest.mark.parametrize("name", ["MAF", "NSF", "NICE", "BPF"])
def test_zuko(name, dim, context_dim, dtype):
    assert_conforms(zuko(name, dim, context_dim), dim=dim, context_dim=context_dim, dtype=dtype, rows=1000)


@pytest.mark.parametrize(("dim", "context_dim"), SHAPES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MaskedAffineAutoregressiveTransform", {}),
        ("MaskedPiecewiseRationalQuadraticAutoregressiveTransform", {"tails": "linear", "tail_bound": 3.0}),
    ],
)
def test_nflows(name, options, dim, context_dim, dtype):
    flow = nflows(name, options, dim, context_dim)
    # in float32 its spline's inverse may fail its own assertion on a discriminant, far out
    checks = [name for name in CHECKS if name != "tails" or dtype == "float64" or not options]
    assert_conforms(flow, dim=dim, context_dim=context_dim, dtype=dtype, rows=1000, checks=checks)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", ["affine_autoregressive", "spline_autoregressive", "affine_coupling"])
def test_pyro(name, dim, dtype):
    assert_conforms(pyro(name, dim), dim=dim, dtype=dtype, rows=1000)


@pytest.mark.parametrize("name", ["MAF", "MaskedAutoregressiveRQNSF", "CouplingRQNSF", "RealNVP"])
def test_torchflows(name, dtype):
    architectures = pytest.importorskip("torchflows.bijections.finite.autoregressive.architectures")
    from torchflows.flows import Flow

    flow = moved(Flow(getattr(architectures, name)((3,), n_layers=2)))
    assert_conforms(wraps.torchflows(flow), dim=3, dtype=dtype, rows=1000)


@pytest.mark.parametrize(("name", "dim", "context_dim"), [("masked_autoregressive", 3, 2), ("coupling", 2, 0)])
def test_flowjax(name, dim, context_dim):
    assert_conforms(flowjax(name, dim, context_dim), dim=dim, context_dim=context_dim, rows=1000)


#: By library, flows that are right: makers of a seed, taken in turn, with D and C.
RIGHT = {
    "zuko": [
        (lambda _: zuko("MAF", 2, 0), 2, 0),
        (lambda _: zuko("NSF", 3, 2), 3, 2),
        (lambda _: zuko("BPF", 2, 0), 2, 0),
    ],
    "nflows": [
        (lambda _: nflows("MaskedAffineAutoregressiveTransform", {}, 2, 0), 2, 0),
        (lambda _: nflows("MaskedAffineAutoregressiveTransform", {}, 3, 2), 3, 2),
    ],
    "pyro": [(lambda _: pyro("affine_autoregressive", 2), 2, 0), (lambda _: pyro("spline_autoregressive", 3), 3, 0)],
    "flowjax": [
        (lambda seed: flowjax("masked_autoregressive", 3, 2, seed), 3, 2),
        (lambda seed: flowjax("coupling", 2, 0, seed), 2, 0),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("library", RIGHT)
def test_no_false_alarm_in_a_hundred_seeds(library):
    for seed in range(100):
        make, dim, context_dim = RIGHT[library][seed % len(RIGHT[library])]
        with torch_in("float64", seed):
            assert_conforms(make(seed), dim=dim, context_dim=context_dim, dtype="float64", rows=1000, seed=seed)


def test_the_deep_sigmoidal_flow_of_torchflows_is_caught():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torchflows.bijections.finite.autoregressive.architectures")
    from torchflows.flows import Flow

    torch.manual_seed(0)
    flow = moved(Flow(module.MaskedAutoregressiveDeepSF((2,), n_layers=2)).double())
    report = check_flow(wraps.torchflows(flow), dim=2, dtype="float64", checks=["log-determinant", "normalisation"])
    assert [result.name for result in report.failed] == ["log-determinant", "normalisation"]


def test_the_lost_mass_of_pyros_block_network_is_caught(dtype):
    transforms = pytest.importorskip("pyro.distributions.transforms")
    transform = moved(transforms.block_autoregressive(2, hidden_factors=[4, 4], residual=None))
    report = check_flow(wraps.pyro_density(transform), dim=2, dtype=dtype, checks=["image", "tails"])
    assert [result.name for result in report.failed] == ["image", "tails"]
    assert "bounded" in report["image"].cause
