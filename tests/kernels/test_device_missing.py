"""What a machine without a GPU, a driver or the packages is told: one line, and nothing else stops working."""

import os
import subprocess
import sys

import numpy as np
import pytest

import refnaf
from refnaf import ops_backends as backends

#: How packages are hidden, or put there, and what is said then.
CASES = {
    "numba-cuda": (
        "backends.find_spec = lambda name: None",
        "the package numba-cuda is missing, which pip install 'refnaf[cuda12]' brings",
    ),
    "cupy": ("compiler().find_spec = lambda name: None", "the package cupy is missing, which pip install"),
    "driver": ("compiler().find_spec = lambda name: name", "no NVIDIA driver was found: install one"),
}


def _plain():
    return {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_is_missing(case):
    pytest.importorskip("numba_cuda")
    if case == "driver" and os.path.exists("/proc/driver/nvidia"):
        pytest.skip("this machine has a driver")
    find, said = CASES[case]
    code = (
        "import refnaf.ops_backends as backends\n"
        "def compiler():\n    import refnaf.kernels.cuda.compiler as module\n    return module\n"
        f"{find}\n"
        "try:\n    backends.check('cuda')\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=_plain(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"backend 'cuda' cannot run here: {said}"), done.stdout


def test_the_command_line_says_it_in_one_line(tmp_path):
    path = tmp_path / "model.safetensors"
    refnaf.build("maf", 2).save(path)
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    command = [sys.executable, "-m", "refnaf_cli", "score", str(path), str(tmp_path / "x.npy"), "--backend"]
    done = subprocess.run([*command, "cuda"], env=_plain(), capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert "backend 'cuda' cannot run here: " in done.stderr
    assert subprocess.run([*command, "numpy"], env=_plain(), capture_output=True).returncode == 0


def test_an_unknown_backend():
    with pytest.raises(ValueError, match="must be one of numpy, numba, cuda, not 'gpu'"):
        backends.check("gpu")
