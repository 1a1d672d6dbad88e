"""The README's table: test nats of several models on data/power.npy and data/grid.npy.

    python benchmarks/fit_table.py [--data data/power.npy ...] [--models maf ...] [--seeds 0 1 2]

A seed sets the split and the fit, as ``refnaf fit --seed`` does; everything else is the default. On power.npy a
40-component full-covariance Gaussian mixture is fitted to the same rows. Nats are in the units of the data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import refnaf
from mixtures import Array, Mixture, fit_mixture, mean_se

DATA = Path(__file__).resolve().parents[1] / "data"
MODELS = ("gaussian", "maf", "made-mog", "maf-mog", "tan", "maf-dsf", "maf-ddsf")
MIXTURE = "mixture of 40 Gaussians"


@dataclass(frozen=True)
class Result:
    """One fit: test nats with their standard error, the same in standardised units, seconds, trained numbers."""

    mean: float
    se: float
    standardised: float
    seconds: float
    size: str


def score(model: str, x: Array, seed: int) -> Result:
    """Fit one model to one split of x (N, D) and score its test rows."""
    train, validation, test = (x[rows] for rows in refnaf.split_rows(len(x), seed=seed))
    start = time.perf_counter()
    fitted: refnaf.Flow | Mixture
    size = ""
    if model == MIXTURE:
        fitted = fit_mixture(train, 40, seed)
    else:
        fitted = refnaf.fit(train, model=model, validation=validation, seed=seed)
        size = f"{fitted.n_params:,}"
    seconds = time.perf_counter() - start
    mean, se = mean_se(fitted.log_prob(test.astype(np.float64)))
    return Result(mean, se, mean + float(np.log(train.std(0, dtype=np.float64)).sum()), seconds, size)


def line(model: str, results: Sequence[Result]) -> str:
    """One row of the table: each seed's test nats, then the means over the seeds."""
    cells = [model, results[0].size, *(f"{r.mean:.3f} ± {r.se:.3f}" for r in results)]
    cells.append(f"{np.mean([r.mean for r in results]):.3f}")
    cells.append(f"{np.mean([r.standardised for r in results]):.3f}")
    cells.append(f"{np.mean([r.seconds for r in results]):.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print one table for each file, each line as it is known."""
    parser = argparse.ArgumentParser(description="Test nats of several models on the arrays of data/.")
    parser.add_argument("--data", nargs="+", default=[DATA / "power.npy", DATA / "grid.npy"], type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and fit (default: 0 1 2)")
    arguments = parser.parse_args()

    for path in arguments.data:
        x = np.load(path, allow_pickle=False)
        models = [*arguments.models, *([MIXTURE] if path.name == "power.npy" else [])]
        seeds = [f"seed {seed}" for seed in arguments.seeds]
        print(f"\n{path.name}: {len(x):,} rows, {x.shape[1]} columns; test nats ± standard error\n")
        print(f"| model | numbers | {' | '.join(seeds)} | mean | mean, standardised units | seconds |")
        print(f"|---|---:|{'---:|' * (len(seeds) + 3)}", flush=True)
        for model in models:
            print(line(model, [score(model, x, seed) for seed in arguments.seeds]), flush=True)


if __name__ == "__main__":
    main()
