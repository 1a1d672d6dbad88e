"""The speed of refnaf, side by side with its peers and with the limits of the machine.

    python benchmarks/speed/run.py --out benchmarks/SPEED.md [--quick] [--budget 25] [--backend numba]

Needs torch, jax, zuko and nflows beside refnaf and matplotlib, and a C++ compiler for torch.compile. One process for
each number of threads measures, pinned to as many cores; nothing else should run on the machine. ``--budget`` is in
minutes; what does not fit is left out, and named. With ``--out`` the plot of how cost grows is written beside the
report as speed_scaling.png. ``--quick`` takes a row of each kind, to see that everything works: its numbers mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import scaling
from limits import Limits
from timing import Row

from refnaf.ops_backends import default_backend
from refnaf.persistence import atomic_write

HERE = Path(__file__).resolve().parent
#: What each process measures, and its share of the budget.
PROCESSES = (
    (1, ("kernels", "steps", "sampling", "autograd", "scaling"), 0.53),
    (2, ("kernels", "steps", "sampling", "autograd", "startup"), 0.47),
)


def measure(threads: int, sections: tuple[str, ...], seconds: float, backend: str, quick: bool) -> dict[str, Any]:
    """The results of a process with this many threads. Raises CalledProcessError where it fails."""
    pools = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(pools, str(threads))}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    pinned = ["taskset", "-c", ",".join(map(str, range(threads)))] if shutil.which("taskset") else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        options = ["--threads", str(threads), "--backend", backend, "--budget", str(seconds), "--out", str(out)]
        options += ["--sections", *sections, *(["--quick"] if quick else [])]
        subprocess.run([*pinned, sys.executable, str(HERE / "worker.py"), *options], env=environment, check=True)
        return json.loads(out.read_text())


def main() -> None:
    """Measure everything, and print the report or write it."""
    fastest = default_backend()
    parser = argparse.ArgumentParser(description="The speed of refnaf beside torch, jax, zuko and nflows.")
    parser.add_argument("--out", type=Path, help="a Markdown file for the report (default: print it)")
    parser.add_argument("--quick", action="store_true", help="a row of each kind, only to see that it works")
    parser.add_argument("--budget", type=float, default=25.0, help="minutes in all (default: 25)")
    backends = ("numba", "numpy")
    parser.add_argument("--backend", choices=backends, default=fastest, help=f"of refnaf (default: {fastest})")
    parser.add_argument("--rows", type=Path, help="a JSON file to keep what was measured in")
    parser.add_argument("--again", type=Path, help="write the report from such a file, without measuring")
    arguments = parser.parse_args()

    if arguments.again:
        results = json.loads(arguments.again.read_text())
    else:
        results = {"rows": [], "limits": [], "cut": [], "memory": [], "backend": arguments.backend}
        for threads, sections, share in PROCESSES:
            seconds = 60 * arguments.budget * share
            found = measure(threads, sections, seconds, arguments.backend, arguments.quick)
            for name in found:
                results[name] += found[name]
        results["command"] = shlex.join(["python", Path(sys.argv[0]).as_posix(), *sys.argv[1:]])
    if arguments.rows:
        with atomic_write(arguments.rows) as file:
            file.write(json.dumps(results, indent=1).encode())
    rows = [Row(**row) for row in results["rows"]]
    rates = list({(one["threads"], one["dtype"]): Limits(**one) for one in results["limits"]}.values())
    text = report.write(rows, rates, results["memory"], results["cut"], results["command"], results["backend"])
    if not arguments.out:
        print(text, end="")
        return
    if scaling.curves(rows):
        picture = arguments.out.with_name("speed_scaling.png")
        scaling.plot(rows, picture)
        text += f"\n![cost of a training step by N, D, H and d]({picture.name})\n"
    with atomic_write(arguments.out) as file:
        file.write(text.encode())


if __name__ == "__main__":
    main()
