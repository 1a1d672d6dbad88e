"""The figures' commands run in their smallest form, and what they measure by is right."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest

import refnaf

pytest.importorskip("matplotlib")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MOST_BYTES = 150_000


@pytest.fixture
def figures(monkeypatch):
    """benchmarks/figures.py and what stands beside it, by module name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def numbers_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("name", "rows"), [("planar", 3), ("grid", 2), ("energies", 1), ("sine", 2)])
def test_smallest_form(figures, tmp_path, capsys, name, rows):
    from PIL import Image

    figures("figures").main([name, "--quick", "--out", str(tmp_path / "new")])
    path = tmp_path / "new" / f"{name}.png"
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 200
        assert len(image.getcolors() or []) > 20  # not a blank page
    assert path.stat().st_size < MOST_BYTES
    header, rule, *table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == rows
    columns = numbers_of(header)
    assert len(numbers_of(rule)) == len(columns)
    for line in table:
        row = dict(zip(columns, numbers_of(line), strict=True))
        (kl, *_) = [cell for column, cell in row.items() if column.startswith("KL")]
        assert 0 < float(kl.split(" ")[0]) < 10  # ten steps are no fit, and a divergence is never negative


def test_the_smallest_form_repeats(figures, tmp_path, capsys):
    for folder in ("a", "b"):
        figures("figures").main(["sine", "--quick", "--out", str(tmp_path / folder)])
    one, two = ((tmp_path / folder / "sine.png").read_bytes() for folder in ("a", "b"))
    assert one == two


def test_every_figure_has_a_command(figures, capsys):
    with pytest.raises(SystemExit) as stop:
        figures("figures").main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", said) for name in ("planar", "grid", "energies", "sine", "all"))


@pytest.mark.parametrize("numbers", [500, 4_000, 37_280])
def test_flows_of_one_size(figures, numbers):
    width = figures("figures_grid").equal_width(numbers)
    sizes = [refnaf.build("maf", 2, hidden=(h, h)).n_params for h in (width - 1, width, width + 1)]
    assert min(sizes, key=lambda size: abs(size - numbers)) == sizes[1]


def gaussian(dim, scale, location=0.0):
    """A flow that is N(location, scale^2) in every dimension."""
    flow = refnaf.build("gaussian", dim, dtype="float64")
    flow.layers[0].buffers["mean"][:], flow.layers[0].buffers["scale"][:] = location, scale
    return flow


def test_divergence_of_the_grid(figures):
    """Of a Gaussian q of variance s^2: -H(p) + log(2 pi s^2) + E|x|^2 / (2 s^2), where E|x|^2 = 2 (8 + 0.2^2)."""
    kl, mass = figures("figures_grid").by_quadrature(gaussian(2, 2.0))
    entropy = 2 * (math.log(5) + 0.5 * math.log(2 * math.pi * math.e * 0.04))  # five sds apart on either side of a gap
    expected = math.log(2 * math.pi * 4) + 2 * (8 + 0.04) / 8 - entropy
    assert kl == pytest.approx(expected, abs=1e-4)
    assert mass == pytest.approx(math.erf(6 / (2 * math.sqrt(2))) ** 2, abs=1e-9)


def test_divergences_of_the_frequency(figures):
    """Against sums over a fine grid of frequencies, for a q that is not normal there."""
    module, flow = figures("figures_sine"), gaussian(1, 1.5, 0.3)
    f = 2 * (np.arange(200_000) + 0.5) / 200_000
    p, q = np.exp(module.SINE_WAVE.log_density(f[:, None])), module.density_of(flow, f)
    reverse, forward, mass = module.divergences(flow)
    assert mass == pytest.approx(1, abs=1e-12)
    assert reverse == pytest.approx(np.mean(q * np.log(q / p)) * 2, abs=1e-6)
    assert forward == pytest.approx(np.mean(p * np.log(p / q)) * 2, abs=1e-3)  # log q goes to -inf at both ends
