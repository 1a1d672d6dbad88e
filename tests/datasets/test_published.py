"""Published data sets: preprocessing against the recipe spelt out, formats, refusals, the prepared file, the check."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest

from refnaf.datasets import preprocessing, published
from refnaf.datasets.originals import READERS
from refnaf.datasets.raw import find
from tests.datasets import original_files as originals
from tests.refusals import refusal

WRITERS = {
    "power": originals.write_power,
    "gas": originals.write_gas,
    "hepmass": originals.write_hepmass,
    "miniboone": originals.write_miniboone,
    "mnist": originals.write_mnist,
}
MAIN_FILE = {
    "power": "household_power_consumption.txt",
    "gas": "ethylene_CO.txt",
    "hepmass": "1000_train.csv",
    "miniboone": "MiniBooNE_PID.txt",
    "mnist": "binarized_mnist_test.amat",
}


def assert_same(splits, wanted):
    assert len(splits) == len(wanted) == 3
    for got, want in zip(splits, wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(want, got.dtype))


def tenths(rows):
    test, rest = rows[-int(0.1 * len(rows)) :], rows[: -int(0.1 * len(rows))]
    return rest[: -int(0.1 * len(rest))], rest[-int(0.1 * len(rest)) :], test


def test_power_step_by_step(tmp_path):
    table = originals.write_power(tmp_path)
    table[:, 7] += np.random.RandomState(0).rand(len(table))
    rng = np.random.RandomState(42)
    rng.shuffle(table)  # of the rows themselves, as the authors' program does
    data = table[:, [0, 2, 4, 5, 6, 7]]
    voltage, active, meters = 0.01 * rng.rand(300, 1), 0.001 * rng.rand(300, 1), rng.rand(300, 3)
    data = data + np.hstack([active, voltage, meters, np.zeros((300, 1))])
    rest = data[:-30]
    wanted = [(part - rest.mean(axis=0)) / rest.std(axis=0) for part in tenths(data)]
    splits = READERS["power"](tmp_path)
    assert [len(part) for part in splits] == [243, 27, 30]
    assert all(part.dtype == np.float32 for part in splits)
    assert_same(splits, wanted)


def test_power_of_the_archive_has_its_noise_already(tmp_path):
    table = np.random.default_rng(0).normal(size=(200, 8))
    (tmp_path / "power").mkdir()
    np.save(tmp_path / "power" / "data.npy", table)
    assert_same(READERS["power"](tmp_path), preprocessing.power(table))
    assert_same(READERS["power"](tmp_path / "power"), preprocessing.power(table))  # the set's own folder
    assert_same(READERS["power"](tmp_path / "power" / "data.npy"), preprocessing.power(table))


def test_gas_leaves_out_repeated_sensors(tmp_path):
    sensors = originals.write_gas(tmp_path)
    quarter = sensors[np.random.RandomState(0).permutation(400)[:100]]
    data = np.delete(quarter, [0, 4], axis=1)
    data = (data - data.mean(axis=0)) / data.std(axis=0, ddof=1)
    splits = READERS["gas"](tmp_path)
    assert [part.shape for part in splits] == [(81, 14), (9, 14), (10, 14)]
    assert_same(splits, tenths(data))


def uncorrelated_again_and_again(table):
    columns = list(range(table.shape[1]))
    while True:
        close = (np.corrcoef(table[:, columns], rowvar=False) > 0.98).sum(axis=1)
        if not (close > 1).any():
            return columns
        columns.pop(int(np.argmax(close > 1)))


def test_correlations_are_looked_at_again_after_each_column():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2000, 1))
    table = np.hstack(
        [x + 0.1 * k * rng.normal(size=x.shape) for k in (1.8, 1.2, 0, 0.5, 1.6)] + [rng.normal(size=x.shape)]
    )
    kept = preprocessing.uncorrelated(table)
    assert kept == uncorrelated_again_and_again(table)
    assert 1 < len(kept) < 6


def test_hepmass_keeps_the_signal_and_continuous_features(tmp_path):
    train, test = originals.write_hepmass(tmp_path)
    train, test = (table[table[:, 0] == 1][:, 1:28] for table in (train, test))
    counts = [Counter(column.tolist()) for column in train.T]
    kept = [k for k, count in enumerate(counts) if count[min(count)] <= 5]
    assert sorted(set(range(27)) - set(kept)) == [3, 20]
    mean, scale = train[:, kept].mean(axis=0), train[:, kept].std(axis=0, ddof=1)
    train, test = (train[:, kept] - mean) / scale, (test[:, kept] - mean) / scale
    assert_same(READERS["hepmass"](tmp_path), (train[:-25], train[-25:], test))


def test_miniboone_keeps_signals_without_outliers(tmp_path):
    events = originals.write_miniboone(tmp_path)
    rows = np.delete(events[events[:, 0] > -100], 7, axis=1)
    assert rows.shape == (297, 49)
    rest = rows[:-29]
    wanted = [(part - rest.mean(axis=0)) / rest.std(axis=0) for part in tenths(rows)]
    assert_same(READERS["miniboone"](tmp_path), wanted)


def test_miniboone_of_the_archive(tmp_path):
    rows = np.random.default_rng(1).normal(size=(150, 43))
    np.save(tmp_path / "data.npy", rows)
    assert_same(READERS["miniboone"](tmp_path / "data.npy"), preprocessing.miniboone(rows))


def test_mnist_from_text_and_from_packed_bits(tmp_path):
    bits = originals.write_mnist(tmp_path)
    assert_same(READERS["mnist"](tmp_path), bits)
    assert_same(READERS["mnist"](tmp_path / "binarized_mnist_test.amat"), bits)
    packed = [np.packbits(part, axis=1) for part in bits]
    for names, arrays in ((("train", "valid", "test"), packed), (("train", "validation", "test"), bits)):
        np.savez(tmp_path / "bits.npz", **dict(zip(names, arrays, strict=True)))
        splits = READERS["mnist"](tmp_path / "bits.npz")
        assert_same(splits, bits)
        assert all(part.dtype == np.uint8 for part in splits)


def test_bsds300(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=(n, 63)).astype(np.float32) for n in (40, 5, 10)]
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for name, part in zip(("train", "validation", "test"), parts, strict=True):
            file[name] = part
    assert_same(READERS["bsds300"](tmp_path), parts)
    (tmp_path / "BSDS300.hdf5").write_bytes(b"not HDF5 at all")
    assert "HDF5" in refusal(READERS["bsds300"], tmp_path / "BSDS300.hdf5")
    with h5py.File(tmp_path / "BSDS300.hdf5", "w") as file:
        file["train"] = parts[0]
    refusal(READERS["bsds300"], tmp_path / "BSDS300.hdf5")


@pytest.mark.parametrize("name", WRITERS)
def test_packed_and_compressed(tmp_path, name):
    (plain := tmp_path / "plain").mkdir()
    WRITERS[name](plain)
    wanted = READERS[name](plain)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in plain.iterdir():
            archive.write(file, f"some folder/{file.name}")
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as tar:
        tar.add(plain, f"data/{name}")
    (squeezed := tmp_path / "squeezed").mkdir()
    for file in plain.iterdir():
        (squeezed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    places = [tmp_path / "all.zip", tmp_path / "data.tar.gz", squeezed, squeezed / f"{MAIN_FILE[name]}.gz"]
    for place in places:
        assert_same(READERS[name](place), wanted)


def test_pickles_are_refused_unread(tmp_path):
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas" / "ethylene_CO.pickle").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    for place in (tmp_path, tmp_path / "gas", tmp_path / "gas" / "ethylene_CO.pickle"):
        assert "give the original ethylene_CO.txt" in refusal(READERS["gas"], place)
    np.save(tmp_path / "data.npy", np.array([{}], dtype=object))
    assert "Object arrays" in refusal(READERS["power"], tmp_path / "data.npy")
    np.savez(tmp_path / "bits.npz", **{part: np.array([{}]) for part in ("train", "valid", "test")})
    refusal(READERS["mnist"], tmp_path / "bits.npz")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_there(tmp_path, name):
    assert MAIN_FILE[name].split("_")[0] in refusal(READERS[name], tmp_path, error=FileNotFoundError)
    refusal(READERS[name], tmp_path / "nowhere", error=FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("power", ":00;", ":00;oops;"),
        ("power", "2007;", "2007;7;"),
        ("gas", "20.00 ", "20.00 nan "),
        ("gas", "20.00 ", "20.00 7 "),
        ("gas", "20.00 ", ""),
        ("hepmass", "\n1.0", "\nx1.0"),
        ("miniboone", " 300 50", "300"),
        ("miniboone", " 300 50", " 360 50"),
        ("mnist", "1 0", "1 2"),
        ("mnist", "1 0", "10"),
    ],
)
def test_damaged_text_is_refused(tmp_path, name, before, after):
    WRITERS[name](tmp_path)
    path = tmp_path / MAIN_FILE[name]
    text = path.read_bytes().decode()
    assert before in text
    path.write_bytes(text.replace(before, after, 1).encode())
    assert str(path) in refusal(READERS[name], tmp_path)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "household_power_consumption.txt.gz"])
def test_damaged_packing_is_refused(tmp_path, name):
    originals.write_power(tmp_path)
    plain = tmp_path / "household_power_consumption.txt"
    path = tmp_path / "packed" / name
    path.parent.mkdir()
    if name == "data.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, plain.name)
    elif name == "data.tar.gz":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(plain, plain.name)
    else:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) // 3 + 40):
        data[place] ^= 0x5A
    path.write_bytes(data)
    assert name in refusal(READERS["power"], path)


def test_wrong_columns_and_constant_columns(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((20, 7)))
    assert "8 numbers" in refusal(READERS["power"], tmp_path / "data.npy")
    np.save(tmp_path / "data.npy", np.zeros((200, 43)))
    assert "one value" in refusal(READERS["miniboone"], tmp_path / "data.npy")


def test_find_prefers_the_first_name(tmp_path):
    (tmp_path / "data" / "power").mkdir(parents=True)
    np.save(tmp_path / "data" / "power" / "data.npy", np.zeros(3))
    found = find(tmp_path, ["household_power_consumption.txt", "power/data.npy"])
    assert found is not None
    assert found.wanted == "power/data.npy"
    (tmp_path / "household_power_consumption.txt").write_text("x")
    found = find(tmp_path, ["household_power_consumption.txt", "power/data.npy"])
    assert found is not None
    assert found.wanted == "household_power_consumption.txt"
    assert find(tmp_path / "data", ["gas/data.npy"]) is None


def test_cache_folder(tmp_path, monkeypatch):
    for name in ("REFNAF_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    usual = published.cache_folder()
    assert usual.parts[-2:] == ("refnaf", "data")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert published.cache_folder() == usual
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / "refnaf" / "data"
    monkeypatch.setenv("REFNAF_DATA", str(tmp_path / "mine"))
    assert published.cache_folder() == tmp_path / "mine"
    assert published.cache_folder(tmp_path / "given") == tmp_path / "given"


@pytest.mark.parametrize("name", WRITERS)
def test_prepare_and_load(tmp_path, name):
    WRITERS[name](tmp_path)
    path = published.prepare(name, tmp_path, tmp_path / "cache")
    assert path == tmp_path / "cache" / f"{name}.npz"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert_same(published.load(name, tmp_path / "cache"), READERS[name](tmp_path))
    before = path.read_bytes()
    (tmp_path / MAIN_FILE[name]).write_text("1 1\nrubbish\n")
    refusal(published.prepare, name, tmp_path, tmp_path / "cache")
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    assert "damaged" in refusal(published.load, name, tmp_path / "cache")


def test_load_what_is_not_there(tmp_path):
    assert "refnaf data prepare gas" in refusal(published.load, "gas", tmp_path, error=FileNotFoundError)
    assert "power" in refusal(published.load, "adult", tmp_path)


def fake(monkeypatch, nats):
    entry = published.PUBLISHED["power"]
    values = {**vars(entry), "rows": (400, 50, 600), "dim": 2, "nats": (nats, 0.0)}
    monkeypatch.setitem(published.PUBLISHED, "power", published.Published(**values))


def save_gaussian(tmp_path, spread=1.0):
    """Rows of a correlated Gaussian, prepared; returns the test nats of the one fitted to the training rows."""
    rng = np.random.default_rng(8)
    parts = [rng.normal(size=(n, 2)) @ np.array([[spread, 0.6], [0, 0.5]]) for n in (400, 50, 600)]
    np.savez(tmp_path / "power.npz", train=parts[0], validation=parts[1], test=parts[2])
    mean, covariance = parts[0].mean(axis=0), np.cov(parts[0], rowvar=False, ddof=0)
    away = parts[2] - mean
    quadratic = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    return float(np.mean(-0.5 * quadratic - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]))


def test_check_is_the_gaussian_by_hand(tmp_path, monkeypatch):
    nats = save_gaussian(tmp_path)
    mean, error = published.gaussian_nats(published.load("power", tmp_path))
    assert abs(mean - nats) < 1e-6
    assert 0.01 < error < 0.1
    fake(monkeypatch, nats + 0.02)
    assert all(finding.good for finding in published.check("power", tmp_path))
    fake(monkeypatch, nats + 0.04)
    assert [f.what for f in published.check("power", tmp_path) if not f.good] == ["Gaussian, test"]


def test_check_counts_rows_and_columns(tmp_path):
    save_gaussian(tmp_path)
    wrong = [f.what for f in published.check("power", tmp_path) if not f.good]
    assert wrong == ["train rows", "validation rows", "test rows", "columns", "Gaussian, test"]


def test_check_of_bits(tmp_path):
    originals.write_mnist(tmp_path)
    published.prepare("mnist", tmp_path, tmp_path)
    by_name = {finding.what: finding.good for finding in published.check("mnist", tmp_path)}
    assert by_name == {
        "train rows": False,
        "validation rows": False,
        "test rows": False,
        "columns": True,
        "values": True,
    }


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_registry_is_consistent(name):
    entry = published.PUBLISHED[name]
    if name in ("power", "gas", "miniboone"):
        total = sum(entry.rows)
        assert entry.rows == tuple(len(part) for part in preprocessing.cut(np.zeros((total, 0))))
    if name == "hepmass":
        assert [len(p) for p in preprocessing.cut_validation(np.zeros((sum(entry.rows[:2]), 0)))] == list(
            entry.rows[:2]
        )
    assert all(url.startswith("https://") for url in entry.urls)
    assert name in READERS
