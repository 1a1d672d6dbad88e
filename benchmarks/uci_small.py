"""Compare every density model with Gaussian mixtures and kernel density estimates on small tables, by cross-validation.

    python benchmarks/uci_small.py --data uci_small.npz --dequantise --log uci_small.jsonl [--tables wine_red ...]

Every row of a table is a test row once, in one of five folds; a fifth of the other rows is for validation. In a fold
all models see the same rows: flows are fitted with refnaf.fit's own settings, and the validation rows stop them; they
choose the number of components of a mixture and the bandwidth of a kernel density estimate. Nats are in standardised
units (of the whole table), so that tables can be compared. "±" is one standard error over the rows; a difference is
taken row by row, and its standard error with it. Neither knows that the fits of different folds share rows.

Each fit is a line of the log, with the nats of its test rows, and is not repeated by a later call on the same rows:
begin another log after a change of the library. benchmarks/README.md says what the file of tables holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import KernelDensity
from threadpoolctl import threadpool_limits

import refnaf
from mixtures import Array, best_mixture, fit_mixtures, mean_se
from refnaf.tables import read_table
from refnaf.tables_npy import npz_names
from refnaf.training.data import fingerprint

MIXTURE, KERNELS = "mixture", "kernels"
FLOWS = ("gaussian", "made", "made-mog", "maf", "maf-mog", "maf-dsf", "maf-ddsf", "bnaf", "tan")
MODELS = (*FLOWS, MIXTURE, KERNELS)

FOLDS = 5
#: Of the rows that are not test rows.
VALIDATION = 0.2
#: Standard deviations of the kernels, in those of the training rows' columns.
BANDWIDTHS = np.geomspace(0.01, 2, 24)


@dataclass(frozen=True)
class Kernels:
    """A kernel density estimate of rows standardised by their own mean and standard deviation."""

    bandwidth: float
    mean: Array
    sd: Array
    model: Any

    @classmethod
    def fit(cls, train: Array, bandwidth: float) -> Kernels:
        """A Gaussian, the same in all directions, on each of the rows train (N, D)."""
        mean, sd = train.mean(0), train.std(0)
        return cls(bandwidth, mean, sd, KernelDensity(bandwidth=bandwidth).fit((train - mean) / sd))

    def log_prob(self, x: Array) -> Array:
        """Log-density (N,) of the rows x (N, D), in nats and in the units of x."""
        return self.model.score_samples((x - self.mean) / self.sd) - np.log(self.sd).sum()


@dataclass(frozen=True)
class Fold:
    """One fit, a line of the log.

    data: fingerprint of the table's rows. seconds: of the fit and the scoring, on the clock. chosen: by the validation
    rows. nats: of the test rows, in the order of the table; NaN where the fit failed.
    """

    table: str
    data: str
    seed: int
    model: str
    fold: int
    seconds: float
    chosen: str
    nats: list[float]

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What a fit is known by."""
        return (self.table, self.data, self.seed, self.model, self.fold)


class Log:
    """Fits in a file of JSON lines. A line that was cut short is taken away.

    Raises ValueError where a line is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            start = '{"table": '
            if not text[len(whole) :].startswith(start) and not start.startswith(text[len(whole) :]):
                raise ValueError(f"an unfinished line that begins {text[len(whole) :][:20]!r}")
            self.fits = {fit.key: fit for fit in (Fold(**json.loads(line)) for line in whole.splitlines())}
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected a log of fits, got something else ({error}); name another file with --log"
            ) from None
        if whole != text:
            path.write_text(whole, encoding="utf-8")

    def add(self, fit: Fold) -> None:
        """Append a line."""
        self.fits[fit.key] = fit
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(fit)) + "\n")


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


def split(n: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the training, validation and test rows of a fold, disjoint, sorted, and together 0..n-1."""
    test = np.sort(np.array_split(np.random.default_rng(seed).permutation(n), FOLDS)[fold])
    rest = np.setdiff1d(np.arange(n), test)
    train, validation, _ = refnaf.split_rows(len(rest), seed, test=0.0, validation=VALIDATION)
    return rest[train], rest[validation], test


def score(
    model: str, train: Array, validation: Array, test: Array, seed: int, threads: int | None
) -> tuple[Array, str]:
    """Log-densities (N,) of the test rows (N, D), and what the validation rows have chosen."""
    if model == MIXTURE:
        mixture = best_mixture(fit_mixtures(train, seed=seed), validation)
        return mixture.log_prob(test), str(mixture.components)
    if model == KERNELS:
        fitted = (Kernels.fit(train, bandwidth) for bandwidth in BANDWIDTHS)
        kernels = max(fitted, key=lambda each: each.log_prob(validation).mean())
        return kernels.log_prob(test), f"{kernels.bandwidth:.2g}"
    try:
        flow = refnaf.fit(train, model, validation=validation, seed=seed, threads=threads)
    except refnaf.FitError as error:
        print(f"{model}: {error}", file=sys.stderr)
        return np.full(len(test), np.nan), "failed"
    return flow.log_prob(test), ""


