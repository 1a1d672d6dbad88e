"""Parameters and inputs to measure accuracy on: random, and of every kind known to make formulas fail.

A set is one input and its raw pseudo-parameters. Raw parameters are normal with a standard deviation of 0.1 to 300 (a
slope near 300, weights of exp(-600)); inputs are normal, of any magnitude within the dtype's range, or exact corner
values. On top of that, a set in two is bent to one of:

- ``balanced``   every unit at its centre: ``b = -a x`` rounded, where ``a x + b`` cancels (up to where its rounding
                 alone would decide on which side of its centre a unit is);
- ``opposed``    units in pairs of opposite offsets and equal weights, where ``S+ - S-`` cancels and y is small;
- ``one side``   all offsets large and of one sign, where one of S+ and S- is tiny;
- ``outweighed`` the one unit on the other side has a weight of exp(-40) to exp(-700);
- ``alike``      all units the same;
- ``flat``       every slope at its floor.

A mixture of Gaussians is bent to ``balanced`` (every mean at x, rounded), ``opposed`` (pairs of components on either
side of x), ``one side``, ``outweighed`` (the one component within reach), ``alike``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refnaf.reference import affine, ddsf
from refnaf.reference.stable import slopes

#: Most sets that are drawn together, and share matrices and sizes.
BATCH = 500
#: Decimal exponents of the inputs' magnitudes.
EXPONENTS = {"float64": 300, "float32": 38}


class Object(NamedTuple):
    """What is measured: a transformer, its options, and units and layers, taken in turn."""

    transformer: str
    options: dict[str, Any]
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def bound(self) -> float:
        """What the error of y may be, in units of the last place: 4, or half a unit for each term of a sum of units."""
        return max(4.0, max((d for d, _ in self.sizes), default=1) / 2)


#: By name.
OBJECTS: dict[str, Object] = {
    **{f"affine-{form}": Object("affine", {"form": form}) for form in affine.FORMS},
    "dsf": Object("dsf", {}, ((1, 1), (3, 1), (8, 1))),
    "dsf-16": Object("dsf", {}, ((16, 1),)),
    "ddsf": Object("ddsf", {}, ((4, 2), (1, 2), (3, 3), (6, 2), (4, 1))),
    "ddsf-16": Object("ddsf", {}, ((16, 2),)),
    "mog": Object("mog", {}, ((1, 1), (3, 1), (8, 1))),
}


class Batch(NamedTuple):
    """x ``(n,)``, raw theta ``(P, n)``, shared raw matrices; of one dtype."""

    x: np.ndarray
    theta: np.ndarray
    matrices: list[np.ndarray]


def draw(name: str, samples: int, seed: int, dtype: str) -> Iterator[Batch]:
    """Batches that hold ``samples`` sets of an object. The same arguments give the same sets."""
    rng = np.random.default_rng([seed, sorted(OBJECTS).index(name), list(EXPONENTS).index(dtype)])
    transformer, _, sizes = OBJECTS[name]
    # every size is met, however few the samples
    batch = min(BATCH, -(-samples // max(1, len(sizes))))
    for index, start in enumerate(range(0, samples, batch)):
        n = min(batch, samples - start)
        x = _inputs(rng, n, EXPONENTS[dtype]).astype(dtype)
        spread = 10 ** rng.uniform(-1, 2.5, n)
        matrices: list[np.ndarray] = []
        if not sizes:
            theta = rng.normal(size=(2, n)) * spread
        else:
            d, layers = sizes[index % len(sizes)]
            theta = _mixture(rng, x, spread, d) if transformer == "mog" else _sigmoidal(rng, x, spread, d, layers)
            if transformer == "ddsf":
                matrices = _matrices(rng, d, layers)
        yield Batch(x, theta.astype(dtype), [matrix.astype(dtype) for matrix in matrices])


def _matrices(rng: np.random.Generator, d: int, layers: int) -> list[np.ndarray]:
    scale = rng.choice([0.5, 5.0, 50.0])
    shapes: list[tuple[int, int]] = []
    for k, (below, units, above) in enumerate(ddsf.layer_sizes(d, layers)):
        shapes += [(above, units)] if k == 0 else [(units, below), (above, units)]
    return [rng.normal(scale=scale, size=shape) for shape in shapes]


def _inputs(rng: np.random.Generator, n: int, exponent: int) -> np.ndarray:
    tiny = {300: 2.0**-1022, 38: 2.0**-126}[exponent]
    corners = np.array(
        [0.0, -0.0, 1.0, -1.0, tiny, -tiny, 0.5, 2.0**-52, 1 - 2.0**-53, 10.0**exponent, -(10.0**exponent)]
    )
    sign = rng.choice([-1.0, 1.0], n)
    kinds = [
        rng.normal(size=n) * 3,
        sign * 10 ** rng.uniform(-exponent, exponent, n),
        sign * 10 ** rng.uniform(-9, 9, n),
        rng.choice(corners, n),
    ]
    return np.choose(rng.integers(len(kinds), size=n), kinds)


def _sigmoidal(rng: np.random.Generator, x: np.ndarray, spread: np.ndarray, d: int, layers: int) -> np.ndarray:
    """Raw pseudo-parameters of a DDSF; those of one layer are a DSF's."""
    n = len(x)
    theta = rng.normal(size=(ddsf.parameter_count(d, layers), n)) * spread
    bent = rng.integers(12, size=n)
    # a x + b is then known to 2^-10
    reach = 2.0**-10 / np.finfo(x.dtype).eps
    for a, b, w, u in ddsf.split(theta, d, layers):  # views
        alike = bent == 4
        for part in (a, b, w):
            part[:, alike] = part[:1, alike]
        a[:, bent == 5] = -800
        balanced = bent == 0
        b[:, balanced] = -np.clip(slopes(a[:, balanced]) * x[balanced], -reach, reach)
        opposed, half = bent == 1, d // 2
        for part, turn in ((a, 1), (b, -1), (w, 1)):
            part[half : 2 * half, opposed] = turn * part[:half, opposed]
        one_sided = bent == 2
        b[:, one_sided] = np.where(x[one_sided] < 0, -1, 1) * (np.abs(b[:, one_sided]) + 40)
        outweighed = bent == 3
        b[:, outweighed] = np.abs(b[:, outweighed]) + 20
        b[0, outweighed] *= -1
        w[0, outweighed] = -rng.uniform(40, 700, int(outweighed.sum()))
        if u is not None:
            u[:, alike] = u[:1, alike]
    return theta


def _mixture(rng: np.random.Generator, x: np.ndarray, spread: np.ndarray, k: int) -> np.ndarray:
    """Raw pseudo-parameters of a mixture of Gaussians: logits, means, log-scales, which are bent to within 8."""
    n = len(x)
    theta = rng.normal(size=(3, k, n)) * spread
    w, mean, raw = theta  # views
    bent = rng.integers(10, size=n)
    alike = bent == 4
    for part in theta:
        part[:, alike] = part[:1, alike]
    balanced = bent == 0
    mean[:, balanced] = x[balanced]
    opposed, half = bent == 1, k // 2
    for part, turn in ((w, 1), (mean, -1), (raw, 1)):
        part[half : 2 * half, opposed] = turn * part[:half, opposed]
    mean[:, opposed] += x[opposed]
    one_sided = bent == 2
    mean[:, one_sided] = x[one_sided] + np.where(x[one_sided] < 0, -1, 1) * np.abs(mean[:, one_sided])
    outweighed = bent == 3
    mean[0, outweighed] = x[outweighed]
    w[0, outweighed] = -rng.uniform(40, 700, int(outweighed.sum()))
    return theta.reshape(3 * k, n)
