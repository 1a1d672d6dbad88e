"""Every kernel of the backend "cuda" compiles for the capabilities it is meant for, and float32 ones stay float32."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernels.compile_ptx import CAPABILITIES, makers

pytest.importorskip("numba_cuda")
ROOT = Path(__file__).resolve().parent.parent.parent


def _compiled(units, components):
    """What the processes of both dtypes found, side by side."""
    with ThreadPoolExecutor(2) as pool:
        jobs = {dtype: pool.submit(_process, units, components, dtype) for dtype in ("float32", "float64")}
        return {dtype: job.result() for dtype, job in jobs.items()}


def _process(units, components, dtype):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-m", "tests.kernels.compile_ptx", str(units), str(components), dtype]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _check(found):
    for dtype, said in found.items():
        assert sorted(map(list, makers(1, 1))) == said["found"], "a kernel is missing in compile_ptx.makers"
        rows = said["rows"]
        assert {target for _, _, target, _ in rows} == {f"sm_{major}{minor}" for major, minor in CAPABILITIES}
        assert all(target == f"sm_{capability}" for _, capability, target, _ in rows)
        careless = [wide for name, _, _, wide in rows if name.startswith("careless")]
        assert careless and all(careless), "float64 instructions are not counted"
        own = [(name, wide) for name, _, _, wide in rows if not name.startswith("careless")]
        assert all((wide == 0) == (dtype == "float32") for _, wide in own), own


def test_small_kernels():
    _check(_compiled(2, 2))


@pytest.mark.slow
def test_the_default_sizes():
    _check(_compiled(16, 10))
