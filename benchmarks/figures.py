"""The pictures that go with the papers, each made by one command, with the numbers behind it as Markdown.

    python benchmarks/figures.py planar|grid|energies|sine|all [--out benchmarks/figures] [--seed 0] [--quick]

``planar``: planar flows, K = 2, 8 and 32, fitted to the energies U1 to U4 (Rezende and Mohamed 2015, figure 3).
``grid``: affine against neural autoregressive flows with as many numbers on the 5 x 5 grid of Gaussians, and
``energies``, ``sine``: neural autoregressive flows on U1 to U4 and on the posterior of a sine wave's frequency, beside
an affine one (Huang, Krueger, Lacoste and Courville 2018, section 6.1).

Needs matplotlib. One thread, a few minutes a figure. ``--quick`` takes a few steps of the smallest form, to see that
everything works: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures_grid import figure_grid
from figures_plane import energies, planar
from figures_sine import figure_sine

import refnaf

FIGURES: dict[str, Callable[[Path, int, bool], None]] = {
    "planar": planar,
    "grid": figure_grid,
    "energies": energies,
    "sine": figure_sine,
}


def main(arguments: list[str] | None = None) -> None:
    """Draw the figures that the command line names, printing each row as it is known."""
    parser = argparse.ArgumentParser(description="The papers' figures, by refnaf; the numbers as Markdown.")
    commands = parser.add_subparsers(dest="figure", required=True, metavar="{" + ",".join([*FIGURES, "all"]) + "}")
    for name in (*FIGURES, "all"):
        command = commands.add_parser(name, help=f"{name}.png" if name in FIGURES else "every one of them")
        command.add_argument(
            "--out", type=Path, default=Path(__file__).parent / "figures", help="folder (default: %(default)s)"
        )
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--quick", action="store_true", help="a few steps, to see that everything works")
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        parser.error('figures need matplotlib, which is not installed: pip install ".[plot]"')
    print(
        f"{datetime.date.today()}, refnaf {refnaf.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, one thread; seed {chosen.seed}"
    )
    for name in FIGURES if chosen.figure == "all" else [chosen.figure]:
        FIGURES[name](chosen.out / f"{name}.png", chosen.seed, chosen.quick)


if __name__ == "__main__":
    main()
