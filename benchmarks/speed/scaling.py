"""How the cost of a training step grows with N, D, H and d, and the plot of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import cases
import numpy as np
import ours
from timing import Row, interleaved, row

from refnaf.persistence import atomic_write

#: Each sweep changes one of these sizes.
BASE = {"N": 256, "D": 16, "H": 128, "d": 16}
SWEEPS = {
    "N": (32, 64, 128, 256, 512, 1024, 2048, 4096),
    "D": (2, 4, 8, 16, 32, 64, 128),
    "H": (16, 32, 64, 128, 256, 512, 1024),
    "d": (2, 4, 8, 16, 32, 64),
}
MODELS, FLOWS = ("maf-dsf", "maf-ddsf"), 2
#: A DDSF of more units is not measured: its cost grows with d^2.
MOST = {"maf-dsf": 64, "maf-ddsf": 32}


@dataclasses.dataclass(frozen=True)
class Point:
    """A size of a sweep, and the rows that hold its times."""

    model: str
    size: str
    value: int


def points(quick: bool) -> list[Point]:
    """All points, or two a sweep."""
    chosen = {size: (values[0], values[2]) if quick else values for size, values in SWEEPS.items()}
    every = [Point(model, size, value) for model in MODELS for size, values in chosen.items() for value in values]
    return [point for point in every if point.size != "d" or point.value <= MOST[point.model]]


def measure(backend: str, threads: int, seconds: float, quick: bool) -> Iterator[Row]:
    """A row for each point; ``work`` says model, size and value."""
    for point in points(quick):
        n, dim, hidden, units = (({**BASE, point.size: point.value})[size] for size in "NDHd")
        flow = cases.flow(point.model, dim, hidden, "float32", FLOWS, units).replace({}, backend=backend)
        candidate = ours.training(flow, cases.rows(n, dim, "float32"), threads)
        candidate.run()
        yield row(
            interleaved([candidate], seconds, rounds=3),
            section="scaling",
            work=f"{point.model} {point.size} {point.value}",
            dim=dim,
            rows=n,
            hidden=hidden,
            dtype="float32",
            threads=threads,
        )


def curves(rows: Sequence[Row]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Sizes and seconds of each model's sweep."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for entry in rows:
        if entry.section == "scaling":
            model, size, value = entry.work.split()
            found.setdefault((model, size), []).append((int(value), entry.seconds[ours.NAME]))
    return found


def exponent(curve: Sequence[tuple[int, float]]) -> float | None:
    """The slope between the last two points in logarithms: the power of the size that the cost grows with there. None
    of a sweep that did not fit into the time."""
    if len(curve) < 2:
        return None
    (size_a, a), (size_b, b) = curve[-2:]
    return float(np.log(b / a) / np.log(size_b / size_a))


def plot(rows: Sequence[Row], path: Path) -> None:
    """Four panels, one a size, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {"N": "rows of a batch", "D": "dimensions", "H": "width of hidden layers", "d": "units of a transformer"}
    figure, axes = pyplot.subplots(1, 4, figsize=(12, 3), sharey=True, layout="constrained")
    for axis, size in zip(axes, SWEEPS, strict=True):
        for model in MODELS:
            curve = curves(rows).get((model, size), [])
            if not curve:
                continue
            axis.loglog(*zip(*((v, 1e3 * s) for v, s in curve), strict=True), marker=".", label=model)
        ticks = SWEEPS[size][::2]
        axis.set_xticks(ticks, [str(v) for v in ticks])
        axis.xaxis.set_minor_locator(pyplot.NullLocator())
        axis.set_xlabel(f"{size}: {names[size]}")
        axis.grid(alpha=0.3)
        axis.axvline(BASE[size], color="0.7", linewidth=0.8)
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter(pyplot.NullFormatter())
    axes[0].set_ylabel("ms a training step")
    axes[0].legend(frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
