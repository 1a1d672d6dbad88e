"""What the conformance kit finds in published flows: ``python benchmarks/found_in_the_wild.py``, a Markdown table.

Needs ``pip install torch pyro-ppl zuko nflows torchflows`` (any part of them: rows of what is missing are left out).
Every flow has two dimensions and is in float64; its parameters are the library's own initial ones, moved by normals of
0.1 (or, where the table says so, fitted to 2,000 rows of the standard normal). Seeded.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import peer_wraps

import refnaf
from refnaf.verify import check_flow

CHECKS = ("log-determinant", "image", "round trip", "round trip of noise", "tails", "normalisation", "samples")


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


def _clipped() -> Iterator[tuple[str, Any]]:
    """refnaf's own DSF, exact and with the clip by 1e-6 that the NAF authors' code has (``clip=1e-6``)."""
    for clip in (0.0, 1e-6):
        flow = refnaf.build("maf-dsf", 2, flows=1, units=4, dtype="float64", clip=clip)
        rng = np.random.default_rng(0)
        flow = flow.replace({name: value + 0.1 * rng.normal(size=value.shape) for name, value in flow.params.items()})
        yield f"maf-dsf, clip={clip:g}", flow


PACKAGES: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "torchflows": _torchflows,
    "pyro-ppl": _pyro,
    "zuko": _zuko,
    "nflows": _nflows,
    "refnaf": _clipped,
}


def rows(package: str, seed: int) -> Iterator[list[str]]:
    """Cells of the table: a row for each failed check, or one that says that all passed."""
    label = f"{package} {importlib.metadata.version(package)}"
    for name, flow in PACKAGES[package]():
        report = check_flow(flow, dim=2, seed=seed, rows=1000, checks=CHECKS)
        for result in report.failed:
            yield [label, name, result.name, " ".join(f"{result.detail} {result.where}".split())]
        if report.ok:
            yield [label, name, "", f"conforms ({sum(r.status == 'passed' for r in report)} checks)"]


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
    print("| package | flow | check | found |\n|---|---|---|---|")
    for package in arguments.packages or PACKAGES:
        try:
            torch = importlib.import_module("torch")
            torch.set_default_dtype(torch.float64)
            torch.manual_seed(arguments.seed)
            importlib.metadata.version(package)
        except (ImportError, importlib.metadata.PackageNotFoundError):
            if package != "refnaf":
                continue
        for cells in rows(package, arguments.seed):
            print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
