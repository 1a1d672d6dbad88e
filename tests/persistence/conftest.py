"""The example archive, written."""

import pytest

from refnaf.persistence import write_archive
from tests.persistence.archives import HEADER, example_tensors


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "model.safetensors"
    write_archive(path, example_tensors(), HEADER)
    return path