def run(name: str, x: Array, models: Sequence[str], folds: int, seed: int, threads: int | None, log: Log) -> list[Fold]:
    """Fit the models to the first folds of a table x (N, D), where the log has them not, and return all of these."""
    data, units = fingerprint(x)[:16], np.log(x.std(0)).sum()
    wanted = [(name, data, seed, model, fold) for fold in range(folds) for model in models]
    for key in wanted:
        if key in log.fits:
            continue
        *_, model, fold = key
        train, validation, test = (x[rows] for rows in split(len(x), fold, seed))
        began = time.perf_counter()
        nats, chosen = score(model, train, validation, test, seed, threads)
        seconds = time.perf_counter() - began
        nats = np.round(nats + units, 5)
        log.add(Fold(*key, round(seconds, 2), chosen, nats.tolist()))
        print(f"{name}, fold {fold}, {model}: {nats.mean():.3f} nats, {seconds:.0f} s", file=sys.stderr, flush=True)
    return [log.fits[key] for key in wanted]


def markdown(fits: Sequence[Fold]) -> str:
    """The fits of one table, a line for each model, best first, with the difference to the best."""
    by_model: dict[str, list[Fold]] = {}
    for fit in fits:
        by_model.setdefault(fit.model, []).append(fit)
    nats = {model: np.concatenate([fit.nats for fit in own]) for model, own in by_model.items()}
    # whatever is not finite comes last
    order = sorted(nats, key=lambda model: np.nan_to_num(nats[model].mean(), nan=-np.inf), reverse=True)
    lines = ["| model | test nats | difference to the best | seconds a fold | chosen |", "|---|---:|---:|---:|---|"]
    for model in order:
        own = by_model[model]
        difference = "" if model == order[0] else shown(nats[model] - nats[order[0]])
        seconds = np.mean([fit.seconds for fit in own])
        chosen = ", ".join(fit.chosen for fit in own if fit.chosen)
        lines.append(f"| {model} | {shown(nats[model])} | {difference} | {seconds:.0f} | {chosen} |")
    return "\n".join(lines)


def shown(values: Array) -> str:
    """Mean ± standard error."""
    mean, se = mean_se(values)
    return f"{mean:.3f} ± {se:.3f}"


def read_tables(path: Path, wanted: Sequence[str] | None) -> dict[str, Array]:
    """The named tables (N, D) of an .npz, float64; those of two or more columns where no names are given.

    Raises OSError or ValueError where they are not there or are not tables of numbers.
    """
    tables = {name: read_table(path, name).x.astype(np.float64) for name in wanted or npz_names(path)}
    return {name: x for name, x in tables.items() if wanted or x.shape[1] > 1}


def main() -> None:
    """Print the Markdown of each table when all of its fits are there; each fit to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default="uci_small.npz", help="an .npz of tables (default: uci_small.npz)")
    parser.add_argument("--log", type=Path, default=Path("uci_small.jsonl"), help="(default: uci_small.jsonl)")
    parser.add_argument("--tables", nargs="+", help="(default: all of two or more columns)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--folds", type=int, choices=range(1, FOLDS + 1), default=FOLDS, help="only the first of five")
    parser.add_argument("--max-rows", type=int, help="take so many random rows of a table that has more")
    parser.add_argument("--dequantise", action="store_true", help="add one step of noise to discrete-looking columns")
    parser.add_argument("--seed", type=int, default=0, help="of rows, noise, folds and fits (default: 0)")
    parser.add_argument("--threads", type=int, help="(default: as many as there are cores, at most 4)")
    arguments = parser.parse_args()
    for option in ("max_rows", "threads"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be at least 1, got {getattr(arguments, option)}")

    try:
        tables, log = read_tables(arguments.data, arguments.tables), Log(arguments.log)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    noise = "uniform noise of one step on discrete-looking columns" if arguments.dequantise else "raw values"
    print(f"Test nats ± standard error, standardised units; {arguments.folds} of {FOLDS} folds; {noise}.")
    for name, x in tables.items():
        x = dequantise(x, arguments.seed) if arguments.dequantise else x
        if arguments.max_rows is not None and len(x) > arguments.max_rows:
            x = x[np.sort(np.random.default_rng(arguments.seed).permutation(len(x))[: arguments.max_rows])]
        try:
            with threadpool_limits(arguments.threads):
                fits = run(name, x, arguments.models, arguments.folds, arguments.seed, arguments.threads, log)
        except ValueError as error:
            sys.exit(f"{name}: {error}")
        print(f"\n{name}: {len(x):,} rows, {x.shape[1]} columns\n\n{markdown(fits)}", flush=True)


if __name__ == "__main__":
    main()
