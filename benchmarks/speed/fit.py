"""Seconds of the whole ``refnaf fit data/power.npy`` by both backends, and by another version of the library.

    python benchmarks/speed/fit.py [--before PYTHON] [--repeats 2] [--threads 1 2]

Fresh processes take turns; imports, and what there is to compile, are counted. ``--before`` names the interpreter of an
environment with another version, which is measured beside this one; one that knows no backends runs what it has.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def fit(backend: str, threads: int) -> None:
    """Fit and print the nats of the test part: what a fresh process runs."""
    import numpy as np

    import refnaf
    from refnaf.training.data import split_rows

    x = np.load(ROOT / "data" / "power.npy")
    first, second, test = split_rows(len(x), 0, test=0.1, validation=0.1)
    known = inspect.signature(refnaf.fit).parameters
    chosen: dict[str, Any] = {"backend": backend} if "backend" in known else {}
    flow = refnaf.fit(x[first], validation=x[second], threads=threads, seed=0, **chosen)
    print(json.dumps({"nats": float(flow.log_prob(x[test]).mean()), "numbers": flow.n_params}))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description="Seconds of the default fit of data/power.npy.")
    parser.add_argument("--before", type=Path, help="an interpreter with another version of refnaf")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "THREADS"), help="fit once, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        fit(arguments.one[0], int(arguments.one[1]))
        return
    candidates = [("numba", sys.executable), ("numpy", sys.executable)]
    if arguments.before:
        candidates.append(("before", str(arguments.before.absolute())))
    print("| backend | threads | seconds | test nats |\n|---|---:|---:|---:|")
    for threads in arguments.threads:
        seconds: dict[str, list[float]] = {name: [] for name, _ in candidates}
        nats: dict[str, float] = {}
        for _ in range(arguments.repeats):
            for name, python in candidates:
                command = [python, str(Path(__file__).resolve()), "--one", name, str(threads)]
                setting = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
                began = time.perf_counter()
                done = subprocess.run(command, env=setting, capture_output=True, text=True, check=True)
                seconds[name].append(time.perf_counter() - began)
                nats[name] = json.loads(done.stdout.splitlines()[-1])["nats"]
        for name, _ in candidates:
            print(f"| {name} | {threads} | {statistics.median(seconds[name]):.1f} | {nats[name]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
