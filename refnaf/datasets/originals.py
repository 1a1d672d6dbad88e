"""The published data sets as their files have them, read and preprocessed: a folder, archive or file to three arrays.

Each ``read_*`` takes the folder, archive or file, and returns training, validation and test rows ``(N, D)``, float32 or
uint8 for bits. They raise ValueError for files that are not what they should be, FileNotFoundError for absent ones.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from refnaf.datasets import preprocessing
from refnaf.datasets.preprocessing import Splits
from refnaf.datasets.raw import Found, checked, find, read_npy, read_text

PIXELS = 784
PARTS = ("train", "validation", "test")

_POWER_TEXT = "household_power_consumption.txt"
_GAS_TEXT, _GAS_PICKLES = "ethylene_CO.txt", ("gas/ethylene_CO.pickle", "ethylene_CO.pickle")
_MINIBOONE_TEXT, _MINIBOONE_SIGNALS = "MiniBooNE_PID.txt", 50
_BSDS = ("BSDS300/BSDS300.hdf5", "BSDS300.hdf5")
_AMAT = "binarized_mnist_{}.amat"

#: From / and : in dates and times to the separator of the columns.
_SEPARATE = str.maketrans("/:", ";;")


def read_power(where: Path) -> Splits:
    """POWER, from ``household_power_consumption.txt`` or the authors' ``power/data.npy``."""
    found = _wanted(where, [_POWER_TEXT, "power/data.npy"])
    if found.wanted != _POWER_TEXT:
        return preprocessing.power(read_npy(found, 8))
    # day, month, year, hour, minute, second, then the seven measurements
    table = read_text(found, 13, delimiter=";", skip=1, clean=_complete)
    minutes = preprocessing.minutes_with_noise(60 * table[:, 3] + table[:, 4])
    return preprocessing.power(np.column_stack([table[:, 6:], minutes]))


def _complete(line: str) -> str | None:
    """A line of POWER's text with all its columns separated by semicolons; None where measurements are missing."""
    return None if "?" in line or not line.strip() else line.translate(_SEPARATE)


def read_gas(where: Path) -> Splits:
    """GAS, from ``ethylene_CO.txt``: time, two concentrations, 16 sensors. A random quarter of its rows is kept."""
    found = _wanted(where, [_GAS_TEXT, *_GAS_PICKLES])
    if found.wanted in _GAS_PICKLES:
        raise ValueError(
            f"{found.label}: this is a pickle, which can run any program and is never read; "
            "give the original ethylene_CO.txt instead"
        )
    table = read_text(found, 19, skip=1)
    return preprocessing.gas(preprocessing.a_quarter(table[:, 3:]))


def read_hepmass(where: Path) -> Splits:
    """HEPMASS, from ``1000_train.csv`` and ``1000_test.csv`` (label, 27 features; the test has a column more)."""
    train, test = (
        read_text(_wanted(_folder_of(where), [f"hepmass/{name}", name]), (28, 29), delimiter=",", skip=1)
        for name in ("1000_train.csv", "1000_test.csv")
    )
    if test.shape[1] < train.shape[1]:
        raise ValueError(
            f"{where}: expected as many columns in 1000_test.csv as in 1000_train.csv, or one more, got "
            f"{test.shape[1]} and {train.shape[1]}; get the original files"
        )
    return preprocessing.hepmass(train, test)


def read_miniboone(where: Path) -> Splits:
    """MINIBOONE, from ``MiniBooNE_PID.txt``, whose first line counts signal and background events, or from the authors'
    ``miniboone/data.npy``."""
    found = _wanted(where, [_MINIBOONE_TEXT, "miniboone/data.npy"])
    if found.wanted != _MINIBOONE_TEXT:
        return preprocessing.miniboone(read_npy(found, 43))
    with found.open() as file:
        counts = file.readline().split()
    if len(counts) != 2 or not all(count.isdigit() for count in counts):
        raise ValueError(
            f"{found.label}: expected the numbers of signal and background events in the first line, got "
            f"{b' '.join(counts)[:60].decode('latin-1')!r}; get the original file"
        )
    signals = int(counts[0])
    events = read_text(found, _MINIBOONE_SIGNALS, skip=1, rows=signals)
    if len(events) < signals:
        raise ValueError(f"{found.label}: expected {signals:,} signal events, got {len(events):,}; get it again")
    return preprocessing.miniboone(preprocessing.miniboone_rows(events))


