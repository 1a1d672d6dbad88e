"""Errors of the transformers against the high-precision oracle, in units of the last place.

    python benchmarks/accuracy.py [--samples 100000] [--seed 0] [--cache FOLDER] [--out benchmarks/ACCURACY.md]

What is measured, and how, is in refnaf/verify/accuracy.py; every set is evaluated in arbitrary precision until 30
digits are certain. That takes nearly all of the time: with gmpy2 beside mpmath half an hour on one core, without it two
to three times as long. ``--cache`` keeps the true values in a folder, object by object: a run that was cut off goes
on, and one of changed kernels takes a few minutes. ``--out`` writes the table with its date and versions to a file.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from refnaf import __version__
from refnaf.persistence import atomic_write
from refnaf.verify.accuracy import Row, format_report, measure

TEXT = """# Accuracy

{date}; refnaf {refnaf}, NumPy {numpy}, mpmath {mpmath}, Python {python}, {machine}.

    python benchmarks/accuracy.py --samples {samples} --seed {seed} --out benchmarks/ACCURACY.md

{samples:,} sets of input and parameters an object and dtype ({total:,} in all), each against an evaluation in arbitrary
precision of which 30 digits are certain. The sets, the units and the condition are defined in
[accuracy_sets.py](../refnaf/verify/accuracy_sets.py), [accuracy.py](../refnaf/verify/accuracy.py) and
[condition.py](../refnaf/verify/condition.py).

```
{report}
```
"""


def main() -> None:
    """Print the table, its rows to standard error as they are known."""
    parser = argparse.ArgumentParser(description="Errors of the transformers against the high-precision oracle.")
    parser.add_argument("--samples", type=int, default=100_000, help="sets an object and dtype (default: 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="a folder that keeps what is true of the sets, for the next run")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the table to")
    arguments = parser.parse_args()

    rows: list[Row] = []
    for row in measure(arguments.samples, arguments.seed, cache=arguments.cache):
        rows.append(row)
        print(
            row.object, row.implementation, row.dtype, f"{row.value:.2f} {row.slope:.1e}", file=sys.stderr, flush=True
        )
    print(format_report(rows))
    if arguments.out:
        text = TEXT.format(
            date=datetime.date.today().isoformat(),
            refnaf=__version__,
            numpy=version("numpy"),
            mpmath=version("mpmath"),
            python=platform.python_version(),
            machine=platform.machine(),
            samples=arguments.samples,
            seed=arguments.seed,
            total=arguments.samples * len({(row.object, row.dtype) for row in rows}),
            report=format_report(rows),
        )
        with atomic_write(arguments.out) as file:
            file.write(text.encode())


if __name__ == "__main__":
    main()
