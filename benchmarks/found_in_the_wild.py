"""What the conformance kit finds in published flows: ``python benchmarks/found_in_the_wild.py``, a Markdown table.

Needs ``pip install torch pyro-ppl zuko nflows torchflows flowjax`` (any part of them: rows of what is missing are left
out). Every flow is in float64, of two dimensions unless the table says otherwise; its parameters are the library's own
initial ones, moved by normals of 0.1 (or, where the table says so, fitted to 2,000 rows of the standard normal).
torchkit is on no registry: its flows are the authors' weights of tests/vectors, with a context, as ``from_torchkit``
gives them, which repeats torchkit's arithmetic to 1e-11. So is B-NAF: refnaf's, with the residuals of the authors'
density estimation, is fitted. Seeded.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peer_wraps

import refnaf
from refnaf.verify import check_flow

VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors"
CHECKS = ("log-determinant", "image", "round trip", "round trip of noise", "tails", "normalisation", "samples")
#: Flows whose integral would take many minutes.
SLOW = ("MaskedAutoregressiveDenseSF",)


def moved(module: Any) -> Any:
    """The module with normals of 0.1 added to all its parameters, in evaluation mode."""
    torch = importlib.import_module("torch")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def fitted(module: Any, log_prob: Callable[[Any], Any], steps: int = 400) -> Any:
    """The module after maximum likelihood on 2,000 standard normal rows (Adam)."""
    torch = importlib.import_module("torch")
    x = torch.tensor(np.random.default_rng(0).normal(size=(2000, 2)))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = -log_prob(x.clone()).mean()  # a copy: transforms may cache by the identity of their input
        loss.backward()
        optimiser.step()
    return module.eval()


def _pyro() -> Iterator[tuple[str, Any]]:
    torch, transforms = importlib.import_module("torch"), importlib.import_module("pyro.distributions.transforms")

    def density(transform: Any) -> Callable[[Any], Any]:
        def log_prob(x: Any) -> Any:
            z = transform(x)
            return (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(-1) + transform.log_abs_det_jacobian(x, z)

        return log_prob

    neural = moved(transforms.neural_autoregressive(2, hidden_dims=[16]))
    yield "neural_autoregressive (NAF, DSF)", peer_wraps.pyro_density(neural)
    block = transforms.block_autoregressive(2, hidden_factors=[8, 8], residual=None)
    yield "block_autoregressive (B-NAF), fitted", peer_wraps.pyro_density(fitted(block, density(block)))
    affine = transforms.affine_autoregressive(2, hidden_dims=[16])
    torch.manual_seed(1)
    yield "affine_autoregressive", peer_wraps.pyro_sampler(moved(affine), 2)


def _zuko() -> Iterator[tuple[str, Any]]:
    flows = importlib.import_module("zuko.flows")
    for name in ("MAF", "NSF", "NAF", "SOSPF", "BPF"):
        yield name, peer_wraps.zuko(moved(getattr(flows, name)(2, transforms=2, hidden_features=(16, 16))))
    gaussianisation = flows.GF(2, transforms=2)
    yield "GF, fitted", peer_wraps.zuko(fitted(gaussianisation, lambda x: gaussianisation().log_prob(x)))


def _nflows() -> Iterator[tuple[str, Any]]:
    transforms, flows = importlib.import_module("nflows.transforms"), importlib.import_module("nflows.flows")
    normal = importlib.import_module("nflows.distributions").StandardNormal([2])
    for name, options in (
        ("MaskedAffineAutoregressiveTransform", {}),
        ("MaskedPiecewiseRationalQuadraticAutoregressiveTransform", {"tails": "linear", "tail_bound": 3.0}),
    ):
        layers = [getattr(transforms, name)(2, 16, **options), transforms.ReversePermutation(2)]
        yield name, peer_wraps.nflows(moved(flows.Flow(transforms.CompositeTransform(layers), normal)))


def _torchflows() -> Iterator[tuple[str, Any]]:
    module = importlib.import_module("torchflows.bijections.finite.autoregressive.architectures")
    flow = importlib.import_module("torchflows.flows").Flow
    for name in ("MAF", "MaskedAutoregressiveRQNSF", "MaskedAutoregressiveDeepSF", "MaskedAutoregressiveDenseSF"):
        yield name, peer_wraps.torchflows(moved(flow(getattr(module, name)((2,), n_layers=2))))


def _flowjax() -> Iterator[tuple[str, Any]]:
    jax, flows = importlib.import_module("jax"), importlib.import_module("flowjax.flows")
    jax.config.update("jax_enable_x64", True)
    base = importlib.import_module("flowjax.distributions").Normal(np.zeros(2))
    for name, options in (
        ("masked_autoregressive", {"flow_layers": 2, "nn_width": 16}),
        ("triangular_spline", {"flow_layers": 2}),
        ("planar", {"flow_layers": 4, "negative_slope": 0.1}),
        ("block_neural_autoregressive", {"flow_layers": 2}),
    ):
        flow = getattr(flows, f"{name}_flow")(jax.random.key(1), base_dist=base, **options)
        yield f"{name}_flow", peer_wraps.flowjax(_moved_leaves(flow))


def _moved_leaves(flow: Any) -> Any:
    """A flowjax flow with normals of 0.1 added to its numbers, but for those of the base."""
    jax, eqx = importlib.import_module("jax"), importlib.import_module("equinox")
    rng = np.random.default_rng(0)

    def move(leaf: Any) -> Any:
        return leaf + 0.1 * rng.normal(size=leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return eqx.tree_at(lambda f: f.bijection, flow, jax.tree_util.tree_map(move, flow.bijection))


def _torchkit() -> Iterator[tuple[str, Any]]:
    for name, label in (
        ("iaf_dsf_random", "IAF_DSF, 6 dimensions"),
        ("iaf_ddsf_random", "IAF_DDSF, 6 dimensions"),
        ("maf_dsf_stack3", "3 x IAF_DSF, 6 dimensions"),
        ("maf_ddsf_stack3", "3 x IAF_DDSF, 6 dimensions"),
        ("iaf_affine_sigmoid_random", "IAF, 6 dimensions"),
    ):
        with np.load(VECTORS / f"{name}.npz") as file:
            state = {key.removeprefix("state/"): file[key] for key in file if key.startswith("state/")}
        yield label, refnaf.interop.from_torchkit(state)


def _bnaf() -> Iterator[tuple[str, Any]]:
    x = np.random.default_rng(0).normal(size=(2000, 2))
    yield (
        "two gated flows and one without a residual, fitted",
        refnaf.fit(x, model="bnaf", residual="published", dtype="float64"),
    )


PACKAGES: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "torchflows": _torchflows,
    "pyro-ppl": _pyro,
    "zuko": _zuko,
    "nflows": _nflows,
    "flowjax": _flowjax,
    "torchkit": _torchkit,
    "bnaf": _bnaf,
}
#: Not installed as packages: refnaf runs them.
BY_REFNAF = {"torchkit": "torchkit (2018)", "bnaf": "B-NAF (2019)"}


def rows(package: str, seed: int) -> Iterator[list[str]]:
    """Cells of the table: a row for each failed check, or one that says that all passed."""
    label = BY_REFNAF.get(package) or f"{package} {importlib.metadata.version(package)}"
    for name, flow in PACKAGES[package]():
        width = getattr(flow, "context_dim", 0)
        dim = getattr(flow, "dim", 2)
        report = check_flow(
            flow, dim=dim, context_dim=width, seed=seed, rows=1000, checks=CHECKS[: 5 if name in SLOW else 7]
        )
        for result in report.failed:
            off = f"{result.value:.2g}" if result.value else ""
            yield [label, name, result.name, off, result.detail.splitlines()[0]]
        if report.ok:
            yield [label, name, "", "", f"conforms ({sum(r.status == 'passed' for r in report)} checks)"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)} [default: all]")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.packages if name not in PACKAGES]
    if unknown:
        parser.error(f"expected some of {', '.join(PACKAGES)}, got {unknown[0]}")
    warnings.filterwarnings("ignore")
    print("| package | flow | check | off by | found |\n|---|---|---|---:|---|")
    for package in arguments.packages or PACKAGES:
        with contextlib.suppress(ImportError):
            torch = importlib.import_module("torch")
            torch.set_default_dtype(torch.float64)
            torch.manual_seed(arguments.seed)
        try:
            importlib.metadata.version("refnaf" if package in BY_REFNAF else package)
        except importlib.metadata.PackageNotFoundError:
            continue
        for cells in rows(package, arguments.seed):
            print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
