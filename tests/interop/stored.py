"""Stored numbers of other libraries, and the comparison of a flow with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "vectors"


def names(library: str) -> list[str]:
    """The stored cases of a library."""
    return sorted(path.stem.removeprefix(f"{library}_") for path in FOLDER.glob(f"{library}_*.npz"))


def load(library: str, name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{library}_{name}.npz") as file:
        return dict(file)


def save(library: str, name: str, numbers: dict[str, np.ndarray]) -> None:
    np.savez_compressed(FOLDER / f"{library}_{name}.npz", **numbers)


def state(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state among a case's numbers."""
    return {name[6:]: array for name, array in numbers.items() if name.startswith("state/")}


def config(numbers: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the importer is told."""
    told: dict[str, Any] = json.loads(str(numbers["config"]))
    return told


def agree(got: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Within ``tolerance (1 + |expected|)``."""
    assert np.shape(got) == np.shape(expected)
    assert np.all(np.abs(got - expected) <= tolerance * (1 + np.abs(expected))), np.abs(got - expected).max()
