"""Checks of the Jacobian: its order, diagonal and determinant, and monotonicity; and how exact the arithmetic is."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.verify import conformance_causes as causes
from refnaf.verify.checks_calls import gap, outputs
from refnaf.verify.conformance_report import FAILED, INCONCLUSIVE, PASSED, Result
from refnaf.verify.conformance_returns import Broken, Inconclusive, Skip
from refnaf.verify.conformance_subject import Subject
from refnaf.verify.derivatives import jacobian, log_determinant, triangular_order

_ENTRIES = 192  # of points times dimensions whose Jacobian is taken


def noise(subject: Subject) -> float:
    """The relative accuracy of z and the log-determinant: how far they are from smooth over tiny steps of x.

    Along a line of 17 points a few square roots of the dtype's epsilon apart, every smooth function is a parabola to
    rounding; the median over points and outputs of the distance from it, relative to ``1 + |value|``.
    """
    if "noise" not in subject.cache:
        n, steps = 16, np.arange(-8, 9)
        x, c = subject.points(n, 30), subject.contexts(n, 30)
        direction = subject.rng(31).choice([-1.0, 1.0], size=(n, subject.dim)) * subject.scale
        line = subject.rounded(x[:, None] + steps[:, None] * (np.sqrt(subject.eps) * direction)[:, None])
        flat_c = None if c is None else np.repeat(c, len(steps), axis=0)
        z, logdet = subject.forward(line.reshape(-1, subject.dim), flat_c)
        values = np.column_stack([z, logdet]).reshape(n, len(steps), -1)
        basis = np.linalg.qr(np.vander(steps / 8.0, 3))[0]
        rest = values - np.einsum("kb,lb,nlo->nko", basis, basis, values)
        rough = np.sqrt(np.mean(rest**2, axis=1)) / (1 + np.abs(values[:, 8]))
        rough = rough[np.isfinite(rough).all(axis=1)]
        level = float(np.max(np.median(rough, axis=0))) if len(rough) else np.inf
        subject.cache["noise"] = max(level, subject.eps)
    return float(subject.cache["noise"])


def measured(subject: Subject) -> dict[str, Any]:
    """Points about the data and out to 20 scales, the flow there, and its numerical Jacobians; computed once."""
    if "jacobian" not in subject.cache:
        n = int(np.clip(_ENTRIES // subject.dim, 6, 24))
        far = n // 3
        spread = np.concatenate([np.ones(n - far), np.geomspace(2.5, 12, far)])[:, None]
        x = subject.rounded(subject.center + spread * (subject.points(n, 32) - subject.center))
        subject.cache["jacobian"] = at(subject, x, subject.contexts(n, 32))
    return subject.cache["jacobian"]  # type: ignore[no-any-return]


def at(subject: Subject, x: np.ndarray, c: np.ndarray | None) -> dict[str, Any]:
    """The flow's own numbers at x beside the numerical ones."""
    z, claimed = subject.forward(x, c)
    length = subject.scale * np.maximum(1, 0.1 * np.abs(x - subject.center) / subject.scale)

    def image(rows: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
        return subject.forward(rows, contexts)[0]

    matrices, errors = jacobian(image, x, c, length, 4 * noise(subject), subject.dtype)
    sign, logdet, bound = log_determinant(matrices, errors)
    found = {"x": x, "c": c, "z": z, "claimed": claimed, "jacobian": matrices, "errors": errors}
    return {**found, "sign": sign, "logdet": logdet, "bound": bound}


def dependencies(subject: Subject) -> np.ndarray:
    """Whether output i moves with input j anywhere, ``(D, D)``."""
    if "depends" not in subject.cache:
        n, dim = 6, subject.dim
        x, c = subject.points(n, 33), subject.contexts(n, 33)
        z = subject.forward(x, c)[0]
        limit = 1e3 * noise(subject) * (1 + np.abs(z))
        moves = np.array([0.6, -0.6, 3.0, -3.0])[:, None, None] * subject.scale * np.eye(dim)
        moved = subject.rounded(x + moves[:, :, None])  # (moves, coordinates, n, D), all in one call
        flat_c = None if c is None else np.tile(c, (moves.shape[0] * dim, 1))
        after = subject.forward(moved.reshape(-1, dim), flat_c)[0].reshape(moved.shape)
        depends = (~(np.abs(after - z) <= limit)).any(axis=(0, 2)).T
        subject.cache["depends"] = depends
    return subject.cache["depends"]  # type: ignore[no-any-return]


def order(subject: Subject) -> list[tuple[int, int]] | None:
    """The pairs (output, input) that make the Jacobian triangular, or None."""
    pairs, left = triangular_order(dependencies(subject))
    return None if left else pairs


def precision(subject: Subject) -> Result:
    """How smooth z and the log-determinant are over tiny steps."""
    limit = 1e-10 if subject.double else 1e-4
    level = noise(subject)
    if level <= limit:
        return Result("precision", PASSED, level, limit, "relative noise")
    if not np.isfinite(level):
        x, c = subject.points(16, 30), subject.contexts(16, 30)
        z, logdet = subject.forward(x, c)
        row = int(np.argmin(np.isfinite(z).all(axis=1) & np.isfinite(logdet)))
        seen = f"z = {z[row]}, log-determinant = {logdet[row]}"
        raise Broken(seen, causes.NOT_FINITE, subject.where(x, c, row))
    seen = (
        f"over steps of {np.sqrt(subject.eps):.0e} scales z or the log-determinant jumps by {level:.2g} (1 + |value|)"
    )
    return Result(
        "precision", FAILED, level, limit, "relative noise", seen, "", causes.precision(level, subject.double)
    )


def float32(subject: Subject) -> Result:
    """The same rows in float32 and in float64."""
    n = 16
    x, c = subject.points(n, 34, 2.0).astype(np.float32), subject.contexts(n, 34)
    c = None if c is None else c.astype(np.float32)
    wide_c = None if c is None else c.astype(np.float64)
    limit, worst, seen = 2e-3, 0.0, ("", "")
    for name in ("forward", "inverse", "log_prob"):
        if not subject.has(name):
            continue
        try:
            got = subject.raw(name, x, c)
        except Broken as error:
            raise Skip(f"{name} does not take float32 beside this flow's numbers ({error.detail})") from error
        narrow = [np.asarray(part, np.float64) for part in (got if isinstance(got, (tuple, list)) else (got,))]
        for a, b in zip(narrow, outputs(subject, name, x.astype(np.float64), wide_c), strict=True):
            off = gap([a], [b])
            if off.max() > worst:
                row = int(off.argmax())
                worst = float(off[row])
                seen = f"{name} differs by {worst:.3g} (1 + |value|)", subject.where(x, c, row)
    if worst <= limit:
        return Result("float32", PASSED, worst, limit, "differs by")
    cause = (
        "a formula that overflows or cancels in float32 (exp of a large number, log(1 - s), a difference of squares)"
    )
    return Result("float32", FAILED, worst, limit, "differs by", *seen, cause)


def triangular(subject: Subject) -> Result:
    """Whether outputs depend on inputs in some order; a failure only where the flow is said to be autoregressive."""
    depends = dependencies(subject)
    pairs, left = triangular_order(depends)
    asked = subject.autoregressive
    if asked is not None and not isinstance(asked, bool):
        place = np.argsort(np.asarray(asked))
        late = [(i, j) for i, j in np.argwhere(depends) if place[j] > place[i]]
        if late:
            i, j = late[0]
            seen = f"z_{i} depends on x_{j}, which comes after x_{i} in the order {list(map(int, asked))}"
            return Result("triangular", FAILED, len(late), 0, "wrong entries", seen, "", causes.MASKS)
    if not left:
        words = ", ".join(f"x_{j}" if i == j else f"x_{j} (z_{i})" for i, j in pairs)
        return Result("triangular", PASSED, detail=f"triangular in the order {words}")
    group = ", ".join(f"x_{j}" for j in left)
    seen = f"dense: no order makes the Jacobian triangular ({group} depend on each other)"
    if not asked:
        note = "dense, as of flows composed with permutations; autoregressive=True makes this a failure"
        return Result("triangular", PASSED, detail=note)
    return Result("triangular", FAILED, len(left), 0, "inputs in a cycle", seen, "", causes.MASKS)


def diagonal(subject: Subject) -> Result:
    """Every diagonal entry has one sign; it is positive if the flow is said to be autoregressive.

    Dense: the determinant has one sign, since that of an invertible smooth map cannot change.
    """
    found, pairs = measured(subject), order(subject)
    if pairs is None:
        known = np.isfinite(found["bound"]) & (found["bound"] < 0.3)
        signs = found["sign"][known]
        if len(signs) == 0:
            raise Inconclusive("the numerical Jacobian is too inexact for its sign")
        if np.all(signs == signs[0]):
            return Result("positive diagonal", PASSED, detail="dense: the determinant has one sign everywhere")
        row = int(np.flatnonzero(known)[np.argmax(signs != signs[0])])
        seen = "dense: the determinant of the Jacobian changes its sign, so that the map folds"
        where = subject.where(found["x"], found["c"], row)
        return Result("positive diagonal", FAILED, detail=seen, where=where, cause=causes.SLOPES)
    least, backwards = np.inf, []
    for i, j in pairs:
        entries, errors = found["jacobian"][:, i, j], found["errors"][:, i, j]
        sure = np.isfinite(errors) & (errors < 0.3 * np.abs(entries))
        if not sure.any():
            continue
        signs = np.sign(entries[sure])
        least = min(least, float(entries[sure].min()))
        if np.all(signs < 0):
            backwards.append(i)
        elif np.any(signs < 0):
            row = int(np.flatnonzero(sure)[np.argmin(entries[sure])])
            seen = f"dz_{i}/dx_{j} is positive at some points and {entries[row]:.3g} at another: the map folds"
            where = subject.where(found["x"], found["c"], row)
            return Result("positive diagonal", FAILED, least, 0, "least entry", seen, where, causes.SLOPES)
    if backwards and subject.autoregressive:
        seen = f"z_{backwards[0]} falls as its own coordinate rises, everywhere"
        return Result("positive diagonal", FAILED, least, 0, "least entry", seen, "", causes.SLOPES)
    if not np.isfinite(least):
        raise Inconclusive("no diagonal entry could be measured")
    note = f"z_{backwards[0]} falls everywhere: a reflection" if backwards else ""
    return Result("positive diagonal", PASSED, least, None, "least entry", note)


def log_det(subject: Subject) -> Result:
    """The claimed log-determinant against the numerical one. Points that disagree must do so nearby as well: a kink of
    the network within the smallest step must not count."""
    found = measured(subject)
    base = 1e-6 if subject.double else 2e-3
    off, limit = _off(found, base)
    usable = found["bound"] < 1e-2 if subject.double else found["bound"] < 0.3
    usable &= np.isfinite(found["logdet"])
    if not usable.any():
        if noise(subject) > 1e-7:
            raise Inconclusive("the flow is too noisy for differences (see precision)")
        raise Inconclusive("the numerical Jacobian is too inexact everywhere")
    suspects = np.flatnonzero(usable & ~(off <= limit)).tolist()
    bad = [n for n in suspects if _confirmed(subject, found, n, base)]
    beyond = np.maximum(off - 10 * found["bound"], 0) / (1 + np.abs(found["logdet"]))
    if not bad:
        return Result("log-determinant", PASSED, float(beyond[usable].max()), base, "off by", f"{usable.sum()} points")
    subject.cache["wrong log-determinant"] = True
    row = max(bad, key=lambda n: off[n] if np.isfinite(off[n]) else np.inf)
    seen = f"claims {found['claimed'][row]:.8g}, the numerical Jacobian's is {found['logdet'][row]:.8g}"
    seen += f" (to {found['bound'][row]:.1g}); {len(bad)} of {usable.sum()} points are off"
    cause = causes.log_determinant(subject, {k: v[usable] for k, v in found.items() if v is not None}, order(subject))
    where = subject.where(found["x"], found["c"], row)
    return Result("log-determinant", FAILED, float(off[row]), base, "off by", seen, where, cause)


def _off(found: dict[str, Any], base: float) -> tuple[np.ndarray, np.ndarray]:
    off = np.abs(found["claimed"] - found["logdet"])
    return off, base * (1 + np.abs(found["logdet"])) + 10 * found["bound"]


def _confirmed(subject: Subject, found: dict[str, Any], n: int, base: float) -> bool:
    moves = 0.02 * subject.scale * subject.rng(35).normal(size=(3, subject.dim))
    x = subject.rounded(found["x"][n] + moves)
    c = None if found["c"] is None else np.repeat(found["c"][n : n + 1], 3, axis=0)
    off, limit = _off(at(subject, x, c), base)
    return int(np.sum(~(off <= limit))) >= 2


def monotone(subject: Subject) -> Result:
    """Along each coordinate, 8 scales to both sides: its output rises (or falls) strictly."""
    pairs = order(subject)
    if pairs is None:
        raise Skip("not triangular: no coordinate has an output of its own")
    bases, ladder = 4, np.linspace(-8, 8, 161)
    x, c = subject.points(bases, 36), subject.contexts(bases, 36)
    flat_c = None if c is None else np.repeat(c, len(ladder), axis=0)
    slack = 20 * noise(subject)
    for i, j in pairs:
        rows = np.repeat(x[:, None], len(ladder), axis=1)
        rows[:, :, j] = subject.rounded(subject.center[j] + subject.scale[j] * ladder)
        flat = rows.reshape(-1, subject.dim)
        z, logdet = subject.forward(flat, flat_c)
        z, logdet = z[:, i].reshape(bases, -1), logdet.reshape(bases, -1)
        rise = np.diff(z, axis=1) * np.sign(np.median(np.diff(z, axis=1)) or 1)
        if not np.isfinite(rise).all():
            return Result("monotone", INCONCLUSIVE, detail="z is not finite within 8 scales of the data")
        # between modes far apart z may rise by less than rounding shows; the log-determinant then says so
        steep = logdet - np.median(logdet, axis=1, keepdims=True) > np.log(subject.eps) / 1.5
        flat_or_wrong = (rise < -slack * (1 + np.abs(z[:, 1:]))) | ((rise == 0) & (steep[:, 1:] | steep[:, :-1]))
        if flat_or_wrong.any():
            b, k = np.unravel_index(int(np.argmin(np.where(flat_or_wrong, rise, np.inf))), rise.shape)
            word = "stays the same" if rise[b, k] == 0 else f"changes by {rise[b, k]:.3g}, the other way,"
            seen = f"z_{i} {word} as x_{j} goes from {rows[b, k, j]:.6g} to {rows[b, k + 1, j]:.6g}"
            cause = causes.CLIPPED if rise[b, k] == 0 else causes.SLOPES
            where = subject.where(rows[b], None if c is None else np.repeat(c[b : b + 1], len(ladder), axis=0), int(k))
            return Result("monotone", FAILED, float(rise[b, k]), 0, "least rise", seen, where, cause)
    return Result("monotone", PASSED, detail="161 steps along each coordinate")
