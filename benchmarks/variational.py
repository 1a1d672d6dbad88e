"""Variational inference on the four energies of Rezende and Mohamed 2015: how far from the target planar flows and a
neural autoregressive flow end.

    python benchmarks/variational.py [--seeds 0] [--steps 3000] [--targets U1 ...] [--models iaf-dsf ...]

U1 to U4 are those of the paper's table 1. U2 to U4 have no normaliser, being ridges along the whole z1 axis: here they
end in a wall, ``-((|z1| - 4) / 0.4)^2 / 2`` beyond ``|z1| = 4``. The KL divergence from q to p is an integral over a
grid; "mass" is the integral of q over it. Everything but the number of planar flows and ``anneal`` is the default.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np

import refnaf
from refnaf.datasets.energies import rezende2, rezende3, rezende4, u1

LogDensity = Callable[[Any], Any]
REACH, POINTS = 8.0, 501


def walled(energy: LogDensity) -> LogDensity:
    """The energy between walls at ``|z1| = 4``."""
    return lambda z: energy(z) - 0.5 * (anp.maximum(anp.abs(z[:, 0]) - 4, 0) / 0.4) ** 2


TARGETS: dict[str, LogDensity] = {
    "U1": u1,
    "U2": walled(rezende2),
    "U3": walled(rezende3),
    "U4": walled(rezende4),
}
MODELS: dict[str, dict[str, Any]] = {
    "planar, K = 2": {"model": "planar", "flows": 2},
    "planar, K = 8": {"model": "planar", "flows": 8},
    "planar, K = 32": {"model": "planar", "flows": 32},
    "iaf-dsf": {"model": "iaf-dsf"},
}


def divergence(flow: refnaf.Flow, log_density: LogDensity) -> tuple[float, float, float]:
    """``KL(q || p)`` and the log normaliser of p, in nats, and the mass of q, by quadrature on the grid."""
    axis = np.linspace(-REACH, REACH, POINTS)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2
    log_q, log_p = flow.log_prob(grid), log_density(grid)
    q = np.exp(log_q)
    log_z = float(np.log(np.sum(np.exp(log_p)) * cell))
    return float(np.sum(q * (log_q - log_p)) * cell) + log_z, log_z, float(np.sum(q) * cell)


def fit_quietly(log_density: LogDensity, dim: int, **options: Any) -> tuple[refnaf.Flow, float]:
    """``refnaf.fit_variational`` on one thread, and its seconds; silent about uneven weights: the KL is measured."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnaf.DataWarning)
        flow = refnaf.fit_variational(log_density, dim, threads=1, **options)
    return flow, time.perf_counter() - began


def row(target: str, name: str, seed: int, steps: int, anneal: float) -> str:
    """One run, as a line of the table."""
    flow, seconds = fit_quietly(TARGETS[target], 2, seed=seed, steps=steps, anneal=anneal, **MODELS[name])
    kl, log_z, mass = divergence(flow, TARGETS[target])
    scores, found = flow.provenance["scores"], flow.provenance["importance"]
    bound, estimate = (f"{value:.4f} ± {error:.4f}" for value, error in (scores["elbo"], scores["log_normaliser"]))
    share = found["ess"] / found["samples"]
    cells = [target, name, f"{flow.n_params:,}", seed, f"{kl:.4f}", f"{mass:.4f}", bound, estimate, f"{log_z:.4f}"]
    return f"| {' | '.join(map(str, [*cells, f'{share:.1%}', f'{seconds:.0f}']))} |"


def main() -> None:
    """Print the table, each line as it is known."""
    parser = argparse.ArgumentParser(description="Variational inference on the energies of Rezende and Mohamed.")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--anneal", type=float, default=0.5)
    arguments = parser.parse_args()

    print(
        f"{datetime.date.today()}, refnaf {refnaf.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, one thread; seeds {' '.join(map(str, arguments.seeds))}, "
        f"{arguments.steps:,} steps of 256 samples, anneal {arguments.anneal}\n"
    )
    print("| target | model | numbers | seed | KL, nats | mass | ELBO | log Z, estimated | log Z | ESS | seconds |")
    print(f"|---|---|{'---:|' * 9}", flush=True)
    for target in arguments.targets:
        for name in arguments.models:
            for seed in arguments.seeds:
                print(row(target, name, seed, arguments.steps, arguments.anneal), flush=True)


if __name__ == "__main__":
    main()
