"""Options that several commands share, and the values they take."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class Duration(click.ParamType):
    """Seconds, or a number with a unit: 90, 90s, 10m, 1.5h, 1d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smhd]?)\s*", str(value).lower())
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if seconds <= 0 or math.isinf(seconds):
            self.fail(f"expected a positive time such as 90, 90s, 10m or 2h, got {value!r}", param, ctx)
        return seconds


class Positive(click.ParamType):
    """A finite number above zero, or from zero on."""

    name = "number"

    def __init__(self, zero: bool = False) -> None:
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number > 0 or (self.zero and number == 0)) or math.isinf(number):
            bound = "of at least" if self.zero else "above"
            self.fail(f"expected a finite number {bound} 0, got {value!r}", param, ctx)
        return number


class Part(click.ParamType):
    """A part of the rows (a number from 0 to below 1), or else the name of a file."""

    name = "part|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        try:
            part = float(value)
        except ValueError:
            return str(value)
        if not 0 <= part < 1:
            self.fail(f"expected a part of the rows from 0 to below 1, or a file, got {value!r}", param, ctx)
        return part


class ModelOption(click.ParamType):
    """``name=value``, where value is JSON, numbers separated by commas, or else text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value[0], value[1]
        name, equals, text = str(value).partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier() or not text.strip():
            self.fail(f"expected name=value such as hidden=64,64 or flows=5, got {value!r}", param, ctx)
        return name, parse_value(text)


def parse_value(text: str) -> Any:
    """JSON if it is JSON, a list if there are commas, else the text itself: 5, 1e-3, true, 64,64, tanh."""
    text = text.strip()
    try:
        return json.loads(text)
    except ValueError:
        pass
    if "," in text and text[0] not in '[{"':
        return [parse_value(part) for part in text.split(",") if part.strip()]
    return text


def computing_options(command: F) -> F:
    """--threads and --backend."""
    threads = click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads to use; the numbers do not depend on it [default: one a core, at most 4].",
    )
    backend = click.option(
        "--backend",
        type=click.Choice(["numba", "numpy", "cuda"]),
        help="Compiled kernels, numpy alone, which is slower and starts sooner, or an NVIDIA GPU [default: numba where "
        "there is one].",
    )
    return threads(backend(command))


def limit_threads(threads: int | None) -> None:
    """Limits numpy's threads, which it reads from the environment once, as it is imported."""
    if threads is not None and "numpy" not in sys.modules:
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(threads)


def seed_option(command: F) -> F:
    """--seed."""
    option = click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same result, bit for bit."
    )
    return option(command)


def table_options(command: F) -> F:
    """--key, --context, --context-key: where in the files the data and their context are."""
    for option in (
        click.option("--context-key", metavar="NAME", help="Array of the .npz that holds the context."),
        click.option(
            "--context", metavar="FILE", help="Table of contexts, row by row [default: c of a .npz of x and c]."
        ),
        click.option("--key", metavar="NAME", help="Array of the .npz that holds the data."),
    ):
        command = option(command)
    return command
