"""Fresh processes: from their start to the first score, what a cold JIT costs, and the memory of training."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cases
import numpy as np
from timing import Row

HERE = Path(__file__).resolve().parent
DIM = 6

SCORE = """
import numpy, refnaf
flow = refnaf.load({model!r}, backend={backend!r})
assert numpy.isfinite(flow.log_prob(numpy.load({data!r}))).all()
"""

# the largest resident set before and after three training steps, in KiB; the kernel's ru_maxrss would hold that of
# the process that started this one
MEMORY = """
import sys
sys.path.insert(0, {here!r})
import cases, refnaf.flows
{imports}
def peak():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
rows = cases.rows({rows}, 43, "float32")
candidate = {candidate}
with candidate.around():
    for _ in range(3):
        candidate.run()
print(before, peak())
"""
TRAINED = 512


def _run(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[float, str]:
    """Wall seconds of a process, and what it printed. Raises RuntimeError with its last words where it failed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a process that was to be timed failed: {done.stderr.strip()[-500:]}")
    return seconds, done.stdout


def _median(arguments: list[str], repeats: int) -> float:
    """The first run, which fills the caches, is not counted."""
    _run(arguments)
    return statistics.median(_run(arguments)[0] for _ in range(repeats))


def _row(work: str, seconds: dict[str, float], dtype: str = "float32") -> Row:
    return Row("startup", work, DIM, 100, dtype, len(os.sched_getaffinity(0)), seconds)


def first_score(backend: str, folder: Path, repeats: int) -> Row:
    """Process start to a score of 100 rows by a saved maf-ddsf, warm caches; bare Python and NumPy beside it."""
    model, data = _saved(folder, "float32")
    code = {
        f"{backend} backend": SCORE.format(model=model, data=data, backend=backend),
        "numpy backend": SCORE.format(model=model, data=data, backend="numpy"),
        "import numpy": "import numpy",
        "python": "pass",
    }
    return _row("process start to first score", {name: _median(["-c", text], repeats) for name, text in code.items()})


def _saved(folder: Path, dtype: str) -> tuple[str, str]:
    model, data = folder / f"{dtype}.safetensors", folder / "rows.npy"
    cases.flow("maf-ddsf", DIM, 64, dtype).save(model)
    np.save(data, cases.rows(100, DIM, "float64"))
    return str(model), str(data)


def jit(folder: Path, repeats: int) -> Iterator[Row]:
    """``refnaf score`` and ``refnaf fit`` with an empty cache of compiled code, and with a full one."""
    table = folder / "table.npy"
    np.save(table, cases.rows(400, DIM, "float64"))
    for dtype in ("float32", "float64"):
        model, data = _saved(folder, dtype)
        fit = ["fit", str(table), "--model", "maf-ddsf", "--epochs", "1", "--dtype", dtype, "--quiet"]
        commands = {
            "refnaf score": ["score", model, data, "--out", str(folder / "nats.npy")],
            "refnaf fit": [*fit, "--out", str(folder / "fitted.safetensors")],
        }
        for name, command in commands.items():
            arguments = ["-m", "refnaf_cli", *command]
            cold = []
            for k in range(repeats):
                cache = folder / f"cache-{dtype}-{name[7:]}-{k}"
                cache.mkdir()
                cold.append(_run(arguments, {"NUMBA_CACHE_DIR": str(cache)})[0])
            warm = {"NUMBA_CACHE_DIR": str(cache)}
            again = statistics.median(_run(arguments, warm)[0] for _ in range(repeats))
            seconds = {"cold cache": statistics.median(cold), "warm cache": again}
            yield _row(f"{name} of a maf-ddsf", seconds, dtype)


def memory(backend: str) -> list[tuple[str, float, float]]:
    """Name, and MiB of the largest resident set after the imports and after training steps (H = 512, N = 512).

    Both read the model's numbers from a file.
    """
    flow = cases.flow("maf-dsf", 43, 512, "float32")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model, arrays = f"{folder}/model.safetensors", f"{folder}/network.npz"
        flow.save(model)
        net = cases.network(flow)
        cases.save_network(net, arrays)
        loaded = f"cases.load_network({arrays!r}, {net.name!r}, {net.weights}, {net.bound})"
        parts = {
            "refnaf": ("import ours", f"ours.training(refnaf.load({model!r}, backend={backend!r}), rows, 2)"),
            "torch eager": (
                "import lean_torch; lean_torch.settle(2)",
                f"lean_torch.training(lean_torch.EAGER, {loaded}, rows)",
            ),
        }
        for name, (imports, candidate) in parts.items():
            code = MEMORY.format(here=str(HERE), imports=imports, rows=TRAINED, candidate=candidate)
            before, after = _run(["-c", code])[1].split()
            found.append((name, int(before) / 1024, int(after) / 1024))
    return found


def count(backend: str) -> int:
    """Rows of :func:`measure`."""
    return 1 if backend == "numpy" else 5


def measure(backend: str, quick: bool) -> Iterator[Row]:
    """All of it but the memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield first_score(backend, folder, 2 if quick else 5)
        if backend != "numpy":
            yield from jit(folder, 1 if quick else 3)
