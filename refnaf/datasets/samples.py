"""Toy data of the plane: samples ``(n, 2)`` of a seed, and the log density that they come from.

>>> from refnaf.datasets import samples
>>> x = samples.moons(1000, seed=0)
>>> x.shape, samples.moons.log_density(x).shape
((1000, 2), (1000,))

Each set is named for the pictures of it in the literature (Duvenaud's pinwheel; scikit-learn's moons and swiss roll;
the grids of Huang et al. 2018; the others as in Grathwohl et al. 2019, *FFJORD*), and defined here so that its density
is known: where the usual recipe has noise of an unknown law, it has round Gaussian noise. The mean of ``-log_density``
over samples is the entropy: no model does better on unseen rows, chance aside. Moons, spirals and roll are integrals
along a curve, right to 1e-9 nats near it (:func:`.mixture.curve_nodes`); the others are closed forms.

``grid`` and ``eight_gaussians`` are the sets of the repository's ``data/``: 10,000 rows of seeds 1 and 2 as float32.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from refnaf.datasets.mixture import Position, circle_log_density, curve_nodes, points_log_density
from refnaf.datasets.plane import columns, radius
from refnaf.reference._numpy import np, value
from refnaf.reference.stable import logsumexp

_BLOCK = 256  # rows whose distances to all the nodes of a curve are in memory together

Array = numpy.ndarray
Draw = Callable[[numpy.random.RandomState, int], Array]


@dataclass(frozen=True)
class SampleSet:
    """A toy distribution: call it with a number of rows and a seed for samples.

    ``name``, and ``about``: what it is, in a sentence.
    """

    name: str
    about: str
    _draw: Draw = field(repr=False)
    _log_density: Callable[[Any], Any] = field(repr=False)

    def __call__(self, n: int, seed: int = 0) -> Array:
        """Draw n rows ``(n, 2)``, float64.

        The same seed gives the same rows, up to rounding, with every release of NumPy: the stream is that of
        ``RandomState``, which is frozen. Raises ValueError for a negative n or a seed outside 0 ... 2^32 - 1.
        """
        n = operator.index(n)
        if n < 0:
            raise ValueError(f"n must be a number of rows, got {n}; give 0 or more")
        return self._draw(numpy.random.RandomState(seed), n)

    def log_density(self, x: Any) -> Any:
        """The log density ``(N,)`` of rows x ``(N, 2)``, in nats; float64, and also for x that autograd traces."""
        if x is not value(x):
            return self._log_density(x)
        rows = numpy.stack(columns(x, name="x"), axis=1).astype(numpy.float64)
        return numpy.concatenate([self._log_density(rows[k : k + _BLOCK]) for k in range(0, max(len(rows), 1), _BLOCK)])


def grid_of_gaussians(side: int = 5, spacing: float = 2.0, sd: float = 0.2) -> SampleSet:
    """A side x side grid of round Gaussians of equal weight, centred on the origin (side = 5 is :data:`grid`).

    Raises ValueError where there is nothing to draw from.
    """
    side = operator.index(side)
    if not (side > 0 and sd > 0 and math.isfinite(spacing)):
        raise ValueError(f"got side={side}, spacing={spacing}, sd={sd}; side and sd must be positive, spacing finite")
    line = (numpy.arange(side) - (side - 1) / 2) * spacing

    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        return line[rng.randint(side, size=(n, 2))] + sd * rng.standard_normal((n, 2))

    def log_density(x: Any) -> Any:
        # a product of two mixtures of the line
        one, two = (logsumexp(-0.5 * ((column - line[:, None]) / sd) ** 2) for column in columns(x, name="x"))
        return one + two - math.log(2 * math.pi * (side * sd) ** 2)

    about = f"{side} x {side} round Gaussians {spacing:g} apart, sd {sd:g}"
    return SampleSet("grid", about, draw, log_density)


def _eight_gaussians() -> SampleSet:
    h = math.sqrt(0.5)
    centres = 4.0 * numpy.array([[1, 0], [h, h], [0, 1], [-h, h], [-1, 0], [-h, -h], [0, -1], [h, -h]])
    sd = 0.5

    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        return centres[rng.randint(8, size=n)] + sd * rng.standard_normal((n, 2))

    def log_density(x: Any) -> Any:
        return points_log_density(x, centres, -math.log(8), sd)

    return SampleSet("eight_gaussians", "eight round Gaussians on the circle of radius 4, sd 0.5", draw, log_density)


def _checkerboard() -> SampleSet:
    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        column, pair = rng.randint(4, size=n), rng.randint(2, size=n)
        square = numpy.stack([column, 2 * pair + column % 2], axis=1)
        return 2 * (square + rng.uniform(size=(n, 2))) - 4

    def log_density(x: Any) -> Any:
        x1, x2 = (value(column) for column in columns(x, name="x"))
        inside = (x1 >= -4) & (x1 < 4) & (x2 >= -4) & (x2 < 4)
        with numpy.errstate(invalid="ignore"):  # infinities lie on no square
            dark = (numpy.floor(x1 / 2) + numpy.floor(x2 / 2)) % 2 == 0
        known = numpy.where(inside & dark, -math.log(32), -numpy.inf)
        return numpy.where(numpy.isnan(x1) | numpy.isnan(x2), numpy.nan, known)

    about = "uniform on the eight dark squares, of side 2, of the board [-4, 4)^2"
    return SampleSet("checkerboard", about, draw, log_density)


def _rings() -> SampleSet:
    circles, sd = numpy.array([0.75, 1.5, 2.25, 3.0]), 0.08

    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        ring, angle = circles[rng.randint(len(circles), size=n)], rng.uniform(0, 2 * math.pi, size=n)
        return _polar(ring, angle) + sd * rng.standard_normal((n, 2))

    def log_density(x: Any) -> Any:
        return logsumexp(np.stack([circle_log_density(x, ring, sd) for ring in circles])) - math.log(len(circles))

    about = "four circles of radius 0.75, 1.5, 2.25 and 3, of equal weight, under round Gaussian noise, sd 0.08"
    return SampleSet("rings", about, draw, log_density)


def _pinwheel() -> SampleSet:
    """A Gaussian off the centre, (1, 0) with a long and a short axis, turned by an angle that grows with the radius.

    Turning each circle about the origin keeps areas, so the density is that of the Gaussian. The usual recipe's angle
    is an exponential function of the first coordinate rather than linear in the radius.
    """
    blades, twist, scale = 5, 0.7, 2.0
    mean, sd = numpy.array([1.0, 0.0]), numpy.array([0.3, 0.1])

    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        blade, w = rng.randint(blades, size=n), mean + sd * rng.standard_normal((n, 2))
        r = numpy.hypot(w[:, 0], w[:, 1])
        return scale * _polar(r, numpy.arctan2(w[:, 1], w[:, 0]) + 2 * math.pi * blade / blades + twist * r)

    def log_density(x: Any) -> Any:
        x1, x2 = (column / scale for column in columns(x, name="x"))
        r = radius(x1, x2)
        parts = []
        for blade in range(blades):
            turn = 2 * math.pi * blade / blades + twist * r
            w1, w2 = x1 * np.cos(turn) + x2 * np.sin(turn), x2 * np.cos(turn) - x1 * np.sin(turn)
            parts.append(-0.5 * (((w1 - mean[0]) / sd[0]) ** 2 + ((w2 - mean[1]) / sd[1]) ** 2))
        return logsumexp(np.stack(parts)) - math.log(blades * 2 * math.pi * sd[0] * sd[1] * scale**2)

    about = "five blades: Gaussians turned about the origin by an angle that grows with the radius"
    return SampleSet("pinwheel", about, draw, log_density)


def _curve(name: str, about: str, position: Position, arms: int, power: int, sd: float) -> SampleSet:
    """Points ``position(s, arm)`` under noise: see :func:`.mixture.curve_nodes`."""
    nodes: list[tuple[Array, Array]] = []  # made when first needed

    def draw(rng: numpy.random.RandomState, n: int) -> Array:
        arm, s = rng.randint(arms, size=n), rng.uniform(size=n) ** (1 / power)
        return position(s, arm) + sd * rng.standard_normal((n, 2))

    def log_density(x: Any) -> Any:
        if not nodes:
            nodes.append(curve_nodes(position, arms, power, sd))
        return points_log_density(x, *nodes[0], sd)

    return SampleSet(name, about, draw, log_density)


def _polar(r: Any, angle: Any) -> Array:
    return numpy.stack([r * numpy.cos(angle), r * numpy.sin(angle)], axis=-1)


def _moon(s: Array, arm: Any) -> Array:
    """Half of the unit circle, or its image turned by half a turn about (0.5, 0.25)."""
    upper = _polar(1.0, math.pi * s)
    return numpy.where(numpy.expand_dims(arm, -1) == 0, upper, numpy.array([1.0, 0.5]) - upper)


def _spiral(s: Array, arm: Any) -> Array:
    """One and a half turns out to radius pi, or the same turned by half a turn."""
    turn = 3 * math.pi * s
    return _polar(turn / 3, math.pi - turn) * numpy.expand_dims(1 - 2 * numpy.asarray(arm), -1)


def _roll(s: Array, arm: Any) -> Array:
    turn = 1.5 * math.pi * (1 + 2 * s)
    return _polar(turn / 5, turn)


grid = grid_of_gaussians()
eight_gaussians = _eight_gaussians()
checkerboard = _checkerboard()
rings = _rings()
pinwheel = _pinwheel()
moons = _curve("moons", "two half circles of radius 1 that interlock, sd 0.1", _moon, arms=2, power=1, sd=0.1)
two_spirals = _curve(
    "two_spirals", "two spirals of one and a half turns, radius to pi, sd 0.1", _spiral, arms=2, power=2, sd=0.1
)
swiss_roll = _curve("swiss_roll", "a spiral of one and a half turns, radius 0.3 pi to 0.9 pi, sd 0.2", _roll, 1, 1, 0.2)

#: The sets by name.
SAMPLE_SETS: dict[str, SampleSet] = {
    one.name: one for one in (eight_gaussians, grid, checkerboard, rings, pinwheel, moons, two_spirals, swiss_roll)
}


def sample_set(name: str) -> SampleSet:
    """The set of a name. Raises ValueError for an unknown name."""
    if name not in SAMPLE_SETS:
        raise ValueError(f"unknown toy set {name!r}; expected one of {', '.join(SAMPLE_SETS)}")
    return SAMPLE_SETS[name]
