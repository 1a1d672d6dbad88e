"""The comparison on small tables: its folds, its kernel density estimate, its log."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def uci(monkeypatch):
    """benchmarks/uci_small.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("uci_small")


def test_every_row_is_tested_once(uci):
    parts = [uci.split(53, fold, seed=1) for fold in range(uci.FOLDS)]
    np.testing.assert_array_equal(np.sort(np.concatenate([test for *_, test in parts])), np.arange(53))
    for fold in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate(fold)), np.arange(53))
        assert len(fold[1]) in (8, 9)


def test_kernels_are_a_density_in_the_units_of_the_rows(uci):
    x = np.random.default_rng(0).normal([5, -1], [3, 0.2], (40, 2))
    kernels = uci.Kernels.fit(x, 0.3)
    first, second = np.linspace(-15, 25, 301), np.linspace(-2.4, 0.4, 301)
    points = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    mass = np.exp(kernels.log_prob(points)).sum() * np.diff(first)[0] * np.diff(second)[0]
    assert mass == pytest.approx(1, abs=1e-4)


def test_a_later_call_goes_on(uci, tmp_path, monkeypatch, capsys):
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "tables.npz", few=x, label=x[:, 0] > 0)
    command = ["uci_small.py", "--data", str(tmp_path / "tables.npz"), "--log", str(tmp_path / "log"), "--threads", "1"]

    def call(*options):
        monkeypatch.setattr(sys, "argv", [*command, *options])
        uci.main()
        return capsys.readouterr()

    first = call("--models", "gaussian", "--folds", "2")
    assert "few: 60 rows" in first.out and "label" not in first.out
    assert first.err.count("gaussian") == 2
    whole = (tmp_path / "log").read_text()
    (tmp_path / "log").write_text(whole + '{"table": "fe')
    second = call("--models", "gaussian", "kernels")
    assert second.err.count("gaussian") == 3 and second.err.count("kernels") == uci.FOLDS
    assert (tmp_path / "log").read_text().startswith(whole)
    third = call("--models", "gaussian", "kernels")
    assert third.err == "" and third.out == second.out
    (tmp_path / "notes").write_text("of another kind")
    with pytest.raises(SystemExit, match="log of fits"):
        call("--log", str(tmp_path / "notes"))
    assert (tmp_path / "notes").read_text() == "of another kind"
    assert call("--models", "gaussian", "--max-rows", "50", "--folds", "1").err.count("gaussian") == 1


def test_failed_fits_come_last(uci):
    def fold(model, nats):
        return uci.Fold("few", "", 0, model, 0, 1.0, "", nats)

    lines = uci.markdown([fold("maf", [np.nan, 1.0]), fold("tan", [1.0, 2.0]), fold("made", [0.0, 2.0])]).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["tan", "made", "maf"]
    assert "| 1.000 ± 1.000 | -0.500 ± 0.500 |" in lines[3]
