"""Checks of the inverse, and of what happens far from the data."""

from __future__ import annotations

import numpy as np

from refnaf.verify import conformance_causes as causes
from refnaf.verify.checks_jacobian import noise, order
from refnaf.verify.conformance_report import FAILED, NOTED, PASSED, Result
from refnaf.verify.conformance_returns import Skip
from refnaf.verify.conformance_subject import Subject

_FAR = (1e3, 1e6)


def _spread_points(subject: Subject, stream: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows about the data, a third of them out to six scales."""
    n = 96
    spread = np.where(np.arange(n) % 3 == 0, 3.0, 1.0)[:, None]
    x = subject.center + spread * np.clip(
        subject.points(n, stream) - subject.center, -2 * subject.scale, 2 * subject.scale
    )
    return subject.rounded(x), subject.contexts(n, stream)


def _distance(a: np.ndarray, b: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """The largest ``|a - b| / (scale + |b|)`` of every row; NaN counts as infinity."""
    return np.nan_to_num(np.max(np.abs(a - b) / (scale + np.abs(b)), axis=1, initial=0), nan=np.inf)


def _returned(subject: Subject, back: np.ndarray, z: np.ndarray, c: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row that inverse has returned for z has that z, as far as the tolerance lets one ask; how far off.

    An error of x within the tolerance, as every solver leaves, may be a large one of z where the map is steep, and of
    later coordinates of x where they depend on it much: as much is allowed as such errors of x make of z.
    """
    back = np.nan_to_num(back)
    image = subject.forward(back, c)[0]
    off = _distance(image, z, 1.0)
    sign = subject.rng(42).choice([-1.0, 1.0], size=back.shape)
    nudged = subject.rounded(back + subject.tolerance * (subject.scale + np.abs(back)) * sign)
    slack = 3 * _distance(subject.forward(nudged, c)[0], image, 1.0)
    return off <= np.where(np.isfinite(slack), slack, 0) + 100 * noise(subject), off


def round_trip(subject: Subject) -> Result:
    """Data to noise and back."""
    x, c = _spread_points(subject, 40)
    z, _ = subject.forward(x, c)
    back, _ = subject.inverse(z, c)
    off = _distance(back, x, subject.scale)
    same, again = _returned(subject, back, z, c)
    lost = (off > subject.tolerance) & ~same
    if not lost.any():
        return Result("round trip", PASSED, float(np.min([off.max(), again.max()])), subject.tolerance, "off by")
    row = int(np.argmax(np.where(lost, off, -1)))
    seen = f"inverse(forward(x)) is off by {off[row]:.3g} (scale + |x|); {lost.sum()} of {len(x)} rows are lost"
    cause = causes.round_trip(subject, x, z, back, c, order(subject))
    where = subject.where(x, c, row)
    return Result("round trip", FAILED, float(off[row]), subject.tolerance, "off by", seen, where, cause)


def round_trip_of_noise(subject: Subject) -> Result:
    """Noise to data and back: every point of the base must have its own x."""
    n = 96
    z, c = subject.noise(n, 41), subject.contexts(n, 41)
    x, _ = subject.inverse(z, c)
    same, off = _returned(subject, x, z, c)
    lost = ~(off <= subject.tolerance) & ~same
    if not lost.any():
        return Result("round trip of noise", PASSED, float(off.max()), subject.tolerance, "off by")
    row = int(np.argmax(np.where(lost, off, -1)))
    seen = f"forward(inverse(z)) is off by {off[row]:.3g} (1 + |z|); {lost.sum()} of {n} rows are lost"
    cause = causes.round_trip_of_noise(z, x, subject.forward(np.nan_to_num(x), c)[0])
    where = subject.where(z, c, row, "z")
    return Result("round trip of noise", FAILED, float(off[row]), subject.tolerance, "off by", seen, where, cause)


def inverse_log_det(subject: Subject) -> Result:
    """The inverse's log-determinant is the forward's at the same point with the other sign."""
    n = 64
    z, c = subject.noise(n, 43), subject.contexts(n, 43)
    x, claimed = subject.inverse(z, c)
    if claimed is None:
        raise Skip("inverse returns x alone")
    _, forward = subject.forward(np.nan_to_num(x), c)
    moved = subject.rounded(x + subject.tolerance * (subject.scale + np.abs(x)))
    slack = 3 * np.abs(subject.forward(np.nan_to_num(moved), c)[1] - forward)
    base = 10 * subject.tolerance
    off = np.abs(claimed + forward)
    lost = ~(off <= base * (1 + np.abs(forward)) + np.where(np.isfinite(slack), slack, 0))
    name = "inverse log-determinant"
    if not lost.any():
        return Result(name, PASSED, float(off.max()), base, "off by")
    row = int(np.argmax(np.where(lost, np.nan_to_num(off, nan=np.inf), -1)))
    seen = (
        f"inverse claims {claimed[row]:.8g} where forward claims {forward[row]:.8g}; {lost.sum()} of {n} rows are off"
    )
    cause = causes.inverse_log_determinant(subject, claimed, forward)
    return Result(name, FAILED, float(off[row]), base, "off by", seen, subject.where(z, c, row, "z"), cause)


def tails(subject: Subject) -> Result:
    """One coordinate after the other at 1e3 and 1e6 scales from the data, to both sides."""
    bases, dim = 3, subject.dim
    start, c = subject.points(bases, 44), subject.contexts(bases, 44)
    pairs = {j: i for i, j in order(subject) or []}
    worst, overflow = 0.0, ""
    for j in range(dim):
        reach = [-sign * r for sign, rs in ((1, reversed(_FAR)), (-1, _FAR)) for r in rs]
        rows = np.repeat(start[:, None], len(reach) + 2, axis=1)
        rows[:, :, j] = subject.center[j] + subject.scale[j] * np.array(
            [reach[0], reach[1], -8.0, 8.0, reach[2], reach[3]]
        )
        flat = subject.rounded(rows.reshape(-1, dim))
        flat_c = None if c is None else np.repeat(c, rows.shape[1], axis=0)
        z, logdet = subject.forward(flat, flat_c)
        nats = subject.log_prob(flat, flat_c)
        near = np.tile(np.array([False, True, True, True, True, False]), bases)
        finite = np.isfinite(z).all(axis=1) & np.isfinite(logdet)
        bad = np.isnan(z).any(axis=1) | np.isnan(logdet) | np.isnan(nats) | (nats == np.inf) | (near & ~finite)
        if bad.any():
            row = int(np.argmax(bad))
            seen = f"z, log-determinant and log p are {z[row]}, {logdet[row]:.6g} and {nats[row]:.6g}"
            return Result("tails", FAILED, detail=seen, where=subject.where(flat, flat_c, row), cause=causes.OVERFLOW)
        if not finite.all():
            overflow = "z or the log-determinant overflows at 1e6 scales, where the density becomes zero"
        if j in pairs:
            own = z[:, pairs[j]].reshape(bases, -1)
            rise = np.diff(own, axis=1) * np.sign(own[:, 3:4] - own[:, 2:3])
            stuck = ~(rise > 0) & np.isfinite(rise)
            if stuck.any():
                b, k = np.argwhere(stuck)[0]
                seen = f"z_{pairs[j]} goes from {own[b, k]:.8g} to {own[b, k + 1]:.8g} as x_{j} goes on"
                where = f"between {subject.where(flat, flat_c, int(b * rows.shape[1] + k))} and the same row with "
                where += f"x_{j} = {rows[b, k + 1, j]:.3g}"
                return Result("tails", FAILED, float(rise[b, k]), 0, "rise", seen, where, causes.CLIPPED)
        if subject.has("inverse"):
            back, _ = subject.inverse(z[finite], None if flat_c is None else flat_c[finite])
            known_c = None if flat_c is None else flat_c[finite]
            off = _distance(back, flat[finite], subject.scale)
            same, again = _returned(subject, back, z[finite], known_c)
            lost = (off > subject.tolerance) & ~same
            worst = max(worst, float(np.minimum(off, again).max(initial=0)))
            if lost.any():
                row = int(np.argmax(np.where(lost, off, -1)))
                seen = f"inverse(forward(x)) is off by {off[row]:.3g} (scale + |x|)"
                where = subject.where(flat[finite], known_c, row)
                cause = causes.solver(subject, back, flat[finite])
                return Result("tails", FAILED, float(off[row]), subject.tolerance, "off by", seen, where, cause)
    if overflow:
        return Result("tails", NOTED, detail=overflow)
    return Result("tails", PASSED, worst, subject.tolerance, "round trip off by")
