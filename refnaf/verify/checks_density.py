"""Checks of the density: log p against forward, and that it integrates to one."""

from __future__ import annotations

import numpy as np

from refnaf.flows.chain import base_log_prob
from refnaf.verify import conformance_causes as causes
from refnaf.verify.checks_jacobian import at
from refnaf.verify.conformance_report import FAILED, PASSED, Result
from refnaf.verify.conformance_returns import Broken, Inconclusive, Skip
from refnaf.verify.conformance_subject import Subject
from refnaf.verify.cubature import integrate
from refnaf.verify.proposal import StudentMixture, effective_size

#: Standard errors that the importance-sampling estimate may be off: two-sided 2e-5.
SIGMAS = 4.27
_LEAST_SIZE = 150  # effective number of samples below which importance sampling says nothing
_BUDGET = 120_000
_PROPOSED = 1.3


def log_prob(subject: Subject) -> Result:
    """log p = log N(z; 0, 1) + log-determinant, rows out to six scales."""
    n = 64
    x = np.concatenate([subject.points(n // 2, 50), subject.points(n // 2, 51, 3.0)])
    c = subject.contexts(n, 50)
    nats = subject.log_prob(x, c)
    z, logdet = subject.forward(x, c)
    true = base_log_prob(z.T) + logdet
    base = 1e-9 if subject.double else 1e-4
    off = np.abs(nats - true)
    lost = ~(off <= base * (1 + np.abs(true) + 0.5 * np.sum(z * z, axis=1)))
    if not lost.any():
        return Result("log_prob", PASSED, float(off.max()), base, "off by")
    row = int(np.argmax(np.where(lost, np.nan_to_num(off, nan=np.inf), -1)))
    seen = f"log_prob is {nats[row]:.8g}, base plus log-determinant {true[row]:.8g}; {lost.sum()} of {n} rows are off"
    cause = causes.log_prob(subject, nats, z, logdet)
    return Result("log_prob", FAILED, float(off[row]), base, "off by", seen, subject.where(x, c, row), cause)


def normalisation(subject: Subject) -> Result:
    """The density's integral: adaptive cubature up to two dimensions, importance sampling beyond."""
    if subject.dim <= 2:
        return _by_cubature(subject)
    if subject.has("forward", "inverse"):
        return _by_pushforward(subject)
    return _by_mixture(subject)


def located(subject: Subject, n: int, stream: int, c: np.ndarray | None) -> np.ndarray | None:
    """Rows where the mass should be, by the flow's inverse or its sampling (which then draws its own contexts)."""
    try:
        if subject.has("inverse"):
            x = subject.inverse(subject.noise(n, stream), c)[0]
        else:
            x = subject.sample(n, stream)[0]
    except (Broken, Skip):
        return None
    x = x[np.isfinite(x).all(axis=1)]
    return x if len(x) else None


def _by_cubature(subject: Subject) -> Result:
    """Over x, for two contexts where the flow has one.

    A mass that is wrong must be wrong again with other cells and points, since a narrow ridge may escape one rule.
    """
    contexts = subject.contexts(2, 52)
    results = []
    for c in [None] if contexts is None else [contexts[:1], contexts[1:]]:
        for again in (False, True):
            mass, error = _mass(subject, c, again)
            off = abs(mass - 1) if np.isfinite(mass) else np.inf
            limit = (2e-4 if subject.double else 1e-3) + 10 * error
            if off <= limit:
                break
        seen = f"the density integrates to {mass:.7g} (to {error:.1g}), by cubature"
        if error > 1e-3 and off <= limit:
            if subject.has("forward", "inverse"):
                return _by_pushforward(subject)
            raise Inconclusive(f"{seen}: too rough an integrand for {_BUDGET} evaluations")
        if off > limit:
            where = "" if c is None else f"context = {np.array2string(c[0], precision=6, separator=', ')}"
            return Result("normalisation", FAILED, off, limit, "off by", seen, where, _mass_cause(mass))
        results.append(Result("normalisation", PASSED, off, limit, "off by", seen))
    return max(results, key=lambda result: result.value or 0)


def _mass(subject: Subject, c: np.ndarray | None, again: bool) -> tuple[float, float]:
    """The density's integral and its error bound; ``again`` by shifted, finer cells and more points."""

    def repeated(n: int) -> np.ndarray | None:
        return None if c is None else np.repeat(c, n, axis=0)

    def density(rows: np.ndarray) -> np.ndarray:
        nats = subject.log_prob(rows, repeated(len(rows)))
        lost = np.isnan(nats)
        if np.any(np.abs((rows - subject.center) / subject.scale)[lost] < 1e3):
            raise Broken("log p is NaN", causes.OVERFLOW, subject.where(rows, None, int(np.argmax(lost))))
        return np.exp(np.where(lost, -np.inf, nats))

    n = 8000 if again else 2000
    points = located(subject, n, 58 if again else 53, repeated(n))
    center, scale = subject.center, subject.scale
    if points is not None and len(points) > 100:
        low, center, high = np.percentile(points, [10, 50, 90], axis=0)
        scale = np.maximum((high - low) / 2.56, 1e-9 * subject.scale)
    if again:
        return integrate(density, center + 0.37 * scale, 1.37 * scale, points, 4 * _BUDGET, 2e-7)
    return integrate(density, center, scale, points, _BUDGET, 2e-6)


def _mass_cause(mass: float) -> str:
    if not np.isfinite(mass) or mass > 50:
        return "the density does not fall off: a clipped z or a log-determinant that is wrong, perhaps only far out"
    if mass > 1:
        return "too much mass: a log-determinant too large, or a map that folds (more than one x for one z)"
    return "mass is lost: a log-determinant too small, a missing constant, or an image that is not the whole space"


def _by_pushforward(subject: Subject) -> Result:
    """Importance sampling from an inflated base pushed through inverse, its density by numerical Jacobians.

    What forward claims as its log-determinant plays no part in the proposal.
    """
    dim, rng = subject.dim, subject.rng(54)
    n = int(np.clip(1200 // dim, 60, subject.rows))
    wide = rng.random(n) < 0.5
    drawn = subject.rounded(np.where(wide[:, None], _PROPOSED, 1.0) * rng.normal(size=(n, dim)))
    c = subject.contexts(n, 54)
    x = subject.rounded(subject.inverse(drawn, c)[0])
    if not np.isfinite(x).all():
        raise Inconclusive("inverse returns values that are not finite")
    nats = subject.log_prob(x, c)
    if np.isnan(nats).any():
        raise Broken("log p is NaN", causes.OVERFLOW, subject.where(x, c, int(np.argmax(np.isnan(nats)))))
    found = at(subject, x, c)
    known = found["bound"] < (1e-3 if subject.double else 0.05)
    if known.mean() < 0.8:
        raise Inconclusive("the numerical Jacobian is too inexact for a proposal")
    # with v the noise that was drawn, N(v) / q(v) averages to one: only the difference from that has to be sampled;
    # rows whose Jacobian is not known well do not count
    expected = _base_weight(drawn, dim)
    weights = np.exp(nats - base_log_prob(found["z"].T) - found["logdet"]) * _base_weight(found["z"], dim)
    return _weighed(np.where(known, weights, expected), expected, "pushforward", 1e-3 if subject.double else 2e-2)


def _base_weight(z: np.ndarray, dim: int) -> np.ndarray:
    """N(z; 0, 1) over the even mixture of N(z; 0, 1) and N(z; 0, 1.3^2); never more than 2."""
    size = np.sum(z * z, axis=1)
    log_ratio = 0.5 * size * (1 - 1 / _PROPOSED**2) - dim * np.log(_PROPOSED)
    return np.asarray(2 * np.exp(-np.logaddexp(0, log_ratio)))


def _by_mixture(subject: Subject) -> Result:
    if subject.context_dim:
        raise Skip("with a context, more than two dimensions need forward and inverse")
    n = subject.rows
    rows = located(subject, n, 55, None)
    if rows is None or len(rows) < n // 2:
        raise Inconclusive("more than two dimensions need inverse or sample, to know where the mass is")
    proposal = StudentMixture(rows, subject.rng(56))
    x = subject.rounded(proposal.sample(4 * n, subject.rng(57)))
    weights = np.exp(subject.log_prob(x, None) - proposal.log_density(x))
    if np.isnan(weights).any():
        raise Broken("log p is NaN where samples fall", causes.OVERFLOW)
    return _weighed(weights, np.ones(len(x)), "mixture", 1e-3)


def _weighed(weights: np.ndarray, expected: np.ndarray, proposal: str, slack: float) -> Result:
    """The verdict on the mean of importance weights, which is the density's integral; ``expected`` averages to one."""
    size = effective_size(weights)
    mass = 1 + float(np.mean(weights - expected))
    error = float(np.std(weights - expected) / np.sqrt(len(weights)))
    seen = f"the density integrates to {mass:.6g} +- {error:.1g}, by importance sampling ({proposal}; "
    seen += f"{size:.0f} effective samples of {len(weights)})"
    if size < min(_LEAST_SIZE, 0.3 * len(weights)) or not np.isfinite(mass):
        raise Inconclusive(f"{seen}: too few")
    off, limit = abs(mass - 1), slack + SIGMAS * error
    if off <= limit:
        return Result("normalisation", PASSED, off, limit, "off by", seen)
    return Result("normalisation", FAILED, off, limit, "off by", seen, cause=_mass_cause(mass))
