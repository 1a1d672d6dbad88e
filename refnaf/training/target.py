"""A user's log-density: called, differentiated by autograd, and refused in one line where that cannot work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

REMEDY = "write it with autograd.numpy (import autograd.numpy as np)"


class Target:
    """A function of z ``(N, D)`` float64 that gives unnormalised log-densities ``(N,)``, one for each row by itself."""

    def __init__(self, log_density: Callable[[Any], Any]) -> None:
        if not callable(log_density):
            raise ValueError(
                f"log_density must be a function, got {type(log_density).__name__}; "
                "define one that takes z of shape (N, D) and returns (N,) nats"
            )
        self.function = log_density

    @property
    def name(self) -> str:
        """Module and name of the function."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return f"{named.__module__}:{named.__qualname__}"

    def values(self, x: np.ndarray) -> np.ndarray:
        """Log-densities ``(N,)`` of the rows of x ``(N, D)``. Raises ValueError for another shape or dtype."""
        with np.errstate(all="ignore"):
            return self._checked(self.function(x), x)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-densities ``(N,)`` and their gradients ``(N, D)``, float64."""
        from autograd.core import make_vjp, vspace

        with np.errstate(all="ignore"):
            pull, values = make_vjp(self.function, x)
            values = self._checked(values, x)
            return values, np.asarray(pull(vspace(values).ones()), dtype=np.float64)

    def _checked(self, values: Any, x: np.ndarray) -> np.ndarray:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise _Refusal(f"log_density must return real numbers, got dtype {array.dtype}; {REMEDY}")
        if array.shape != x.shape[:1]:
            raise _Refusal(
                f"log_density must return shape ({len(x)},) for z of shape {x.shape}, one number a row, "
                f"got {array.shape}; sum over axis 1 only"
            )
        return array.astype(np.float64)

    def check(self, x: np.ndarray) -> None:
        """Raises ValueError, in one line, for a function that cannot be used; x ``(N, D)`` are points to try it at."""
        try:
            values = self.values(x)
        except _Refusal:
            raise
        except Exception as error:
            raise ValueError(f"log_density failed ({_told(error)}); it must take z of shape {x.shape}") from error
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            where = f"{len(bad)} of {len(x)} first samples, such as z = {_point(x[bad[0]])}"
            raise ValueError(
                f"log_density is {values[bad[0]]} at {where}; "
                "it must be finite everywhere: move bounded parameters to the whole line by a change of variables"
            )
        if not np.allclose(self.values(x[:1]), values[:1], rtol=1e-6, atol=1e-8):
            raise ValueError("log_density of a row changes with the other rows of z; treat each row by itself")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # autograd's, of an output that it cannot trace
                slopes = self(x)[1]
        except Exception as error:
            raise ValueError(f"log_density cannot be differentiated by autograd ({_told(error)}); {REMEDY}") from error
        bad = np.flatnonzero(~np.isfinite(slopes).all(axis=1))
        if len(bad):
            raise ValueError(
                f"the gradient of log_density is not finite at z = {_point(x[bad[0]])}, where its value is; "
                "rewrite what has no derivative there, such as sqrt at 0"
            )
        if not self._follows(x, slopes):
            raise ValueError(
                f"log_density cannot be differentiated by autograd (its gradient is not that of its values); {REMEDY}"
            )

    def _follows(self, x: np.ndarray, slopes: np.ndarray) -> bool:
        """Whether the gradient is that of the values at more than half of the points, by differences along diagonals.

        Half, so that kinks and cliffs do not matter; two widths, for narrow densities and for those in float32.
        """
        along = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
        expected = np.sum(slopes * along, axis=1)
        agrees = np.zeros(len(x), bool)
        for width in (1e-6, 1e-3):
            got = (self.values(x + width * along) - self.values(x - width * along)) / (2 * width)
            agrees |= np.abs(got - expected) <= 1e-2 * (np.abs(got) + np.abs(expected)) + 1e-8
        return bool(np.any(slopes)) and float(np.mean(agrees)) > 0.5


class _Refusal(ValueError):
    """Of what a function returned."""


def _told(error: Exception, length: int = 160) -> str:
    """An error in one line; of a refusal without its remedy."""
    text = str(error).partition(";")[0] if isinstance(error, _Refusal) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def _point(z: np.ndarray, most: int = 5) -> str:
    numbers = [f"{number:.4g}" for number in z[:most]]
    return f"({', '.join([*numbers, '...'] if len(z) > most else numbers)})"
