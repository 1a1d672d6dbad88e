"""Whether forward reaches the whole space: the base's mass outside its image is mass that the density has lost."""

from __future__ import annotations

import numpy as np

from refnaf.verify import conformance_causes as causes
from refnaf.verify.checks_jacobian import order
from refnaf.verify.conformance_report import FAILED, PASSED, Result
from refnaf.verify.conformance_returns import Inconclusive
from refnaf.verify.conformance_subject import Subject

_RADII = 10 ** np.arange(0.5, 8.5, 0.5)  # in scales
_DECADES = 4  # over which |z| must still grow at the end
_BASES = 8
_LIMIT = 1e-8


def image(subject: Subject) -> Result:
    """Out to 1e8 scales.

    Triangular flows: the limits of each output as its own coordinate goes out to both sides. Others: along rays, where
    ``|z|`` must grow without bound (by Hadamard's theorem a local diffeomorphism is onto just then).
    """
    from scipy.special import ndtr
    from scipy.stats import chi2

    dim, pairs = subject.dim, order(subject)
    start, c = subject.points(_BASES, 45), subject.contexts(_BASES, 45)
    lost = np.zeros((dim, _BASES))  # of each output, or of |z| in row 0
    least, where, reached = np.inf, "", False
    rays = _rays(subject, pairs)
    along = _RADII[:, None] * subject.scale * np.stack([ray for ray, _ in rays])[:, None, None]
    every = subject.rounded(start[:, None] + along)  # (rays, bases, radii, D), all in one call
    flat_c = None if c is None else np.tile(np.repeat(c, len(_RADII), axis=0), (len(rays), 1))
    images = subject.forward(every.reshape(-1, dim), flat_c)[0].reshape(every.shape)
    for (_, output), rows, z in zip(rays, every, images, strict=True):
        size = np.linalg.norm(z, axis=2) if output is None else np.abs(z[:, :, output])
        for b in range(_BASES):
            usable = np.flatnonzero(np.isfinite(z[b]).all(axis=1))
            if len(usable) <= 2 * _DECADES:
                continue  # overflows early; the tails check speaks of that
            reached = True
            before, end = size[b, usable[-1 - 2 * _DECADES]], size[b, usable[-1]]
            if end - before > 1e-3 * (1 + end):
                continue  # still growing
            if output is None:
                lost[0, b] = max(lost[0, b], float(chi2.sf(end**2, dim)))
            else:
                lost[output, b] += float(ndtr(-end))
            if end < least:
                least, where = float(end), subject.where(rows[b], None, int(usable[-1]))
    if not reached:
        raise Inconclusive("the flow overflows on every way out")
    mass = float(np.mean(1 - np.prod(1 - np.clip(lost, 0, 1), axis=0)))
    if mass <= _LIMIT:
        note = "" if np.isinf(least) else f"|z| stops at {least:.4g}"
        return Result("image", PASSED, mass, _LIMIT, "mass lost", note)
    kind = "up to" if pairs is None else "about"
    seen = f"|z| stops at {least:.6g} however far x goes: {kind} {mass:.3g} of the base's mass has no x"
    return Result("image", FAILED, mass, _LIMIT, "mass lost", seen, where, causes.BOUNDED)


def _rays(subject: Subject, pairs: list[tuple[int, int]] | None) -> list[tuple[np.ndarray, int | None]]:
    """Directions, and the output that must grow along each; None for all of them together."""
    axes = np.eye(subject.dim)
    if pairs is not None:
        return [(sign * axes[j], i) for i, j in pairs for sign in (1.0, -1.0)]
    random = subject.rng(46).normal(size=(2 * subject.dim + 8, subject.dim))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    return [(ray, None) for ray in np.concatenate([axes, -axes, random])]
