"""The data sets of the published tables: what they should be, where they come from, and the prepared files.

``prepare`` makes ``NAME.npz`` (train, validation, test) in the cache folder from the original files, ``load`` reads it,
and ``check`` holds it against the published row counts, columns and nats of a Gaussian.
"""

from __future__ import annotations

import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refnaf.datasets.originals import PARTS, READERS
from refnaf.objective import mean_and_error
from refnaf.persistence import atomic_write
from refnaf.training.fitting import fit

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/"
_MNIST = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


@dataclass(frozen=True)
class Published:
    """A data set: rows of training, validation and test, columns, and the test nats of a Gaussian fitted to the former.

    ``nats`` is the mean with two standard errors, as in table 1 of Papamakarios et al. 2017, or None for bits, which
    have no density. ``tolerance``: how far nats may be off. ``urls``: where the original files are. ``remark``: in what
    the prepared rows differ from the authors'.
    """

    title: str
    rows: tuple[int, int, int]
    dim: int
    nats: tuple[float, float] | None
    tolerance: float
    urls: tuple[str, ...]
    remark: str


PUBLISHED: dict[str, Published] = {
    "power": Published(
        "household electricity, one row a minute",
        (1_659_917, 184_435, 204_928),
        6,
        (-7.74, 0.02),
        0.03,
        (f"{_UCI}00235/household_power_consumption.zip",),
        "from the text, other noise on the minutes: the authors' had no seed",
    ),
    "gas": Published(
        "gas sensors under changing mixtures",
        (852_174, 94_685, 105_206),
        8,
        (-3.58, 0.75),
        1.06,  # two standard errors of the difference between two samples
        (f"{_UCI}00322/data.zip",),
        "another random quarter of the rows: the authors' had no seed, and is in a pickle",
    ),
    "hepmass": Published(
        "simulated collisions that made a particle",
        (315_123, 35_013, 174_987),
        21,
        (-27.93, 0.02),
        0.03,
        (f"{_UCI}00347/1000_train.csv.gz", f"{_UCI}00347/1000_test.csv.gz"),
        "the authors' rows",
    ),
    "miniboone": Published(
        "electron neutrinos among others",
        (29_556, 3_284, 3_648),
        43,
        (-37.24, 1.07),
        0.03,
        (f"{_UCI}00199/MiniBooNE_PID.txt",),
        "the authors' rows",
    ),
    "bsds300": Published(
        "8 x 8 patches of photographs",
        (1_000_000, 50_000, 250_000),
        63,
        (96.67, 0.25),
        0.03,
        ("https://zenodo.org/record/1161203/files/data.tar.gz?download=1",),
        "the authors' rows",
    ),
    "mnist": Published(
        "binarised digits, 28 x 28 bits",
        (50_000, 10_000, 10_000),
        784,
        None,
        0.0,
        tuple(f"{_MNIST}binarized_mnist_{part}.amat" for part in ("train", "valid", "test")),
        "bits (Larochelle and Murray 2011)",
    ),
}


class Data(NamedTuple):
    """Rows ``(N, D)``: float32, or uint8 for bits."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Finding(NamedTuple):
    """One line of a check: what was looked at, what was found, what was published, whether they agree."""

    what: str
    found: str
    published: str
    good: bool


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where prepared data lie: the folder given, or $REFNAF_DATA, or ``refnaf/data`` in the user's cache folder.

    That is $XDG_CACHE_HOME where it is set, else what the system has for it.
    """
    if given or os.environ.get("REFNAF_DATA"):
        return Path(given or os.environ["REFNAF_DATA"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the specification ignores relative ones
        return Path(base) / "refnaf" / "data"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "refnaf" / "data"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "refnaf" / "data"


def published(name: str) -> Published:
    """The entry of a name. Raises ValueError for an unknown one."""
    if name not in PUBLISHED:
        raise ValueError(f"expected the name of a published data set, got {name!r}; take one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def prepared_path(name: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where the prepared file of a data set is, or would be. Raises ValueError for an unknown name."""
    published(name)
    return cache_folder(cache) / f"{name}.npz"


def prepare(name: str, where: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Path:
    """Preprocess the original files in ``where`` (a folder, an archive or a file) and write ``NAME.npz``.

    Returns its path. Raises ValueError for an unknown name and for files that are not what they should be,
    FileNotFoundError where they are not there, and ImportError where a library to read them is not.
    """
    path = prepared_path(name, cache)
    train, validation, test = READERS[name](Path(where))
    path.parent.mkdir(parents=True, exist_ok=True)
    save = np.savez_compressed if train.dtype == np.uint8 else np.savez
    with atomic_write(path) as file:
        save(file, train=train, validation=validation, test=test)
    return path


def load(name: str, cache: str | os.PathLike[str] | None = None) -> Data:
    """The prepared rows of a data set.

    Raises ValueError for an unknown name or a damaged file, FileNotFoundError where it has not been prepared.
    """
    path = prepared_path(name, cache)
    if not path.exists():
        raise FileNotFoundError(
            f"{name} is not prepared ({path} is not there); run refnaf data prepare {name} --from FOLDER, "
            f"or refnaf data fetch {name}"
        )
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return Data(*(archive[part] for part in PARTS))
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: the prepared file is damaged ({' '.join(str(error).split())[:80]}); run refnaf data prepare "
            f"{name} again"
        ) from None


def check(name: str, cache: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Prepared rows against what was published: row counts, columns, the test nats of a Gaussian of full covariance.

    The Gaussian is the maximum-likelihood fit to the training rows (Papamakarios et al. 2017, table 1). Raises as
    :func:`load`.
    """
    entry, data = published(name), load(name, cache)
    findings = [
        Finding(f"{part} rows", f"{len(rows):,}", f"{wanted:,}", len(rows) == wanted)
        for part, rows, wanted in zip(PARTS, data, entry.rows, strict=True)
    ]
    dims = {rows.shape[1] for rows in data}
    shown = ", ".join(map(str, sorted(dims)))
    findings.append(Finding("columns", shown, str(entry.dim), dims == {entry.dim}))
    if entry.nats is None:
        values = np.unique(np.concatenate([np.unique(rows) for rows in data]))
        found = "bits" if np.isin(values, (0, 1)).all() else f"values up to {values.max()}"
        findings.append(Finding("values", found, "bits", found == "bits"))
    elif len(dims) == 1:
        mean, error = gaussian_nats(data)
        wanted, spread = entry.nats
        good = abs(mean - wanted) <= entry.tolerance
        findings.append(
            Finding("Gaussian, test", f"{mean:.3f} +- {2 * error:.3f}", f"{wanted:.2f} +- {spread:.2f}", good)
        )
    return findings


def gaussian_nats(data: Data) -> tuple[float, float]:
    """Mean and standard error of the test nats of the Gaussian of full covariance fitted to the training rows."""
    gaussian = fit(data.train, "gaussian", validation=None, dtype="float64")
    return mean_and_error(gaussian.log_prob(data.test))
