"""From raw tables to training, validation and test rows, as in Papamakarios, Pavlakou and Murray 2017 (MAF).

Each function takes what a file holds and returns three float32 arrays ``(N, D)``, the units those of the published
nats. Where the authors drew random numbers from ``RandomState(42)``, the same numbers are drawn in the same order;
where they drew them from no seed, this module has one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Splits = tuple[np.ndarray, np.ndarray, np.ndarray]

#: Seed of the POWER authors' shuffle and noise.
AUTHORS_SEED = 42

#: Seed of what the authors drew without one: the noise on POWER's minutes, the quarter of GAS's rows.
OWN_SEED = 0

#: A column is left out where its lowest value occurs more often than this (HEPMASS, MINIBOONE).
REPEATS = 5

#: A column is left out where a later one has a correlation with it above this (GAS).
CORRELATION = 0.98


def cut(rows: np.ndarray) -> Splits:
    """Training, validation and test rows: the last tenth is the test, the last tenth of the rest validation."""
    n_test = int(0.1 * len(rows))
    rest, test = rows[: len(rows) - n_test], rows[len(rows) - n_test :]
    return (*cut_validation(rest), test)


def cut_validation(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows, the latter the last tenth."""
    n_validation = int(0.1 * len(rows))
    return rows[: len(rows) - n_validation], rows[len(rows) - n_validation :]


def scaled(parts: Sequence[np.ndarray], reference: np.ndarray, ddof: int = 0) -> Splits:
    """The three parts by mean and standard deviation of the ``reference`` rows, as float32.

    Raises ValueError where a column of the reference is constant.
    """
    mean, scale = reference.mean(axis=0), reference.std(axis=0, ddof=ddof)
    flat = np.flatnonzero(np.ptp(reference, axis=0) == 0)
    if len(flat):
        raise ValueError(
            f"expected columns that vary, got {len(reference):,} rows with one value in columns "
            f"{', '.join(map(str, flat[:10]))}; check that the file is whole and the right one"
        )
    train, validation, test = (((part - mean) / scale).astype(np.float32) for part in parts)
    return train, validation, test


def power(table: np.ndarray) -> Splits:
    """POWER, from the eight columns ``(N, 8)`` of the authors' ``power/data.npy``.

    These are active power (kW), reactive power, voltage (V), intensity, three meters (Wh) and the time of day (minutes,
    with noise). Rows are shuffled, reactive power and intensity left out, and uniform noise of one step of resolution
    added: 0.001 kW, 0.01 V, 1 Wh.
    """
    n = len(table)
    rng = np.random.RandomState(AUTHORS_SEED)
    order = np.arange(n)
    rng.shuffle(order)  # the same swaps as of the rows themselves
    data = np.ascontiguousarray(table[order][:, [0, 2, 4, 5, 6, 7]], dtype=np.float64)
    voltage, active, meters = 0.01 * rng.rand(n), 0.001 * rng.rand(n), rng.rand(n, 3)
    data[:, 0] += active
    data[:, 1] += voltage
    data[:, 2:5] += meters
    parts = cut(data)
    return scaled(parts, data[: len(data) - len(parts[2])])


def minutes_with_noise(minutes: np.ndarray) -> np.ndarray:
    """Minutes of the day ``(N,)`` plus uniform noise of one minute; the authors' was drawn without a seed."""
    return minutes + np.random.RandomState(OWN_SEED).rand(len(minutes))


def a_quarter(table: np.ndarray) -> np.ndarray:
    """A random quarter of the rows in random order, as the GAS authors drew one without a seed."""
    return table[np.random.RandomState(OWN_SEED).permutation(len(table))[: round(0.25 * len(table))]]


def gas(sensors: np.ndarray) -> Splits:
    """GAS, from the sensors' columns ``(N, 16)`` of the rows that are kept.

    Again and again the first column with a correlation above 0.98 to another is left out. All rows together give mean
    and standard deviation.
    """
    data = sensors[:, uncorrelated(sensors)].astype(np.float64)
    return scaled(cut(data), data, ddof=1)


def uncorrelated(table: np.ndarray) -> list[int]:
    """Columns that remain when the first with a correlation above 0.98 to another is left out until there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        close = np.corrcoef(table, rowvar=False) > CORRELATION
    kept = list(range(table.shape[1]))
    while True:
        repeated = [k for k in kept if np.count_nonzero(close[k, kept]) > 1]
        if not repeated:
            return kept
        kept.remove(repeated[0])


def hepmass(train: np.ndarray, test: np.ndarray) -> Splits:
    """HEPMASS, from the tables of ``1000_train.csv`` and ``1000_test.csv``: label first, then features.

    Rows of class 1 alone are kept, and of the test's columns as many as the training table has (it has one more).
    Columns whose lowest training value occurs more than five times are left out.
    """
    train, test = (table[table[:, 0] == 1, 1 : train.shape[1]] for table in (train, test))
    kept = [k for k in range(train.shape[1]) if not repeats_its_lowest(train[:, k])]
    train, test = train[:, kept], test[:, kept]
    return scaled((*cut_validation(train), test), train, ddof=1)


def miniboone_rows(events: np.ndarray) -> np.ndarray:
    """What the authors' ``miniboone/data.npy`` holds ``(N', 43)``, from the signal events ``(N, 50)``.

    Events with a first column below -100 are left out, then columns whose lowest value occurs more than five times.
    """
    events = events[~(events[:, 0] < -100)]
    return events[:, [k for k in range(events.shape[1]) if not repeats_its_lowest(events[:, k])]]


def miniboone(rows: np.ndarray) -> Splits:
    """MINIBOONE, from the rows and columns that :func:`miniboone_rows` keeps."""
    rows = rows.astype(np.float64)
    parts = cut(rows)
    return scaled(parts, rows[: len(rows) - len(parts[2])])


def repeats_its_lowest(column: np.ndarray) -> bool:
    """Whether the lowest value occurs more than five times: the authors' sign of a discrete column."""
    return int(np.count_nonzero(column == column.min())) > REPEATS
