"""The backend "cuda" on this machine's GPU, beside the limits of the card and torch on the same card.

    python benchmarks/cuda/run_cuda.py --out benchmarks/CUDA.md [--budget 7] [--no-torch] [--simulate]

Needs what the backend does (``pip install ".[cuda12]"`` or ``".[cuda13]"``), and torch with CUDA for the peers: without
it their rows are left out, and the report says so. ``--out`` gets the Markdown, and the numbers go beside it as JSON,
after every row, so that a run which is cut short leaves what it had. ``--budget`` is in minutes; what does not fit is
left out, and named. The exit status is 1 where something went wrong; the report has what. ``--simulate`` goes through
all of it on tiny sizes without a GPU, by CUDA's simulator: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Kernels stop at this share of the budget, that steps may have the rest.
KERNELS_SHARE = 0.6


def main(words: Sequence[str] | None = None) -> int:
    """Measure everything, and print the report or write it. Returns the exit status."""
    parser = argparse.ArgumentParser(description="The speed of refnaf on a GPU, beside its limits and torch.")
    parser.add_argument("--out", type=Path, help="a Markdown file for the report (default: print it)")
    parser.add_argument("--budget", type=float, default=7.0, help="minutes in all (default: 7)")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out")
    parser.add_argument("--simulate", action="store_true", help="tiny sizes without a GPU, only to see that it works")
    arguments = parser.parse_args(words)
    began = time.monotonic()

    # before anything imports numba, cupy or torch
    if arguments.simulate:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    os.environ.update(CUPY_TF32="0", NVIDIA_TF32_OVERRIDE="0")
    sys.path[:0] = [path for path in (str(HERE), str(HERE.parent / "speed")) if path not in sys.path]
    from refnaf import ops

    try:
        ops.check("cuda")
    except ImportError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    from work import Run

    command = shlex.join(["python", "benchmarks/cuda/run_cuda.py", *(sys.argv[1:] if words is None else words)])
    run = Run(arguments.out, command, arguments.simulate, not arguments.no_torch)
    run.kernels(began + 60 * arguments.budget * KERNELS_SHARE)
    run.steps(began + 60 * arguments.budget)
    run.done(time.monotonic() - began)
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
