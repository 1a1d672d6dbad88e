"""Checkpoints: everything needed to go on to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from refnaf.persistence import FileFormatError, read_archive, write_archive


def save_checkpoint(
    path: str | Path, tensors: dict[str, np.ndarray], state: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write a checkpoint atomically. ``run`` identifies the run: configuration, data, options."""
    write_archive(path, tensors, {"kind": "checkpoint", "state": state, "run": run})


def load_checkpoint(path: str | Path, run: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint of the same run.

    Raises FileFormatError where the file is damaged or no checkpoint, and ValueError where it belongs to another run.
    """
    tensors, header = read_archive(path)
    if header.get("kind") != "checkpoint":
        raise FileFormatError(f"{path} holds a {header.get('kind')}, not a checkpoint")
    different = sorted(key for key in {*run, *header["run"]} if run.get(key) != header["run"].get(key))
    if different:
        raise ValueError(
            f"{path} is the checkpoint of another run ({', '.join(different)} differ); "
            "repeat the options it was started with, or start anew without resuming"
        )
    return tensors, header["state"]
