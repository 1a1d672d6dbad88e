"""Nats against seconds, from the logs of ``power_curve.py run`` or a fit's model file: the picture and the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import refnaf
from refnaf.persistence import atomic_write
from refnaf.plotting.marks import BLACK, GREEN, GREY, MODEL, style
from refnaf.plotting.picture import STYLE

#: Seconds ``(E,)`` and test nats ``(E,)`` of the evaluations, by library.
Curves = dict[str, tuple[np.ndarray, np.ndarray]]

NATS = (0.55, 0.60, 0.62)
#: Colour and dashes of each, so that curves that lie on one another can both be seen.
LINES = ((MODEL, "-"), (BLACK, "--"), (GREEN, ":"))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without one that was cut off, or those of a model file that ``refnaf fit`` wrote, which have
    validation nats alone and no seconds. Raises ValueError for a file that is neither."""
    if path.suffix == ".safetensors":
        flow = refnaf.load(path, backend="numpy")
        training = flow.provenance["training"]
        per_epoch = training["rows"] // training["batch_size"]
        return [
            {"library": "refnaf", "step": round(one["epoch"] * per_epoch), "validation": one["validation"]}
            for one in flow.history
        ]
    whole, _, _ = path.read_text().rpartition("\n")
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines or any({"library", "step", "seconds", "test"} - set(line) for line in lines):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path}: expected lines of JSON as `run` writes them; give it a log of a run") from None
    return lines


def curves_of(logs: Sequence[Path], steps: Path | None, part: str = "test") -> Curves:
    """A curve for each log, by its own seconds or by those of a step that ``power_curve.py steps`` printed.

    ``part``: of whose rows the nats are, "test" or "validation".

    Raises ValueError for files that are something else, or logs of one library.
    """
    times: dict[str, float] = {}
    if steps is not None:
        try:
            times = {str(name): float(value) for name, value in json.loads(steps.read_text())["seconds"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{steps}: expected the JSON that `steps` prints; write its output there") from None
    curves: Curves = {}
    for log in logs:
        lines = read_log(log)
        name = lines[0]["library"]
        if name in curves:
            raise ValueError(f"{log}: there is a log of {name} already; give one log for each library")
        if part not in lines[0]:
            raise ValueError(f"{log} has no {part} nats; ask for --nats validation")
        if steps is None and "seconds" not in lines[0]:
            raise ValueError(f"{log} is a model file, which has no seconds; give --steps")
        if steps is not None and name not in times:
            raise ValueError(f"{steps} has no seconds of {name}; measure it by `steps --libraries`")
        seconds = [line["seconds"] if steps is None else line["step"] * times[name] for line in lines]
        curves[name] = np.array(seconds, float), np.array([line[part] for line in lines], float)
    return curves


def seconds_to(nats: float, seconds: np.ndarray, scores: np.ndarray) -> float | None:
    """When scores ``(E,)`` first reach so many nats, on a straight line between two evaluations; None if they do not.

    Before the first evaluation nothing is known: where that has them already, its own second is the answer.
    """
    there = np.flatnonzero(scores >= nats)
    if not len(there):
        return None
    k = int(there[0])
    return float(np.interp(nats, scores[k - 1 : k + 1], seconds[k - 1 : k + 1]) if k else seconds[0])


def table(curves: Curves, part: str = "test") -> str:
    """Markdown: for each of NATS the seconds of every library, and how many times the first's the others take."""
    first, *others = curves
    head = [f"{part} nats", *(f"{name}, s" for name in curves), *(f"{name} / {first}" for name in others)]
    lines = [head, ["---:"] * len(head)]
    for nats in NATS:
        times = [seconds_to(nats, *curve) for curve in curves.values()]
        cells = ["not reached" if t is None else f"{t:.0f}" for t in times]
        ratios = ["" if t is None or times[0] is None else f"{t / times[0]:.2f}" for t in times[1:]]
        lines.append([f"{nats:.2f}", *cells, *ratios])
    last = [f"{scores[-1]:.4f} after {seconds[-1]:.0f} s" for seconds, scores in curves.values()]
    lines.append(["at the end", *last, *[""] * len(others)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(curves: Curves, title: str, path: Path, part: str = "test") -> None:
    """Nats against seconds, a line for each library; what is far below the rest is left out."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    every = np.concatenate([scores for _, scores in curves.values()])
    high, low = float(every.max()), float(np.quantile(every, 0.1))
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for nats in NATS:
            axes.axhline(nats, color=GREY, linewidth=0.6, linestyle=":")
        for (name, (seconds, scores)), (colour, dashes) in zip(curves.items(), LINES, strict=False):
            axes.plot(
                seconds,
                scores,
                color=colour,
                linestyle=dashes,
                linewidth=1.5,
                label=f"{name}: {scores[-1]:.3f} nats at the end",
            )
        style(axes, title, "seconds of training", f"mean log-density of {part} rows (nats)")
        axes.set_xlim(left=0)
        axes.set_ylim(high - 2 * max(high - low, 0.05), high + 0.1 * max(high - low, 0.05))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
