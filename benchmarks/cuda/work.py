"""One run after another of what there is to measure, each of which may fail without the others."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import card
import cuda_report
import device_kernels
import device_steps
import rates
from sizes import CARD, SIMULATOR

from refnaf.kernels.cuda.compiler import SIMULATED
from refnaf.persistence import atomic_write


class Run:
    """What was measured so far, written down after every cell."""

    def __init__(self, out: Path | None, command: str, tiny: bool, with_torch: bool) -> None:
        self.out, self.command, self.sizes = out, command, SIMULATOR if tiny else CARD
        self.about = card.describe()
        self.clock = card.Clock()
        self.rates = rates.measure(self.clock)
        card.release()
        self.kernel_rows: list[device_kernels.KernelRow] = []
        self.step_rows: list[device_steps.StepRow] = []
        self.notes: list[str] = []
        #: Whether anything failed.
        self.wrong = False
        lacking = _lacks_torch() if with_torch else "torch was not asked for"
        self.with_torch = lacking is None
        if lacking:
            self.notes.append(f"rows of torch: {lacking}")

    @contextlib.contextmanager
    def _cell(self, label: str) -> Iterator[None]:
        """A failure inside is noted; what was measured is written down."""
        began = time.monotonic()
        try:
            yield
            card.release()
        except Exception as error:  # the other cells are still worth their time on the card
            self.wrong = True
            self.notes.append(f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
        print(f"{label}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        self._write()

    def kernels(self, until: float) -> None:
        """The kernels, as long as the clock is before ``until``."""
        with self._cell("network and optimiser"):
            self.kernel_rows += device_kernels.surroundings(self.sizes, self.clock, self.rates)
        verified: set[tuple[str, str]] = set()
        for cell in self.sizes.cells:
            if time.monotonic() >= until:
                self.notes.append(f"{cell.label}: no time was left")
                continue
            with self._cell(cell.label):
                if (cell.name, cell.dtype) not in verified:
                    device_kernels.verify(cell.name, cell.dtype, self.sizes)
                    verified.add((cell.name, cell.dtype))
                self.kernel_rows += device_kernels.measure_cell(cell, self.sizes, self.clock, self.rates)

    def steps(self, until: float) -> None:
        """Training steps and scoring, as long as the clock is before ``until``."""
        verified: set[str] = set()
        for cell in device_steps.plan(self.sizes):
            if time.monotonic() >= until:
                self.notes.append(f"{cell.label}: no time was left")
                continue
            with self._cell(cell.label):
                try:
                    if cell.model not in verified:
                        device_steps.verify(cell.model, self.sizes)
                        verified.add(cell.model)
                    row = device_steps.measure_cell(cell, self.sizes, self.rates, self.with_torch)
                    self.step_rows.append(row)
                    for peer, why in row.failed.items():
                        self.wrong = True
                        self.notes.append(f"{peer} in {row.label}: {why}")
                finally:
                    if self.with_torch:
                        device_steps.release()

    def done(self, seconds: float) -> None:
        """Write the report for the last time, or print it."""
        self.about["time"] = f"{seconds / 60:.1f} minutes"
        self._write()
        if not self.out:
            print(self._text(), end="")

    def _text(self) -> str:
        rows = self.kernel_rows, self.step_rows
        return cuda_report.write(self.about, self.command, self.rates, *rows, self.notes)

    def _write(self) -> None:
        if not self.out:
            return
        found = {
            "about": self.about,
            "command": self.command,
            "rates": dataclasses.asdict(self.rates),
            "kernels": [dataclasses.asdict(row) | {"fraction": row.fraction} for row in self.kernel_rows],
            "steps": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in self.step_rows],
            "notes": self.notes,
        }
        for path, text in ((self.out, self._text()), (self.out.with_suffix(".json"), json.dumps(found, indent=1))):
            with atomic_write(path) as file:
                file.write(text.encode())


def _lacks_torch() -> str | None:
    """Why torch cannot be compared with, or None."""
    if not find_spec("torch"):
        return "torch is not installed"
    if not SIMULATED and not importlib.import_module("torch").cuda.is_available():
        return "this torch sees no GPU"
    return None
