"""Small files of the formats in which the published data come."""

from __future__ import annotations

import numpy as np


def write_power(folder, rows=300, missing=7, seed=0):
    """household_power_consumption.txt; returns the eight columns without noise on the minutes."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(rows) * 37 % 1440
    table = np.column_stack(
        [
            rng.integers(100, 9000, rows) / 1000,
            rng.integers(0, 900, rows) / 1000,
            rng.integers(22000, 25000, rows) / 100,
            rng.integers(2, 400, rows) / 10,
            *rng.integers(0, 40, (3, rows)),
            minutes,
        ]
    )
    lines = ["Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;_2;_3"]
    for k, row in enumerate(table):
        clock = f"{k % 28 + 1}/{k % 12 + 1}/2007;{minutes[k] // 60:02d}:{minutes[k] % 60:02d}:00"
        if k % missing == 3:
            lines.append(f"{clock};?;?;?;?;?;?;")
        lines.append(";".join([clock, *(f"{value:.3f}" for value in row[:7])]))
    (folder / "household_power_consumption.txt").write_text("\r\n".join(lines) + "\r\n", "ascii")
    return table


def write_gas(folder, rows=400, seed=1):
    """ethylene_CO.txt; sensors 1 and 2 say nearly the same, as do 5 and 9. Returns the sensors."""
    rng = np.random.default_rng(seed)
    sensors = rng.normal(size=(rows, 16))
    sensors[:, 1] = 2 * sensors[:, 0] + 0.01 * sensors[:, 1]
    sensors[:, 8] = sensors[:, 4] + 0.01 * sensors[:, 8]
    sensors[:, 15] = -sensors[:, 14]  # a correlation of -1, which the rule does not see
    lines = ["Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)"]
    lines += [" ".join([f"{k / 100:.2f}", "0.00", "20.00", *(f"{x:.6f}" for x in s)]) for k, s in enumerate(sensors)]
    (folder / "ethylene_CO.txt").write_text("\n".join(lines) + "\n", "ascii")
    return np.round(sensors, 6)


def write_hepmass(folder, rows=(500, 200), seed=2):
    """1000_train.csv and 1000_test.csv, the latter with a column more; features 3 and 20 are discrete. Returns both."""
    rng = np.random.default_rng(seed)
    tables = []
    for part, n in zip(("train", "test"), rows, strict=True):
        table = np.round(np.column_stack([np.arange(n) % 2, rng.normal(size=(n, 27))]), 9)
        table[:, [4, 21]] = rng.integers(0, 3, (n, 2))
        if part == "test":
            table = np.column_stack([table, np.full(n, 1000.0)])
        names = ["# label", *(f"f{k}" for k in range(27)), "mass"][: table.shape[1]]
        lines = [",".join(names), *(",".join(f"{x:.9e}" for x in row) for row in table)]
        (folder / f"1000_{part}.csv").write_text("\n".join(lines) + "\n", "ascii")
        tables.append(table)
    return tables


def write_miniboone(folder, signals=300, backgrounds=50, seed=3):
    """MiniBooNE_PID.txt; three signals are outliers, column 7 is discrete. Returns the signals."""
    rng = np.random.default_rng(seed)
    events = np.round(rng.normal(size=(signals + backgrounds, 50)), 6)
    events[: signals : signals // 3] = -999
    events[:, 7] = rng.integers(0, 2, signals + backgrounds)
    lines = [f" {signals} {backgrounds}", *("  " + "  ".join(f"{x: .6e}" for x in event) for event in events)]
    (folder / "MiniBooNE_PID.txt").write_text("\n".join(lines) + "\n", "ascii")
    return events[:signals]


def write_mnist(folder, rows=(30, 10, 12), seed=4):
    """The three binarized_mnist_*.amat; returns their bits."""
    rng = np.random.default_rng(seed)
    bits = [rng.integers(0, 2, (n, 784), dtype=np.uint8) for n in rows]
    for part, table in zip(("train", "valid", "test"), bits, strict=True):
        np.savetxt(folder / f"binarized_mnist_{part}.amat", table, fmt="%d")
    return bits
