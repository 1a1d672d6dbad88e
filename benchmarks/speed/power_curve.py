"""Test nats of POWER against seconds of training: refnaf, and the quickest torch form of the same flow and optimiser.

    python benchmarks/speed/power_curve.py run --library refnaf --threads 2 --out refnaf.jsonl [--epochs 50]
    python benchmarks/speed/power_curve.py run --library torch --threads 2 --out torch.jsonl
    python benchmarks/speed/power_curve.py steps --threads 2 > steps.json
    python benchmarks/speed/power_curve.py plot refnaf.jsonl torch.jsonl --steps steps.json --out power_curve.png
    python benchmarks/speed/power_curve.py plot power-maf-ddsf-5.safetensors torch.jsonl --steps steps.json \
        --nats validation --out power_curve.png      # with the model of `refnaf fit power --recipe maf-ddsf-5`

POWER must be prepared (``refnaf data prepare power``). The recipe is maf-ddsf-5's, by the plan of ``refnaf.fit``: both
libraries start from the same numbers and take the same rows in each step, and torch's run stops at once where its first
loss or gradient is not refnaf's. ``run`` writes a line of JSON at every evaluation: the step, the seconds of training
until then (without evaluations, and without what is compiled for the first loss), and mean nats of the averaged
parameters on the first 100,000 test rows and on the validation rows that ``refnaf.fit`` looks at. ``steps`` lets the
libraries take steps in turn, and prints the seconds of one. ``plot`` draws nats against the logs' own seconds or, with
``--steps``, against steps times the seconds of one: the clock of a long run also tells of whatever else ran on the
machine. It prints the seconds that each took to some nats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ours
import power_curve_plot
from power_curve_work import Refnaf, Trainer, Work
from timing import agree

from refnaf.datasets.published import load
from refnaf.datasets.recipes import recipe
from refnaf.persistence import check_writable

RECIPE, DATA = "maf-ddsf-5", "power"
PEERS = ("torch", "torch-eager")
#: How far torch's first loss may be from refnaf's, and its gradient (as timing.agree measures it).
SAME_LOSS, SAME_GRADIENT = 1e-4, 1e-3
#: Of a measurement of steps: blocks of each library, and the steps of a block, after one that is not counted.
BLOCKS, BLOCK = 9, 30


def trainer(library: str, work: Work) -> Trainer:
    """A library at the work, what it compiles compiled; torch's first loss and gradient were found to be refnaf's.

    Raises Disagreement where they are not, ModuleNotFoundError where torch is missing.
    """
    own = Refnaf(work)
    wanted = own.gradient(0)
    if library == ours.NAME:
        return own
    own.objective.close()
    import lean_torch
    from power_curve_torch import Torch

    lean_torch.settle(work.threads)
    theirs = Torch(lean_torch.EAGER if library == "torch-eager" else lean_torch.COMPILED, library, work)
    found = theirs.gradient(0)
    print(f"first loss: {ours.NAME} {wanted[0]:.7g}, {library} {found[0]:.7g}", file=sys.stderr, flush=True)
    agree(f"first loss, {library}", found[:1], wanted[:1], SAME_LOSS)
    agree(f"first gradient, {library}", found[1:], wanted[1:], SAME_GRADIENT)
    return theirs


def run(one: Trainer, work: Work, out: Path) -> None:
    """Take all steps, and append a line to the log at every evaluation."""
    seconds, plan = 0.0, work.plan
    for first in range(0, plan.steps, plan.every):
        last = min(first + plan.every, plan.steps)
        with one.around():
            began = time.perf_counter()
            for step in range(first, last):
                one.step(step)
            seconds += time.perf_counter() - began
        line: dict[str, Any] = {"library": one.name, "step": last, "seconds": round(seconds, 3)}
        line |= {"test": one.score(work.test), "validation": one.score(work.validation), "left_out": one.skips.total}
        with out.open("a") as file:
            print(json.dumps(line), file=file)
        print(f"of {plan.steps} steps: {line}", file=sys.stderr, flush=True)


def measure(trainers: Sequence[Trainer], blocks: int = BLOCKS, steps: int = BLOCK) -> dict[str, dict[str, float]]:
    """Seconds of a step by library, the medians of blocks taken in turn; and their interquartile ranges over these.

    Steps are those of a run, each with rows of its own; every block starts with another library than the one before.
    """
    means: dict[str, list[float]] = {one.name: [] for one in trainers}
    taken = dict.fromkeys(means, 0)
    for block in range(blocks):
        for k in range(len(trainers)):
            one = trainers[(block + k) % len(trainers)]
            start = taken[one.name]
            with one.around():
                one.step(start)
                began = time.perf_counter()
                for step in range(start + 1, start + 1 + steps):
                    one.step(step)
                means[one.name].append((time.perf_counter() - began) / steps)
            taken[one.name] += steps + 1
    medians = {name: statistics.median(values) for name, values in means.items()}
    quartiles = {name: np.quantile(values, [0.25, 0.75]) for name, values in means.items()}
    spread = {name: float(np.diff(quartiles[name])[0] / medians[name]) for name in means}
    return {"seconds": medians, "spread": spread}


def arguments_of(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Test nats of POWER against seconds, refnaf beside torch.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train by one library, a line of a log at every evaluation")
    one.add_argument("--library", choices=(ours.NAME, *PEERS), required=True)
    one.add_argument("--epochs", type=float, help="passes over the training rows (default: the recipe's)")
    one.add_argument("--out", type=Path, required=True, help="the log, which must not exist yet")
    both = commands.add_parser("steps", help="the seconds of a step of each library, as JSON")
    both.add_argument("--libraries", nargs="+", choices=(ours.NAME, *PEERS), default=[ours.NAME, PEERS[0]])
    both.set_defaults(epochs=None)
    for command in (one, both):
        command.add_argument("--threads", type=int, default=2, help="(default: 2)")
    drawn = commands.add_parser("plot", help="the picture, and a table as Markdown")
    drawn.add_argument(
        "logs", type=Path, nargs="+", help="of `run`, refnaf's first (or its model file): others are held against it"
    )
    drawn.add_argument("--nats", choices=("test", "validation"), default="test", help="of these rows (default: test)")
    drawn.add_argument("--steps", type=Path, help="what `steps` printed (default: go by the logs' own seconds)")
    drawn.add_argument("--out", type=Path, required=True, help="a PNG file")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Run one of the commands; what is wrong with the data or the options is one line."""
    arguments = arguments_of(given)
    try:
        if arguments.command == "plot":
            curves = power_curve_plot.curves_of(arguments.logs, arguments.steps, arguments.nats)
            power_curve_plot.plot(curves, f"{DATA}, {RECIPE}", arguments.out, arguments.nats)
            print(power_curve_plot.table(curves, arguments.nats))
            return
        if arguments.command == "run":
            check_writable(arguments.out)
            if arguments.out.exists():
                raise ValueError(f"{arguments.out} is there already; move it away, or name another log")
        settings = recipe(RECIPE, DATA)
        if arguments.epochs is not None:
            settings.training["epochs"] = arguments.epochs
        work = Work.of(load(DATA), settings, arguments.threads)
        if arguments.command == "run":
            run(trainer(arguments.library, work), work, arguments.out)
        else:
            times = measure([trainer(library, work) for library in arguments.libraries])
            print(json.dumps({"threads": arguments.threads, **times}, indent=1))
    except (OSError, ValueError, ImportError) as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
