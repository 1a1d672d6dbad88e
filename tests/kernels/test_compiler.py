"""How kernels are compiled: kept on disk, never stale, once a dtype, and only where something needs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnaf
from refnaf import ops
from refnaf import ops_backends as backends
from refnaf.kernels.cpu import compiler

PACKAGE = Path(refnaf.__file__).resolve().parent

RUN = """
import numpy as np
from refnaf.kernels.cpu import adam, compiler
print(adam.sum_of_squares(np.array([1.0, 2.0])))
stats = adam.sum_of_squares.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
print(compiler._FOLDER)
"""


def _python(code, *, root=None, **environment):
    """The lines that some code prints in a process of its own; nothing may come on standard error."""
    usual = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    if root is not None:
        usual["PYTHONPATH"] = str(root)
    command = [sys.executable, "-c", code]
    # the current folder comes first on the path
    where = {"cwd": root, "env": {**usual, **environment}}
    done = subprocess.run(command, **where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")


@pytest.fixture
def copy(tmp_path):
    """A folder with a copy of the package, for the path."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "refnaf", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def test_a_second_process_takes_what_the_first_compiled(tmp_path):
    cache = str(tmp_path / "cache")
    first = _python(RUN, NUMBA_CACHE_DIR=cache)
    assert first[:2] == ["5.0", "0 1"]
    assert Path(first[2]).parent == tmp_path / "cache"
    written = {path: path.stat().st_mtime_ns for path in Path(first[2]).rglob("*") if path.is_file()}
    assert {path.suffix for path in written} == {".nbi", ".nbc"}
    assert _python(RUN, NUMBA_CACHE_DIR=cache) == ["5.0", "1 0", *first[2:]]
    assert {path: path.stat().st_mtime_ns for path in Path(first[2]).rglob("*") if path.is_file()} == written


def test_an_edit_in_any_file_of_the_kernels_or_the_reference_is_noticed(copy, tmp_path):
    cache = str(tmp_path / "cache")
    folders = {_python(RUN, root=copy, NUMBA_CACHE_DIR=cache)[2]}
    for name in ("kernels/scalar.py", "kernels/array/root.py", "kernels/cpu/far.py", "reference/stable.py"):
        path = copy / "refnaf" / name
        path.write_text(path.read_text() + "\n#\n")
        folders.add(_python("from refnaf.kernels.cpu import compiler; print(compiler._FOLDER)", root=copy,
                            NUMBA_CACHE_DIR=cache)[0])  # fmt: skip
    assert len(folders) == 5
    # a helper of the kernel's, in a file of its own, which numba's cache would not look at
    helper = copy / "refnaf" / "kernels" / "cpu" / "sums.py"
    before = helper.read_text()
    assert before.count("out += value * value") == 1
    helper.write_text(before.replace("out += value * value", "out += 3 * value * value"))
    assert _python(RUN, root=copy, NUMBA_CACHE_DIR=cache)[:2] == ["15.0", "0 1"]
    # and back: what was compiled before is found again
    helper.write_text(before)
    assert _python(RUN, root=copy, NUMBA_CACHE_DIR=cache)[0] == "5.0"


def test_beside_the_kernels_then_with_the_users_caches_then_nowhere(copy, tmp_path):
    own, user = copy / "refnaf" / "kernels" / "cpu" / "__pycache__", tmp_path / "user"
    quiet = {"root": copy, "XDG_CACHE_HOME": str(user), "PYTHONDONTWRITEBYTECODE": "1"}
    assert Path(_python(RUN, **quiet)[2]).parent == own
    assert not user.exists()
    # a file in the folder's place
    shutil.rmtree(own)
    own.write_text("")
    assert Path(_python(RUN, **quiet)[2]).parent == user / "refnaf"
    assert _python(RUN, **quiet)[:2] == ["5.0", "1 0"]
    shutil.rmtree(user)
    user.write_text("")
    assert _python(RUN, **quiet)[:3] == ["5.0", "0 1", "None"]


def test_folders_that_cannot_be_written_are_passed_over(copy, tmp_path):
    forbid = "import os; access = os.access; os.access = lambda path, mode: 'refnaf-' not in str(path)\n"
    got = _python(forbid + RUN, root=copy, XDG_CACHE_HOME=str(tmp_path / "user"))
    assert got[:3] == ["5.0", "0 1", "None"]


def test_a_folder_that_goes_while_the_program_runs_is_no_trouble(tmp_path):
    code = "import shutil\nfrom refnaf.kernels.cpu import compiler\nshutil.rmtree(compiler._FOLDER)\n"
    assert _python(code + RUN, NUMBA_CACHE_DIR=str(tmp_path))[0] == "5.0"
    late = "from refnaf.kernels.cpu import adam, compiler\nimport shutil\nshutil.rmtree(compiler._FOLDER)\n"
    assert _python(late + RUN, NUMBA_CACHE_DIR=str(tmp_path))[0] == "5.0"


def test_the_rest_of_numba_is_left_as_it_was(tmp_path):
    code = """
import numba
from numba.core import config
def settings():
    return {name: getattr(config, name) for name in dir(config) if name.isupper()}
before = settings()
from refnaf.kernels import cpu
from refnaf.kernels.cpu import block
assert settings() == before
print(config.CACHE_DIR)
"""
    assert _python(code)[0] == ""
    assert _python(code, NUMBA_CACHE_DIR=str(tmp_path))[0] == str(tmp_path)
    assert os.environ.get("NUMBA_CACHE_DIR", "") == compiler.config.CACHE_DIR


