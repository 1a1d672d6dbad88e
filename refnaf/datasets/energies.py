"""Toy log densities of the plane for variational inference: those of torchkit, and those of Rezende and Mohamed.

Each takes z ``(N, 2)`` and returns the log of an unnormalised density ``(N,)``, in nats; NumPy arrays, or arrays that
autograd traces, so that ``log_density=energies.u1`` is all that reverse KL needs. With q the flow and
:func:`log_normaliser`,

    KL(q || p) = E_q[log q(z) - u(z)] + log Z,    Z = integral of exp(u(z)) dz

``u1`` ... ``u9`` are the targets of the NAF authors' library (torchkit, ``toy_energy.py``), in its own numbering and
with its sign: log densities, although called energies. ``rezende2`` ... ``rezende4`` are the potentials U2, U3 and U4
of Rezende and Mohamed (2015, *Variational Inference with Normalizing Flows*, table 1), with the sign of a log density
too; U1 is ``u1``. The same numbers do not mean the same targets: torchkit's ``u2`` ... ``u4`` are others, and its
``u5``, ``u6`` and ``u8`` are U2, U3 and U4 with other constants and with tails. Those of the paper have none: they are
ridges along the whole z1 axis and only integrate over a box.

The shapes that they share, of z1 alone:

    ridge(c, s) = -((z2 - c) / s)^2 / 2      wave = sin(pi z1 / 2)      step = 1 / (1 + exp(-(z1 - c) / 0.3))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refnaf.datasets.plane import columns, radius
from refnaf.datasets.quadrature import panels
from refnaf.reference._numpy import np
from refnaf.reference.stable import logsumexp, sigmoid

#: The box of :func:`log_normaliser` is ``|z1|, |z2| <= REACH`` where none is given.
REACH = 32.0
_PANEL = 0.75
_WIDEST = 200.0
_KINKS = (0.0, 4 / 3)  # both coordinates of the tips of the cones at the middle of the rings


def _bump(x: Any, scale: float) -> Any:
    return -0.5 * (x / scale) ** 2


def _wave(z1: Any) -> Any:
    return np.sin(0.5 * math.pi * z1)


def _fork(z1: Any, z2: Any) -> Any:
    """The two ridges of u8 and u9, which part at z1 = 2."""
    w = _wave(z1)
    return np.logaddexp(_bump(z2 - w, 0.4), _bump(z2 - w + 2.5 * sigmoid((z1 - 2) / 0.3), 0.35))


def _oval(z1: Any, z2: Any) -> Any:
    return -((2 - radius(z1, z2 * math.sqrt(0.5))) ** 2)


def u1(z: Any) -> Any:
    """Two arcs of a ring: ``-((|z| - 2) / 0.4)^2 / 2 + log sum_{c = -2, 2} exp(-((z1 - c) / 0.6)^2 / 2)``."""
    z1, z2 = columns(z)
    return _bump(radius(z1, z2) - 2, 0.4) + np.logaddexp(_bump(z1 - 2, 0.6), _bump(z1 + 2, 0.6))


def u2(z: Any) -> Any:
    """A ring of radius ``2 sqrt(2)`` that crosses three bands.

    ``-((|z| / sqrt(2) - 2) / 0.5)^2 / 2 + log(exp(-((z1 - 2) / 0.6)^2 / 2) + exp(-(sin(z1) / 0.5)^2 / 2)
    + exp(-((z1 + z2 + 2.5) / 0.6)^2 / 2))``
    """
    z1, z2 = columns(z)
    bands = np.stack([_bump(z1 - 2, 0.6), _bump(np.sin(z1), 0.5), _bump(z1 + z2 + 2.5, 0.6)])
    return _bump(radius(z1, z2) * math.sqrt(0.5) - 2, 0.5) + logsumexp(bands)


def u3(z: Any) -> Any:
    """An oval ring: ``-(2 - sqrt(z1^2 + z2^2 / 2))^2``."""
    return _oval(*columns(z))


def u4(z: Any) -> Any:
    """Four round Gaussians: ``log sum_k w_k N(2 z; m_k, 1.5 I) + 2.5``.

    The weights are 0.1, 0.3, 0.4 and 0.2, the means (-5, 0), (5, 0), (0, 5) and (0, -5). As in the authors' code, the
    variance in the exponent is 1.5 + 5e-6, that in the factor before it 1.5.
    """
    z1, z2 = columns(z)
    parts = [
        -((2 * z1 - a) ** 2 + (2 * z2 - b) ** 2) / (2 * 1.5 + 1e-5) + math.log(weight / (2 * math.pi * 1.5))
        for weight, a, b in ((0.1, -5, 0), (0.3, 5, 0), (0.4, 0, 5), (0.2, 0, -5))
    ]
    return logsumexp(np.stack(parts)) + 2.5


def u5(z: Any) -> Any:
    """A sine wave: ``ridge(wave, 0.4) - 0.1 z1^2``."""
    z1, z2 = columns(z)
    return _bump(z2 - _wave(z1), 0.4) - 0.1 * z1**2


def u6(z: Any) -> Any:
    """A split wave: ``log(exp ridge(wave, 0.35) + exp ridge(wave - w, 0.35)) - 0.05 z1^2``.

    ``w = 3 exp(-(z1 - 2)^2 / 2)``.
    """
    z1, z2 = columns(z)
    w = _wave(z1)
    split = 3 * np.exp(_bump(z1 - 2, 1))
    return np.logaddexp(_bump(z2 - w, 0.35), _bump(z2 - w + split, 0.35)) - 0.05 * z1**2


def u7(z: Any) -> Any:
    """A split wave: ``log(exp ridge(v, 0.35) + exp ridge(v - w, 0.35)) - 0.1 (z1 - 2)^2``.

    ``v = cos(0.35 pi z1)``, ``w = 2 exp(-0.8 (z1 - 2)^2)``.
    """
    z1, z2 = columns(z)
    v = np.cos(0.35 * math.pi * z1)
    split = 2 * np.exp(-0.8 * (z1 - 2) ** 2)
    return np.logaddexp(_bump(z2 - v, 0.35), _bump(z2 - v + split, 0.35)) - 0.1 * (z1 - 2) ** 2


def u8(z: Any) -> Any:
    """A forked wave and a spot at (2, 2).

    ``log(exp(fork - 0.05 (z1 - 2)^2 - 0.05 (z2 + 3)^2) + exp(-2.5 |z - (2, 2)|^2))`` with ``fork =
    log(exp ridge(wave, 0.4) + exp ridge(wave - 2.5 step, 0.35))`` and the step at 2.
    """
    z1, z2 = columns(z)
    forked = _fork(z1, z2) - 0.05 * ((z1 - 2) ** 2 + (z2 + 3) ** 2)
    return np.logaddexp(forked, -2.5 * ((z1 - 2) ** 2 + (z2 - 2) ** 2))


def u9(z: Any) -> Any:
    """A forked wave and an oval ring about (4/3, 4/3).

    ``log(exp(fork - 0.05 |z|^2) + exp(2 u3(1.5 z - 2))) - 1``, with the fork of :func:`u8`.
    """
    z1, z2 = columns(z)
    forked = _fork(z1, z2) - 0.05 * (z1**2 + z2**2)
    return np.logaddexp(forked, 2 * _oval(1.5 * z1 - 2, 1.5 * z2 - 2)) - 1


def rezende2(z: Any) -> Any:
    """A sine wave without end: ``ridge(wave, 0.4)``."""
    z1, z2 = columns(z)
    return _bump(z2 - _wave(z1), 0.4)


def rezende3(z: Any) -> Any:
    """A split wave without end: ``log(exp ridge(wave, 0.35) + exp ridge(wave - w, 0.35))``.

    ``w = 3 exp(-((z1 - 1) / 0.6)^2 / 2)``.
    """
    z1, z2 = columns(z)
    w = _wave(z1)
    return np.logaddexp(_bump(z2 - w, 0.35), _bump(z2 - w + 3 * np.exp(_bump(z1 - 1, 0.6)), 0.35))


def rezende4(z: Any) -> Any:
    """A forked wave without end: ``log(exp ridge(wave, 0.4) + exp ridge(wave - 3 step, 0.35))``, the step at 1."""
    z1, z2 = columns(z)
    w = _wave(z1)
    return np.logaddexp(_bump(z2 - w, 0.4), _bump(z2 - w + 3 * sigmoid((z1 - 1) / 0.3), 0.35))


_ENDLESS = (rezende2, rezende3, rezende4)

#: The log densities by name.
ENERGIES: dict[str, Callable[[Any], Any]] = {
    function.__name__: function for function in (u1, u2, u3, u4, u5, u6, u7, u8, u9, *_ENDLESS)
}


def energy(name: str) -> Callable[[Any], Any]:
    """The log density of a name, z ``(N, 2)`` to ``(N,)``. Raises ValueError for an unknown name."""
    if name not in ENERGIES:
        raise ValueError(f"unknown energy {name!r}; expected one of {', '.join(ENERGIES)}")
    return ENERGIES[name]


def log_normaliser(name: str, box: Sequence[Sequence[float]] | None = None) -> float:
    """``log Z``, ``Z`` the integral of ``exp(u(z))`` over the plane or a box ``((low1, high1), (low2, high2))``.

    By a Gauss-Legendre rule in panels of width 0.75 at most, 16 nodes each, over ``|z1|, |z2| <= 32`` where no box is
    given: outside it lies less than 1e-13 of the mass of each target that has a finite one. The result is right to
    1e-9 nats, over a box too. Raises ValueError for an unknown name, for a box that is none or wider than 200, and for
    ``rezende2`` ... ``rezende4`` without a box, whose mass is infinite.
    """
    function = energy(name)
    if box is None:
        if function in _ENDLESS:
            raise ValueError(f"{name} has infinite mass; give a box, such as box=((-4, 4), (-4, 4))")
        box = ((-REACH, REACH), (-REACH, REACH))
    bounds = numpy.asarray(box, dtype=numpy.float64)
    if bounds.shape != (2, 2) or not numpy.isfinite(bounds).all() or not (bounds[:, 0] < bounds[:, 1]).all():
        raise ValueError(f"box must be ((low1, high1), (low2, high2)), got {box!r}; give finite numbers, low < high")
    if (numpy.diff(bounds) > _WIDEST).any():
        raise ValueError(f"box must be at most {_WIDEST:g} wide, got {box!r}; take a narrower one about the origin")
    (x, weights_x), (y, weights_y) = (_rule(low, high) for low, high in bounds)
    # a column of the grid at a time: shifted by its own maximum, so that no box is too far out
    logs = numpy.empty(len(x))
    for k, point in enumerate(x):
        logs[k] = logsumexp(function(numpy.stack([numpy.full(len(y), point), y], axis=1)) + numpy.log(weights_y))
    return float(logsumexp(logs + numpy.log(weights_x)))


def _rule(low: float, high: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Nodes and weights over an interval. A kink is an edge of panels, where it does least harm."""
    ends = [low, *(kink for kink in _KINKS if low < kink < high), high]
    spans = [numpy.linspace(a, b, math.ceil((b - a) / _PANEL) + 1) for a, b in itertools.pairwise(ends)]
    return panels(numpy.unique(numpy.concatenate(spans)))
