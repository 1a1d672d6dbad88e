"""Progress of a fit: a bar with time left and the validation score on a terminal, elsewhere one line an epoch.

A download's is drawn by the same :class:`Line` and :func:`bar`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from refnaf_cli.report import duration, note, number

_BAR = 20
_REFRESH = 0.1  # seconds between two drawings of the bar


class Line:
    """The last line of a terminal, drawn over itself."""

    def __init__(self) -> None:
        self._drawn = 0  # characters standing on it

    def draw(self, text: str) -> None:
        """The text, as much of it as the line holds, in place of what stands there."""
        text = text[: shutil.get_terminal_size().columns - 1]
        click.echo("\r" + text.ljust(self._drawn), err=True, nl=False)
        self._drawn = len(text)

    def clear(self) -> None:
        """Takes the text off the line."""
        if self._drawn:
            click.echo("\r" + " " * self._drawn + "\r", err=True, nl=False)
            self._drawn = 0


def bar(done: float) -> str:
    """How much of 1 is done."""
    full = int(_BAR * done)
    return f"{done:4.0%} [{'#' * full}{'.' * (_BAR - full)}]"


class Progress:
    """A callable for ``refnaf.fit(progress=...)``. With ``quiet`` it shows messages (such as of steps undone) alone.

    ``epoch`` is the word for what is counted.
    """

    def __init__(self, terminal: bool | None = None, quiet: bool = False, epoch: str = "epoch") -> None:
        self.quiet, self.epoch = quiet, epoch
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self._epoch: Mapping[str, Any] = {}
        self._told = 0.0  # when the last evaluation was
        self._done = 0.0
        self._line = Line()
        self._last = -_REFRESH

    def __call__(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if event["kind"] == "message":
            self.clear()
            note(event["text"])
        elif self.quiet:
            return
        elif event["kind"] == "epoch":
            self._epoch, self._told = event, now
            if self.terminal:
                self._draw(now)
            else:
                left = event.get("seconds_left")
                click.echo("  ".join([*_scores(event, self.epoch), duration(event["seconds"]), *_left(left)]), err=True)
        elif event["kind"] == "step" and self.terminal:
            self._done = event["step"] / max(1, event["steps"])
            if now - self._last >= _REFRESH:
                self._draw(now)

    def _draw(self, now: float) -> None:
        self._last = now
        left = self._epoch.get("seconds_left")
        parts = [
            bar(self._done),
            *_scores(self._epoch, self.epoch),
            *_left(None if left is None else max(0.0, left - (now - self._told))),
        ]
        self._line.draw("  ".join(parts))

    def clear(self) -> None:
        """Takes the bar off the line."""
        self._line.clear()


def _scores(event: Mapping[str, Any], epoch: str) -> list[str]:
    if not event:
        return []
    epochs = event.get("epochs")
    shown = [f"{epoch} {event['epoch']:g}" + (f"/{epochs:g}" if epochs else "")]
    return shown + [
        f"{name} {number(event[name])}" for name in ("train", "validation", "best") if event.get(name) is not None
    ]


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{duration(seconds)} left"]
