"""The posterior of a sine wave's frequency: one dimension, several modes.

The model of Huang, Krueger, Lacoste and Courville (2018, *Neural Autoregressive Flows*, section 6.1), with the
constants of the authors' script ``sf_sinewave.py``:

    y(t) = a sin(2 pi f t + b) + noise,    noise ~ N(0, 0.125),    f ~ U[0, 2],    a = 1, b = 0 known

observed without error at three times, 0, 5/6 and 10/6, on the curve of f = 0.6, where it is zero each time. Only f is
inferred. With the angle ``A = 2 pi f 5/6`` the posterior is proportional to ``exp(-4 (sin^2 A + sin^2 2A))`` on [0, 2]:
four modes of equal height at f = 0, 0.6, 1.2 and 1.8, three of exp(-4) of that height, at 0.3, 0.9 and 1.5, and at the
edge f = 2 it rises to exp(-6) of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy

from refnaf.datasets import quadrature
from refnaf.datasets.plane import columns
from refnaf.reference._numpy import np, value
from refnaf.reference.stable import log_sigmoid, logsumexp, sigmoid

_TOLERANCE = 1e-12
_MOST_PANELS = 2**15


@dataclass(frozen=True)
class SineWave:
    """The posterior of the frequency f given values at some times; the defaults are those of the paper.

    ``times``, ``values``: the observations; ``variance``: of the noise; ``amplitude``, ``phase``: a and b, known;
    ``highest``: the prior is uniform on [0, highest]. Everything in nats and, for f, cycles a unit of time. Raises
    ValueError where the numbers are not a model.
    """

    times: tuple[float, ...] = (0.0, 5 / 6, 10 / 6)
    values: tuple[float, ...] = (0.0, 0.0, 0.0)
    variance: float = 0.125
    amplitude: float = 1.0
    phase: float = 0.0
    highest: float = 2.0

    def __post_init__(self) -> None:
        if len(self.times) != len(self.values):
            raise ValueError(
                f"there are {len(self.times)} times and {len(self.values)} values; give one value for each time"
            )
        numbers = (*self.times, *self.values, self.variance, self.amplitude, self.phase, self.highest)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"the numbers of a sine wave must be finite, got {numbers}; replace inf and NaN")
        if self.variance <= 0 or self.highest <= 0:
            raise ValueError(
                f"variance and highest must be positive, got {self.variance} and {self.highest}; make them so"
            )

    def log_posterior(self, f: Any) -> Any:
        """Log of the unnormalised posterior ``(N,)`` of frequencies f ``(N, 1)``, traced by autograd or not.

        The log likelihood without its constant, 0 at a perfect fit; -inf where the prior is zero.
        """
        (frequency,) = columns(f, 1, "f")
        fit = self._fit(frequency)
        numbers = value(frequency)
        outside = (numbers < 0) | (numbers > self.highest)
        return fit + numpy.where(outside, -numpy.inf, 0).astype(numbers.dtype)

    def log_density(self, f: Any) -> Any:
        """Log of the normalised posterior ``(N,)`` of frequencies f ``(N, 1)``."""
        return self.log_posterior(f) - self.log_normaliser()

    def frequency(self, h: Any) -> Any:
        """The frequencies ``(N, 1)`` in [0, highest] of points h ``(N, 1)`` of the line: ``highest sigmoid(h)``."""
        (line,) = columns(h, 1, "h")
        return np.reshape(self.highest * sigmoid(line), (-1, 1))

    def log_posterior_on_line(self, h: Any) -> Any:
        """As :meth:`log_posterior`, for the density of ``h = logit(f / highest)`` on the whole line, h ``(N, 1)``.

        The target of a flow, whose samples know no bounds; the authors map theirs to the interval in the same way.
        The normaliser is that of f: ``df/dh`` is counted.
        """
        (line,) = columns(h, 1, "h")
        slope = math.log(self.highest) + log_sigmoid(line) + log_sigmoid(-line)
        return self._fit(self.highest * sigmoid(line)) + slope

    def log_normaliser(self) -> float:
        """``log Z``, ``Z`` the integral of ``exp(log_posterior)`` over [0, highest], right to 1e-11 nats or so.

        By a Gauss-Legendre rule of 16 nodes in panels, first of the width over which the residuals can change by one
        standard deviation of the noise, then halved until the answer stays.
        """
        steepest = 2 * math.pi * abs(self.amplitude) * math.hypot(*self.times) / math.sqrt(self.variance)
        panels = min(math.ceil(self.highest * steepest) + 1, _MOST_PANELS)
        coarse, fine = math.inf, self._log_integral(panels)
        while abs(fine - coarse) > _TOLERANCE and panels < _MOST_PANELS:
            panels *= 2
            coarse, fine = fine, self._log_integral(panels)
        return fine

    def _log_integral(self, panels: int) -> float:
        nodes, weights = quadrature.panels(numpy.linspace(0.0, self.highest, panels + 1))
        return float(logsumexp(self._fit(nodes) + numpy.log(weights)))

    def _fit(self, frequency: Any) -> Any:
        """``-sum_i (y(t_i) - y_i)^2 / (2 variance)`` of frequencies ``(N,)``, inside the interval or not."""
        total = 0 * frequency
        for t, y in zip(self.times, self.values, strict=True):
            residual = self.amplitude * np.sin(2 * math.pi * t * frequency + self.phase) - y
            total = total - residual**2 * (0.5 / self.variance)
        return total


#: The paper's experiment.
SINE_WAVE = SineWave()
