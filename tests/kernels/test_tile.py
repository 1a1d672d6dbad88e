"""Tiles as other machines have them; what they compute is tested with the products of masked weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

from refnaf.kernels.cpu import tile


def test_a_vector_is_of_the_machine_that_is_compiled_for():
    assert (64 if binding.get_host_cpu_features().get("avx512f") else 32) == tile.BYTES


@pytest.mark.slow
def test_products_on_a_machine_without_avx_512(tmp_path):
    features = dict(binding.get_host_cpu_features())
    if not features.get("avx2"):
        pytest.skip("this machine has no AVX2")
    narrow = ",".join(
        ("+" if on and not name.startswith("avx512") else "-") + name for name, on in sorted(features.items())
    )
    environment = {**os.environ, "NUMBA_CPU_FEATURES": narrow, "NUMBA_CACHE_DIR": str(tmp_path)}
    here = Path(__file__).parent
    code = "from refnaf.kernels.cpu import tile; assert (tile.BYTES, tile.VECTORS) == (32, 3)"
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=here.parent.parent, check=True)
    tests = [str(here / "test_staircase.py"), str(here / "test_twins.py"), "-k", "ddsf or products"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=environment,
        cwd=here.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
