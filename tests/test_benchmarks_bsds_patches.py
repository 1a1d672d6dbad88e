"""The patches of images: where they come from, and what is done to them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import refnaf
from refnaf.tables import read_table

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bsds(monkeypatch):
    """benchmarks/bsds_patches.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bsds_patches")


def test_patches_are_upright_and_from_everywhere(bsds):
    # an upright image grows by 1 downwards and by 20 to the right; the second is stored on its side
    image = (np.arange(10)[:, None] + 20 * np.arange(10)).astype(np.uint8)
    images = bsds.Images(np.stack([image, image.T]), np.array([False, True]))
    patches = np.concatenate(list(images.patches(400, np.random.default_rng(0)))).astype(int)
    assert patches.shape == (400, 8, 8)
    assert (np.diff(patches, axis=1) == 1).all() and (np.diff(patches, axis=2) == 20).all()
    assert set(patches[:, 0, 0]) == {down + 20 * right for down in range(3) for right in range(3)}


def test_preprocessing(bsds):
    patches = np.random.default_rng(1).integers(0, 256, size=(500, 8, 8), dtype=np.uint8)
    rows = bsds.preprocess(patches, np.random.default_rng(2))
    assert rows.shape == (500, 63) and rows.dtype == np.float32
    whole = np.column_stack([rows, -rows.sum(axis=1, dtype=np.float64)])
    noise = 256 * whole - patches.reshape(500, 64)
    noise -= noise.mean(axis=1, keepdims=True)
    assert np.abs(noise).max() < 1
    assert noise.std() == pytest.approx(np.sqrt(63 / 64 / 12), rel=0.02)


def test_the_script_writes_tables_that_can_be_read(bsds, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    parts = {"train": rng.integers(0, 256, (10, 12, 15), np.uint8), "test": rng.integers(0, 256, (4, 12, 15), np.uint8)}
    sides = {f"{name}_transposed": rng.random(len(levels)) < 0.5 for name, levels in parts.items()}
    np.savez(tmp_path / "images.npz", **parts, **sides)
    arguments = [str(tmp_path / "images.npz"), "--out", str(tmp_path / "out"), "--rows", "400"]
    monkeypatch.setattr(sys, "argv", ["bsds_patches.py", *arguments])
    bsds.main()
    train, validation, test = (read_table(tmp_path / "out" / f"{name}.npy").x for name in bsds.Data._fields)
    assert [x.shape for x in (train, validation, test)] == [(400, 63), (20, 63), (100, 63)]
    gaussian = refnaf.fit(train, "gaussian", validation=None, dtype="float64")
    out = capsys.readouterr().out
    assert f"{np.mean(gaussian.log_prob(test)):.2f} ±" in out and "96.67" in out

    np.savez(tmp_path / "images.npz", train=parts["train"] / 256, test=parts["test"], **sides)
    with pytest.raises(SystemExit, match="train is float64"):
        bsds.main()
