"""The arrays of data/: what they are, and that data/make_data.py makes them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
make = runpy.run_path(str(DATA / "make_data.py"))

HEADER = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;2;3\n"


@pytest.mark.parametrize("name", ["grid.npy", "eight_gaussians.npy", "context_example.npz"])
def test_toy_sets_are_remade_byte_for_byte(tmp_path, name):
    make["write"](tmp_path)
    assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "shape"), [("grid.npy", (10_000, 2)), ("eight_gaussians.npy", (10_000, 2)), ("power.npy", (20_000, 6))]
)
def test_shapes(name, shape):
    x = np.load(DATA / name, allow_pickle=False)
    assert x.shape == shape
    assert x.dtype == np.float32
    assert np.isfinite(x).all()


def test_context_example():
    with np.load(DATA / "context_example.npz", allow_pickle=False) as archive:
        x, c = archive["x"].astype(float), archive["c"].astype(float)
    assert x.shape == (10_000, 2)
    assert c.shape == (10_000, 1)
    # E|x|^2 = radius^2 + 2 c^2
    second_moment = (x**2).sum(1) - 2 * c[:, 0] ** 2
    assert abs(second_moment.mean() - 4) < 5 * second_moment.std() / 100


def test_grid_has_25_centres_of_equal_weight():
    x = np.load(DATA / "grid.npy").astype(float)
    centre = 2 * np.rint(x / 2)
    _, count = np.unique(centre, axis=0, return_counts=True)
    assert len(count) == 25
    assert ((count - 400) ** 2 / 400).sum() < 60  # chi-squared, 24 degrees of freedom
    np.testing.assert_allclose((x - centre).std(0), 0.2, rtol=0.03)


def test_power_is_in_raw_units():
    x = np.load(DATA / "power.npy").astype(float)
    low = [0.07, 220, 0, 0, 0, 0]
    high = [12, 256, 90, 82, 33, 1440]
    assert (x > low).all()
    assert (x < high).all()
    assert len(np.unique(x, axis=0)) == len(x)


def test_power_is_read_from_the_original_format(tmp_path):
    lines = [f"16/12/2006;{i // 60:02}:{i % 60:02}:00;{i + 4000}" for i in range(100)]
    rows = [f"{line[:-4]}{int(line[-4:]) / 1000:.3f};0.418;234.840;18.400;0.000;1.000;17.000" for line in lines]
    rows.insert(7, "28/4/2007;00:21:00;?;?;?;?;?;?;")
    path = tmp_path / "household_power_consumption.txt"
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="ascii")
    codes = make["read_power"](path)
    np.testing.assert_array_equal(codes["active_power_W"], np.arange(4000, 4100))
    np.testing.assert_array_equal(codes["voltage_cV"], np.full(100, 23484))
    np.testing.assert_array_equal(codes["sub_metering"], np.tile([0, 1, 17], (100, 1)))
    np.testing.assert_array_equal(codes["minute_of_day"], np.arange(100))

    np.savez(tmp_path / "codes.npz", **codes)
    make["write"](tmp_path, path)
    x = np.load(tmp_path / "power.npy").astype(float)
    assert x.shape == (81, 6)  # 100 rows, less a tenth, less a tenth of the rest
    np.testing.assert_array_equal(np.floor(1000 * x[:, 0] + 1e-3) - 4000, np.floor(x[:, 5]))
    first = (tmp_path / "power.npy").read_bytes()
    make["write"](tmp_path, tmp_path / "codes.npz")
    assert (tmp_path / "power.npy").read_bytes() == first


def test_power_follows_the_published_order(tmp_path):
    """Shuffling an index takes the draws that shuffling the rows takes, so the noise lands on the same rows."""
    rows = np.arange(60.0).reshape(20, 3)
    index = np.arange(20)
    whole, indexed = np.random.RandomState(42), np.random.RandomState(42)
    whole.shuffle(rows)
    indexed.shuffle(index)
    np.testing.assert_array_equal(rows[:, 0], 3 * index)
    assert whole.rand() == indexed.rand()
