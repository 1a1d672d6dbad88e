"""Every kernel of the backend "cuda" compiles for the capabilities it is meant for, and float32 ones stay float32."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda")

from tests.kernels.compile_ptx import CAPABILITIES, makers

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted({module for module, _ in makers(1, 1)})


def _process(units, components, dtype, modules, capabilities):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    arguments = [str(units), str(components), dtype, ",".join(modules), ",".join(capabilities)]
    command = [sys.executable, "-m", "tests.kernels.compile_ptx", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _check(units, components, *jobs):
    """Compile for each job's dtype, modules and capabilities, two jobs side by side."""
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda job: _process(units, components, *job), jobs))
    for (dtype, modules, capabilities), said in zip(jobs, found, strict=True):
        assert sorted(map(list, makers(1, 1))) == said["found"], "a kernel is missing in compile_ptx.makers"
        rows = said["rows"]
        assert {name.split(".")[0] for name, *_ in rows} == {"careless", *modules}
        assert {capability for _, capability, _, _ in rows} == set(capabilities)
        assert all(target == f"sm_{capability}" for _, capability, target, _ in rows)
        careless = [wide for name, _, _, wide in rows if name.startswith("careless")]
        assert careless and all(careless), "float64 instructions are not counted"
        own = [(name, wide) for name, _, _, wide in rows if not name.startswith("careless")]
        assert all((wide == 0) == (dtype == "float32") for _, wide in own), own


def test_small_kernels():
    """Each of them in float32 for the oldest capability; those that compile fast for all, and in float64."""
    parts = [("float32", modules, CAPABILITIES[:1]) for modules in (MODULES[1::2], MODULES[::2])]
    _check(2, 2, *parts, ("float64", ["adam", "affine"], CAPABILITIES))


@pytest.mark.slow
@pytest.mark.parametrize(("units", "components"), [(2, 2), (16, 10)], ids=["small", "default"])
def test_every_dtype_and_capability(units, components):
    _check(units, components, *((dtype, MODULES, CAPABILITIES) for dtype in ("float32", "float64")))
