"""What commands tell: notes and warnings on standard error, times and tables on standard output."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np


SCORE_NAMES = {
    "train": "training",
    "validation": "validation",
    "test": "test",
    "gaussian_test": "Gaussian, test",
    "elbo": "ELBO",
    "log_normaliser": "log normaliser",
}


def note(text: str) -> None:
    """One line on standard error that is neither an error nor a warning."""
    click.echo(f"refnaf: note: {' '.join(text.split())}", err=True)


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Shows warnings about the data as ``refnaf: warning: ...``, each once; leaves other warnings as they are."""
    from refnaf.errors import DataWarning

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.filterwarnings("always", category=DataWarning)
        said: set[str] = set()

        def show(message: Any, category: Any, *args: Any, **extra: Any) -> None:
            text = " ".join(str(message).split())
            if not issubclass(category, DataWarning):
                usual(message, category, *args, **extra)
            elif text not in said:
                said.add(text)
                click.echo(f"refnaf: warning: {text}", err=True)

        warnings.showwarning = show
        yield


def duration(seconds: float) -> str:
    """0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines of aligned cells; the columns numbered in ``right`` are flushed right."""
    right = set(right)
    width = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(max(map(len, rows)))]
    flushed = [
        [cell.rjust(width[i]) if i in right else cell.ljust(width[i]) for i, cell in enumerate(row)] for row in rows
    ]
    return ["  ".join(cells).rstrip() for cells in flushed]


class Mean:
    """Mean and standard error of numbers that come in chunks, in float64, by Chan's update."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self._squares = 0.0  # summed squared distances from the mean

    def add(self, values: np.ndarray) -> None:
        n = len(values)
        if n == 0:
            return
        mean = float(values.mean(dtype="float64"))
        squares = float(((values - mean) ** 2).sum(dtype="float64"))
        total, gap = self.n + n, mean - self.mean
        self.mean += gap * n / total
        self._squares += squares + gap * gap * self.n * n / total
        self.n = total

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN for fewer than two numbers."""
        return math.sqrt(self._squares / (self.n - 1) / self.n) if self.n > 1 else math.nan


def nats(score: Sequence[float]) -> list[str]:
    """Cells ``mean``, ``+-``, ``standard error`` for a table."""
    return [number(score[0]), "+-", number(score[1])]


def number(value: float) -> str:
    """Four decimals, or for huge values four digits after the first."""
    return f"{value:.4f}" if not abs(value) >= 1e6 else f"{value:.4e}"
