"""Full-covariance Gaussian mixtures to compare with: the best of 1 to 40 components, chosen by validation.

    python benchmarks/mixtures.py data/power.npy --seed 0

prints the validation and test nats of every number of components on the rows that ``refnaf fit`` would use.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import refnaf

Array = NDArray[np.float64]

COMPONENTS = (1, 2, 3, 5, 8, 12, 16, 20, 30, 40)
REG_COVAR = 1e-6


@dataclass(frozen=True)
class Mixture:
    """A mixture fitted to rows standardised by their own mean and standard deviation."""

    components: int
    mean: Array
    sd: Array
    model: Any

    def log_prob(self, x: Array) -> Array:
        """Log-density (N,) of the rows x (N, D), in nats and in the units of x."""
        return self.model.score_samples((x - self.mean) / self.sd) - np.log(self.sd).sum()


def mean_se(values: Array) -> tuple[float, float]:
    """Mean of the values (N,) and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def fit_mixture(train: Array, components: int, seed: int = 0, reg_covar: float = REG_COVAR) -> Mixture:
    """Fit one mixture to the rows train (N, D); reg_covar is added to the variances of the standardised columns.

    Raises ValueError (scikit-learn's) where a covariance cannot be factorised, or there are fewer rows than components.
    """
    train = np.asarray(train, np.float64)
    mean, sd = train.mean(0), train.std(0)
    model = GaussianMixture(components, reg_covar=reg_covar, max_iter=500, n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped by max_iter: it is scored as it stands
        model.fit((train - mean) / sd)
    return Mixture(components, mean, sd, model)


def fit_mixtures(
    train: Array, components: Iterable[int] = COMPONENTS, seed: int = 0, reg_covar: float = REG_COVAR
) -> list[Mixture]:
    """Fit a mixture for each number of components, leaving out those that cannot be fitted."""
    fitted = []
    for k in components:
        try:
            fitted.append(fit_mixture(train, k, seed, reg_covar))
        except ValueError:
            continue
    return fitted


def best_mixture(fitted: Sequence[Mixture], validation: Array) -> Mixture:
    """The mixture with the highest mean log-density of the validation rows (N, D)."""
    return max(fitted, key=lambda mixture: mixture.log_prob(validation).mean())


def main() -> None:
    """Print one line for each number of components."""
    parser = argparse.ArgumentParser(description="Gaussian mixtures of 1 to 40 components.")
    parser.add_argument("data", help="table of numbers, rows by columns, .npy")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the fits (default: 0)")
    parser.add_argument("--components", type=int, nargs="+", default=COMPONENTS)
    parser.add_argument("--reg-covar", type=float, default=REG_COVAR)
    arguments = parser.parse_args()

    x = np.load(arguments.data, allow_pickle=False).astype(np.float64)
    train, validation, test = (x[rows] for rows in refnaf.split_rows(len(x), seed=arguments.seed))
    fitted = fit_mixtures(train, arguments.components, arguments.seed, arguments.reg_covar)
    best = best_mixture(fitted, validation)
    units = np.log(train.std(0)).sum()
    print(f"sum of the columns' log standard deviations: {units:.4f} (standardised nats = raw nats + this)\n")
    print("| components | validation nats | test nats | test nats, standardised | |\n|---:|---:|---:|---:|---|")
    for mixture in fitted:
        checked, _ = mean_se(mixture.log_prob(validation))
        score, se = mean_se(mixture.log_prob(test))
        mark = "best" if mixture is best else ""
        raw, standardised = f"{score:.3f} ± {se:.3f}", f"{score + units:.3f} ± {se:.3f}"
        print(f"| {mixture.components} | {checked:.3f} | {raw} | {standardised} | {mark} |")


if __name__ == "__main__":
    main()
