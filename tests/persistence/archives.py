"""An example archive, and what a refusal must look like."""

import numpy as np
import pytest

from refnaf.persistence import FileFormatError, read_archive

HEADER = {
    "kind": "flow",
    "model": "maf-ddsf",
    "config": {"dim": 3, "hidden": [8, 8], "gate": True, "note": None},
    "history": [{"epoch": 1, "train": -1.25, "validation": None}],
    "columns": ["temperature / °C", 'a "quoted" name', "日本"],
}
OWN_KEYS = {"format", "sha256", "header_sha256"}


def example_tensors():
    rng = np.random.default_rng(0)
    return {
        "weight": rng.normal(size=(3, 4)).astype(np.float32),
        "bias": rng.normal(size=5),
        "order": np.array([2, 0, 1]),
        "mask": np.array([[True, False], [False, True]]),
        "step": np.array(7, dtype=np.int32),
        "none": np.zeros((0, 3), dtype=np.float32),
    }


def same(first, second):
    return list(first) == list(second) and all(
        first[k].dtype == second[k].dtype and first[k].shape == second[k].shape
        and first[k].tobytes() == second[k].tobytes()
        for k in first
    )  # fmt: skip


def refused(path, *words):
    """The error's line, after checking that it is one line that names the file."""
    with pytest.raises(FileFormatError) as caught:
        read_archive(path)
    message = str(caught.value)
    assert type(caught.value) is FileFormatError
    assert "\n" not in message
    assert message.startswith(str(path))
    for word in words:
        assert word in message
    return message