def read_bsds300(where: Path) -> Splits:
    """BSDS300, from the authors' ``BSDS300.hdf5``, whose patches are preprocessed already.

    Raises ImportError where h5py is not installed.
    """
    found = _wanted(where, _BSDS)
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{found.label}: HDF5 files need h5py; pip install 'refnaf[hdf5]'") from None
    with found.open() as packed, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(packed, file)  # HDF5 jumps to and fro in its file
        try:
            with h5py.File(file, "r") as archive:
                train, validation, test = (np.asarray(archive[part], dtype=np.float32) for part in PARTS)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{found.label}: expected an HDF5 file of train, validation and test, got something else "
                f"({' '.join(str(error).split())[:80]}); get the original file"
            ) from None
    dim = train.shape[1] if train.ndim == 2 else 63
    return (
        checked(train, [dim], found.label),
        checked(validation, [dim], found.label),
        checked(test, [dim], found.label),
    )


def read_mnist(where: Path) -> Splits:
    """Binarised MNIST as uint8 bits ``(N, 784)``, from the three ``binarized_mnist_*.amat`` or a .npz of three arrays.

    The arrays of a .npz are ``train``, ``valid`` or ``validation``, and ``test``: uint8, ``(N, 784)`` of 0 and 1, or
    ``(N, 98)`` with eight pixels in a byte, as ``numpy.packbits(bits, axis=1)`` packs them.
    """
    if where.suffix.lower() == ".npz":
        return _mnist_npz(where)
    texts = (_wanted(_folder_of(where), [_AMAT.format(part)]) for part in ("train", "valid", "test"))
    train, validation, test = (_bits(read_text(found, PIXELS, dtype=np.uint8), found.label) for found in texts)
    return train, validation, test


def _mnist_npz(where: Path) -> Splits:
    if not where.exists():
        raise FileNotFoundError(f"{where}: no such file; check the name and the current folder")
    try:
        with open(where, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = ["train", "valid" if "valid" in archive else "validation", "test"]
            arrays = [archive[name] for name in names]
    except Exception as error:  # a damaged archive raises what zipfile, zlib or numpy raise
        raise ValueError(
            f"{where}: expected a .npz of train, valid and test, got something else "
            f"({' '.join(str(error).split())[:80]}); save it with numpy.savez"
        ) from None
    for array in arrays:
        checked(array, [PIXELS, PIXELS // 8], str(where))
        if array.shape[1] < PIXELS and array.dtype != np.uint8:
            raise ValueError(f"{where}: expected packed bits as uint8, got {array.dtype}; pack with numpy.packbits")
    train, validation, test = (
        _bits(np.unpackbits(a, axis=1) if a.shape[1] < PIXELS else a, str(where)) for a in arrays
    )
    return train, validation, test


def _bits(array: np.ndarray, label: str) -> np.ndarray:
    if not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{label}: expected pixels of 0 and 1, got others; give the binarised images")
    return array.astype(np.uint8)


def _folder_of(where: Path) -> Path:
    """The folder of a file, if the file is one of several that belong together; the folder or archive itself else."""
    return where.parent if where.is_file() and where.name.removesuffix(".gz").endswith((".csv", ".amat")) else where


def _wanted(where: Path, names: Sequence[str]) -> Found:
    """The first of the files that is there. Raises FileNotFoundError where none is."""
    found = find(where, names)
    if found is None:
        shown = [name for name in names if not name.endswith(".pickle")]
        raise FileNotFoundError(
            f"{where}: expected {' or '.join(shown)} there, got neither; give the folder, archive or file that holds it"
            if len(shown) > 1
            else f"{where}: expected {shown[0]} there, got none; give the folder, archive or file that holds it"
        )
    return found


READERS: dict[str, Callable[[Path], Splits]] = {
    "power": read_power,
    "gas": read_gas,
    "hepmass": read_hepmass,
    "miniboone": read_miniboone,
    "bsds300": read_bsds300,
    "mnist": read_mnist,
}
