"""What one process measures, with a number of threads; ``run.py`` starts it. Writes rows as JSON.

OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/speed/worker.py --threads 1 --sections kernels --out rows.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernels
import lean_torch
import limits
import sampling
import scaling
import startup
import steps
from timing import Row

from refnaf.persistence import atomic_write

SECTIONS = ("kernels", "steps", "sampling", "autograd", "scaling", "startup")
#: Shares of the time a process is given; and about how long a row is measured, beside what its candidates compile.
SHARES = {"kernels": 0.5, "steps": 0.32, "sampling": 0.06, "autograd": 0.06, "scaling": 0.06, "startup": 0.16}
SECONDS = {"kernels": 0.5, "steps": 6.0, "sampling": 6.0, "autograd": 4.0, "scaling": 0.5}


def planned(section: str, backend: str, quick: bool) -> int:
    """How many rows a section has."""
    counts = {
        "kernels": len(kernels.plan(quick)),
        "steps": len(steps.plan(quick)),
        "sampling": len(sampling.PEERS),
        "autograd": 1 if quick else len(steps.WIDTHS),
        "scaling": len(scaling.points(quick)),
        "startup": startup.count(backend),
    }
    return counts[section]


def rows(section: str, backend: str, threads: int, quick: bool) -> tuple[Iterator[Row], list[limits.Limits]]:
    """What a section measures, and the limits it did it by."""
    seconds = SECONDS.get(section, 0.0) * (0.3 if quick else 1)
    if section == "startup":
        return startup.measure(backend, quick), []
    if section in ("kernels", "steps"):
        found = [limits.measure(dtype, threads) for dtype in ("float32", "float64")]
        by_dtype = {found_one.dtype: found_one for found_one in found}
        measure = kernels.measure if section == "kernels" else steps.measure
        return measure(backend, threads, by_dtype, seconds, quick), found
    others = {"sampling": sampling.measure, "autograd": steps.autograd, "scaling": scaling.measure}
    return others[section](backend, threads, seconds, quick), []


def main() -> None:
    """Measure the sections asked for; say on standard error what was left out for want of time."""
    parser = argparse.ArgumentParser(description="Measure some sections in this process.")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS[:4]))
    parser.add_argument("--budget", type=float, default=600.0, help="seconds in all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lean_torch.settle(arguments.threads)

    result: dict[str, Any] = {"rows": [], "limits": [], "cut": [], "memory": []}
    whole = sum(SHARES[section] for section in arguments.sections)
    spare = 0.0
    for section in arguments.sections:
        start = time.monotonic()
        room = arguments.budget * SHARES[section] / whole + spare
        found, measured = rows(section, arguments.backend, arguments.threads, arguments.quick)
        result["limits"] += [dataclasses.asdict(one) for one in measured]
        left = planned(section, arguments.backend, arguments.quick)
        for row in found:
            left -= 1
            result["rows"].append(dataclasses.asdict(row))
            times = ", ".join(f"{name} {seconds * 1e3:.3g} ms" for name, seconds in row.seconds.items())
            print(f"{row.label}: {times}", file=sys.stderr, flush=True)
            if left and time.monotonic() - start > room:
                result["cut"].append(f"{left} rows of {section}, threads = {arguments.threads}")
                break
        spare = room - (time.monotonic() - start)
        if section == "startup":
            result["memory"] = startup.memory(arguments.backend)
    with atomic_write(arguments.out) as file:
        file.write(json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
