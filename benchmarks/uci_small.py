"""Compare the default fit with the best Gaussian mixture on five small UCI tables.

    python benchmarks/uci_small.py --data uci_small.npz [--sets wine_red ...] [--seeds 0 1 2] [--dequantise]

Each table is split by refnaf.split_rows; all models see the same training and validation rows and are scored on the
same test rows. Nats are in standardised units (of the training rows), so that tables can be compared; the difference is
that of the test rows' log-densities, with its own (paired) standard error. benchmarks/README.md says what the file
holds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np

import refnaf
from mixtures import Array, best_mixture, fit_mixtures, mean_se

SETS = ("wine_red", "cal_housing", "banknote", "airfoil", "wdbc")


@dataclass(frozen=True)
class Row:
    """One table and seed: log-densities of the test rows in standardised nats, and what else is printed."""

    name: str
    seed: int
    rows: int
    gaussian: Array
    mixture: Array
    components: int
    flow: Array | None
    seconds: float

    def __str__(self) -> str:
        cells = [self.name, str(self.seed), str(self.rows), nats(self.gaussian)]
        cells += [f"{nats(self.mixture)} ({self.components})"]
        cells += ["", ""] if self.flow is None else [nats(self.flow), nats(self.flow - self.mixture)]
        return f"| {' | '.join(cells)} | {self.seconds:.0f} |"


def nats(values: Array) -> str:
    """Mean ± standard error."""
    mean, se = mean_se(values)
    return f"{mean:.3f} ± {se:.3f}"


def resolution(column: Array) -> float:
    """One resolution step of a column (N,) that looks discrete, else 0.

    A column looks discrete where its values are taken twice or more on average; its step is the smallest gap between
    two of them that is not rounding.
    """
    values = np.unique(column)
    if len(values) < 2 or len(values) > len(column) / 2:
        return 0.0
    gaps = np.diff(values)
    return float(gaps[gaps > 1e-9 * np.abs(values).max()].min())


def dequantise(x: Array, seed: int) -> Array:
    """Add uniform noise of one resolution step to the columns of x (N, D) that look discrete."""
    steps = np.array([resolution(column) for column in x.T])
    return x + steps * np.random.default_rng(seed).random(x.shape)


def compare(name: str, x: Array, seed: int, mixtures_only: bool) -> Row:
    """Fit the mixtures and the default flow to one split of x (N, D)."""
    train, validation, test = (x[rows] for rows in refnaf.split_rows(len(x), seed=seed))
    to_standardised = np.log(train.std(0)).sum()
    fitted = fit_mixtures(train, seed=seed)
    best = best_mixture(fitted, validation)
    gaussian = fitted[0].log_prob(test) + to_standardised
    mixture = best.log_prob(test) + to_standardised
    flow, start = None, time.perf_counter()
    if not mixtures_only:
        flow = refnaf.fit(train, validation=validation, seed=seed).log_prob(test) + to_standardised
    seconds = time.perf_counter() - start
    return Row(name, seed, len(x), gaussian, mixture, best.components, flow, seconds)


def summary(rows: list[Row]) -> str:
    """Say on how many tables the flow is ahead, by its mean difference over the seeds, and whether any fit diverged."""
    differences = {
        name: np.mean([np.mean(row.flow - row.mixture) for row in rows if row.name == name and row.flow is not None])
        for name in dict.fromkeys(row.name for row in rows)
    }
    ahead = sum(bool(difference > 0) for difference in differences.values())
    diverged = sum(row.flow is not None and not np.isfinite(row.flow).all() for row in rows)
    return f"The flow is ahead of the best mixture on {ahead} of {len(differences)} tables; {diverged} fits diverged."


def main() -> None:
    """Print the table as its rows come, then the summary."""
    parser = argparse.ArgumentParser(description="The default fit against Gaussian mixtures on small UCI tables.")
    parser.add_argument("--data", default="uci_small.npz", help="see benchmarks/README.md (default: uci_small.npz)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the split and the fits (default: 0)")
    parser.add_argument("--dequantise", action="store_true", help="add one step of noise to discrete-looking columns")
    parser.add_argument("--mixtures-only", action="store_true", help="leave the flow out")
    arguments = parser.parse_args()

    try:
        with np.load(arguments.data, allow_pickle=False) as archive:
            tables = {name: archive[name].astype(np.float64) for name in arguments.sets}
    except (OSError, KeyError) as error:
        sys.exit(f"{arguments.data}: expected an .npz with {', '.join(arguments.sets)}, got {error}; see --data")
    print("Test nats in standardised units. Difference: flow - mixture, paired. Seconds: the flow's fit.\n")
    print("| table | seed | rows | gaussian | best mixture (components) | refnaf default | difference | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    rows = []
    for name, x in tables.items():
        for seed in arguments.seeds:
            table = dequantise(x, seed) if arguments.dequantise else x
            rows.append(compare(name, table, seed, arguments.mixtures_only))
            print(rows[-1], flush=True)
    if not arguments.mixtures_only:
        print(f"\n{summary(rows)}")


if __name__ == "__main__":
    main()