def test_numba_is_imported_where_kernels_are_needed_and_nowhere_else(tmp_path):
    refnaf.build("maf-ddsf", 2, units=4, flows=1, hidden=(4,)).save(tmp_path / "m")
    code = f"""
import sys
import numpy as np
import refnaf
assert "numba" not in sys.modules
flow = refnaf.load({str(tmp_path / "m")!r})
assert flow.backend == "numba" and "numba" not in sys.modules
refnaf.load({str(tmp_path / "m")!r}, backend="numpy").log_prob(np.zeros((3, 2)))
assert "numba" not in sys.modules
flow.log_prob(np.zeros((3, 2)))
assert "numba" in sys.modules
"""
    _python(code)


def test_without_numba_the_default_is_numpy_and_numba_is_refused(tmp_path, monkeypatch):
    refnaf.build("maf", 2, flows=1, hidden=(4,)).save(tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setattr(backends, "find_spec", lambda name: None)
        assert backends.default_backend() == "numpy"
        assert refnaf.build("maf", 2).backend == refnaf.load(tmp_path / "m").backend == "numpy"
        for refused in (
            lambda: refnaf.load(tmp_path / "m", backend="numba"),
            lambda: refnaf.build("maf", 2).replace({}, backend="numba"),
            lambda: ops.make("numba"),
            lambda: ops.optimiser("numba"),
        ):
            with pytest.raises(ImportError, match="needs the package numba: install it, or ask for") as caught:
                refused()
            assert "\n" not in str(caught.value)
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    hide = "import sys; sys.modules['numba'] = None; from refnaf_cli.main import main; main(sys.argv[1:])"
    score = [sys.executable, "-c", hide, "score", "m", "x.npy"]
    usual = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    assert subprocess.run(score, **usual).returncode == 0
    refused = subprocess.run([*score, "--backend", "numba"], **usual)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "install it, or ask for backend 'numpy'" in refused.stderr


SIGNATURES = """
import importlib, pkgutil
import numpy as np
from numba.core.dispatcher import Dispatcher
from refnaf.kernels import cpu
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import adam, dsf, ddsf, mixture, affine

def layouts(array):
    "The array; read-only; not contiguous; of the other order; at an odd address."
    yield array
    fixed = array.copy()
    fixed.setflags(write=False)
    yield fixed
    yield np.repeat(array, 2, axis=-1)[..., ::2]
    yield np.asfortranarray(array)
    odd = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    yield odd

rng = np.random.default_rng(0)
ROWS = {"dsf": 9, "ddsf": 21, "mog": 9, "affine": 2}
OPTIONS = {"dsf": [{}, {"floor": 0}, {"floor": 0.1}], "mog": [{}, {"floor": None}, {"floor": 0}, {"floor": 0.5}]}
for dtype in (np.float32, np.float64):
    for name, twin in cpu.TWINS.items():
        for options in OPTIONS.get(name, [{}]):
            for dim, n in ((1, 0), (1, 1), (3, 0), (3, 1), (1, 5), (3, 200)):
                plain = [rng.normal(size=s).astype(dtype) for s in ((dim, n), (dim, ROWS[name], n), (1, n))]
                shared = [np.ones(s, dtype) for s in ((3, 3), (3, 3), (1, 3))] if name == "ddsf" else []
                for arrays in zip(*map(layouts, plain)):
                    x, theta, slope = arrays
                    ws = Workspace()
                    _, _, saved = twin.forward(x, theta, *shared, ws=ws, **options)
                    twin.vjp(saved, x, slope, ws)
                    twin.forward(x, theta, *shared, ws=ws, keep=False, **options)
                    if hasattr(twin, "inverse"):
                        twin.inverse(x[0], theta[0], *shared, **options)
    for n in (0, 1, 100):
        state = [np.ones(n, dtype) for _ in range(6)]
        for largest in (state[3], state[3][:0]):
            adam.update(*state[:3], largest, *state[4:], 1.0, 0.1, 0.1, np.float64(1), 1e-8, 1e-3, 0.0, 0.5)
        adam.gather(state[0], state[1])
        adam.sum_of_squares(state[0])
    for weight, x, grad in zip(*map(layouts, (np.ones((9, 7), dtype), np.ones((7, 5), dtype), np.ones((9, 5), dtype)))):
        stairs = cpu.Staircase(np.tri(9, 7, dtype=bool))
        stairs.product(weight, x, np.empty((9, 5), dtype), Workspace())
        stairs.transposed(weight, grad, np.empty((7, 5), dtype), Workspace())
        stairs.outer(grad, x, np.zeros((9, 7), dtype), Workspace())
for module in (cpu.adam, cpu.staircase, *cpu.TWINS.values()):
    for name, found in vars(module).items():
        if isinstance(found, Dispatcher) and found.py_func.__module__ == module.__name__:
            print(module.__name__, name, len(found.signatures))
"""


def test_each_kernel_is_compiled_once_a_dtype():
    counts = [line.split() for line in _python(SIGNATURES) if line]
    assert len(counts) >= 12
    assert {(module, name): count for module, name, count in counts if count != "2"} == {}
