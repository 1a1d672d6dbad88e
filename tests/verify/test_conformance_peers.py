"""Flows of other libraries that are right raise no alarm; some that are known not to be are caught."""

from __future__ import annotations

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


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """The dtype, which is torch's default while the test runs."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param))
    torch.manual_seed(0)
    yield request.param
    torch.set_default_dtype(before)


def moved(module):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize(("dim", "context_dim"), SHAPES)
@pytest.mark.parametrize("name", ["MAF", "NSF", "NICE", "BPF"])
def test_zuko(name, dim, context_dim, dtype):
    flows = pytest.importorskip("zuko.flows")
    flow = moved(getattr(flows, name)(dim, context_dim, transforms=2, hidden_features=(16, 16)))
    assert_conforms(wraps.zuko(flow), dim=dim, context_dim=context_dim, dtype=dtype, rows=1000)


@pytest.mark.parametrize(("dim", "context_dim"), SHAPES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MaskedAffineAutoregressiveTransform", {}),
        ("MaskedPiecewiseRationalQuadraticAutoregressiveTransform", {"tails": "linear", "tail_bound": 3.0}),
    ],
)
def test_nflows(name, options, dim, context_dim, dtype):
    transforms = pytest.importorskip("nflows.transforms")
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    layers = []
    for _ in range(2):
        layers.append(getattr(transforms, name)(dim, 16, context_features=context_dim or None, num_blocks=1, **options))
        layers.append(transforms.ReversePermutation(dim))
    flow = moved(Flow(transforms.CompositeTransform(layers), StandardNormal([dim])))
    # in float32 its spline's inverse may fail its own assertion on a discriminant, far out
    checks = [name for name in CHECKS if name != "tails" or dtype == "float64" or not options]
    assert_conforms(wraps.nflows(flow), dim=dim, context_dim=context_dim, dtype=dtype, rows=1000, checks=checks)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", ["affine_autoregressive", "spline_autoregressive", "affine_coupling"])
def test_pyro(name, dim, dtype):
    transforms = pytest.importorskip("pyro.distributions.transforms")
    transform = moved(getattr(transforms, name)(dim, hidden_dims=[16]))
    assert_conforms(wraps.pyro_sampler(transform, dim), dim=dim, dtype=dtype, rows=1000)


@pytest.mark.parametrize("name", ["MAF", "MaskedAutoregressiveRQNSF", "CouplingRQNSF", "RealNVP"])
def test_torchflows(name, dtype):
    architectures = pytest.importorskip("torchflows.bijections.finite.autoregressive.architectures")
    from torchflows.flows import Flow

    flow = moved(Flow(getattr(architectures, name)((3,), n_layers=2)))
    assert_conforms(wraps.torchflows(flow), dim=3, dtype=dtype, rows=1000)


@pytest.mark.parametrize(("name", "dim", "context_dim"), [("masked_autoregressive", 3, 2), ("coupling", 2, 0)])
def test_flowjax(name, dim, context_dim):
    flows = pytest.importorskip("flowjax.flows")
    import jax
    from flowjax.distributions import Normal
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    options = {"base_dist": Normal(jnp.zeros(dim)), "cond_dim": context_dim or None, "flow_layers": 2}
    flow = getattr(flows, f"{name}_flow")(jax.random.key(1), nn_width=16, nn_depth=1, **options)
    arrays, rest = flows.eqx.partition(flow, flows.eqx.is_inexact_array)
    leaves, tree = jax.tree_util.tree_flatten(arrays)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    # the base normal's own numbers stay as they are
    fixed = len(jax.tree_util.tree_leaves(flows.eqx.filter(flow.base_dist, flows.eqx.is_inexact_array)))
    noise = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    leaves = [leaf + (part if k >= fixed else 0) for k, (leaf, part) in enumerate(zip(leaves, noise, strict=True))]
    flow = flows.eqx.combine(jax.tree_util.tree_unflatten(tree, leaves), rest)
    assert_conforms(wraps.flowjax(flow), dim=dim, context_dim=context_dim, rows=1000)


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
