"""Make the arrays of this folder.

    python data/make_data.py                                            the three toy sets
    python data/make_data.py --power household_power_consumption.txt    power.npy as well, from UCI's file
    python data/make_data.py --out FOLDER                               elsewhere

Random numbers come from numpy.random.RandomState, whose streams are frozen, and are stored as float32, so that a
remade file has the same bytes on any machine.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOY_ROWS = 10_000
POWER_ROWS = 20_000

# Integer codes of the household power file: name, and codes a unit (watts in a kW, hundredths of a volt, ...).
POWER_CODES = (
    ("active_power_W", 1000.0),
    ("reactive_power_var", 1000.0),
    ("voltage_cV", 100.0),
    ("intensity_dA", 10.0),
)


def grid(n: int = TOY_ROWS, seed: int = 1, side: int = 5, spacing: float = 2.0, sd: float = 0.2) -> Array:
    """Draw (n, 2) rows of a side x side grid of round Gaussians, all of the same weight, centred on the origin."""
    rng = np.random.RandomState(seed)
    centre = (rng.randint(side, size=(n, 2)) - (side - 1) / 2) * spacing
    return centre + sd * rng.standard_normal((n, 2))


def eight_gaussians(n: int = TOY_ROWS, seed: int = 2, radius: float = 4.0, sd: float = 0.5) -> Array:
    """Draw (n, 2) rows of eight round Gaussians, all of the same weight, centred on a circle."""
    rng = np.random.RandomState(seed)
    h = np.sqrt(0.5)
    directions = np.array([[1, 0], [h, h], [0, 1], [-h, h], [-1, 0], [-h, -h], [0, -1], [h, -h]])
    return radius * directions[rng.randint(8, size=n)] + sd * rng.standard_normal((n, 2))


def noisy_ring(n: int = TOY_ROWS, seed: int = 3, radius: float = 2.0) -> tuple[Array, Array]:
    """Draw x (n, 2), points of a circle with round Gaussian noise, and c (n, 1), the noise's standard deviation."""
    rng = np.random.RandomState(seed)
    c = rng.uniform(0.1, 1.0, size=(n, 1))
    angle = rng.uniform(0.0, 2.0 * np.pi, size=n)
    x = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) + c * rng.standard_normal((n, 2))
    return x, c


def read_power(path: str | Path) -> dict[str, NDArray[np.int64]]:
    """Read UCI's text file, or an .npz of the same integer codes; rows with a missing value are left out.

    Keys: those of POWER_CODES (N,), sub_metering (N, 3) in watt-hours, minute_of_day (N,).
    """
    if Path(path).suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.int64) for name in archive.files}
    rows = []
    with open(path, encoding="ascii") as file:
        next(file)  # the header
        for line in file:
            _, time, *values = line.rstrip("\r\n").split(";")
            if "?" not in values and "" not in values:
                hours, minutes, _ = time.split(":")
                rows.append((60 * int(hours) + int(minutes), *map(float, values)))
    table = np.array(rows)
    codes = {name: np.rint(table[:, 1 + i] * scale) for i, (name, scale) in enumerate(POWER_CODES)}
    codes["sub_metering"] = np.rint(table[:, 5:8])
    codes["minute_of_day"] = table[:, 0]
    return {name: code.astype(np.int64) for name, code in codes.items()}


def power_train(codes: dict[str, NDArray[np.int64]]) -> Array:
    """Rebuild the training rows (N, 6) of the MAF paper's POWER split, in raw units, before standardisation.

    The paper's steps: noise on the minute, shuffle, drop reactive power and intensity, uniform noise of one resolution
    step on the other columns, last tenth to test, last tenth of the rest to validation.
    """
    n = len(codes["minute_of_day"])
    minute = codes["minute_of_day"] + np.random.RandomState(0).rand(n)  # the paper's was not seeded
    data = np.c_[codes["active_power_W"] / 1000, codes["voltage_cV"] / 100, codes["sub_metering"], minute]
    rng = np.random.RandomState(42)
    order = np.arange(n)
    rng.shuffle(order)  # the draws that shuffling the rows themselves would take
    data = data[order]
    voltage, active, sub = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    data[:, :5] += np.hstack([active, voltage, sub])
    data = data[: n - int(0.1 * n)]
    return data[: len(data) - int(0.1 * len(data))]


def power(path: str | Path, n: int = POWER_ROWS, seed: int = 4) -> Array:
    """Draw (n, 6) rows without replacement from the POWER training rows."""
    train = power_train(read_power(path))
    return train[np.random.RandomState(seed).permutation(len(train))[:n]]


def write(folder: str | Path, power_path: str | Path | None = None) -> None:
    """Write the toy sets, and power.npy where its source is given, into a folder."""
    folder = Path(folder)
    np.save(folder / "grid.npy", grid().astype(np.float32))
    np.save(folder / "eight_gaussians.npy", eight_gaussians().astype(np.float32))
    x, c = noisy_ring()
    np.savez(folder / "context_example.npz", x=x.astype(np.float32), c=c.astype(np.float32))
    if power_path is not None:
        np.save(folder / "power.npy", power(power_path).astype(np.float32))


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Make the arrays of this folder.")
    parser.add_argument("--power", help="UCI's household_power_consumption.txt, or an .npz of its integer codes")
    parser.add_argument("--out", default=Path(__file__).parent, help="folder to write to (default: this script's)")
    arguments = parser.parse_args()
    write(arguments.out, arguments.power)


if __name__ == "__main__":
    main()
