"""Checks of sampling: that what sample draws is what the density says.

Together these tests raise a false alarm in at most :data:`FALSE_ALARM` of runs, by Bonferroni over all that are made.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refnaf.flows.chain import base_log_prob
from refnaf.verify.conformance_report import FAILED, PASSED, Result
from refnaf.verify.conformance_returns import Broken, Inconclusive, Skip
from refnaf.verify.conformance_subject import Subject
from refnaf.verify.proposal import StudentMixture, effective_size

#: The rate of false alarms, a run: of the samples check, and of that of their log p.
FALSE_ALARM = {"samples": 5e-5, "sample log_prob": 2e-5}
_PROJECTIONS = 4


def _normal_tests(z: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """p-values of tests that the rows of z are independent standard normals: columns, projections, length.

    Means and squares have exact distributions; the Kolmogorov-Smirnov tests see what these do not.
    """
    from scipy.stats import chi2, kstest, norm

    n, dim = z.shape
    tests = {}
    for i, column in enumerate(z.T):
        tests[f"z_{i}"] = float(kstest(column, "norm").pvalue)
        tests[f"mean of z_{i}"] = float(2 * norm.sf(np.abs(column.mean()) * np.sqrt(n)))
        square = np.sum(column**2)
        tests[f"variance of z_{i}"] = float(min(1, 2 * min(chi2.cdf(square, n), chi2.sf(square, n))))
    if dim > 1:
        for k, ray in enumerate(rng.normal(size=(_PROJECTIONS, dim))):
            tests[f"projection {k}"] = float(kstest(z @ ray / np.linalg.norm(ray), "norm").pvalue)
        square = np.sum(z * z)
        tests["variance of all"] = float(min(1, 2 * min(chi2.cdf(square, n * dim), chi2.sf(square, n * dim))))
        tests["|z|^2"] = float(kstest(np.sum(z * z, axis=1), chi2(dim).cdf).pvalue)
    return tests


def samples(subject: Subject) -> Result:
    """forward(sample()) is standard normal; or, without forward, moments of sample() are those of the density."""
    n = subject.rows
    x, c = subject.sample(n, 60)
    if not np.isfinite(x).all():
        row = int(np.argmax(~np.isfinite(x).all(axis=1)))
        raise Broken(
            "a sample is not finite", "an inverse that overflows, or log(0) in the base's sampling", f"{x[row]}"
        )
    extremes = np.mean((x == x.min(axis=0)) | (x == x.max(axis=0)), axis=0)
    if subject.double and extremes.max() > 5 / n:
        cause = "samples are clipped, or the noise that they are made from is"
        raise Broken(f"{100 * extremes.max():.2g}% of a column sit on its least or largest value", cause)
    if len(np.unique(x, axis=0)) < n and subject.double:
        count = len(np.unique(x, axis=0))
        cause = "rows are repeated (tiled), rounded, or drawn with few distinct seeds"
        raise Broken(f"only {count} of {n} samples differ", cause)
    if subject.has("forward"):
        return _by_forward(subject, x, c)
    return _by_importance(subject, x)


def _by_forward(subject: Subject, x: np.ndarray, c: np.ndarray | None) -> Result:
    z = subject.forward(x, c)[0]
    if not np.isfinite(z).all():
        raise Broken("forward of a sample is not finite", "a sample outside the domain of forward")
    tests = _normal_tests(z, subject.rng(61))
    if subject.has("inverse"):
        tests |= {f"x_{j} against inverse": p for j, p in enumerate(_two_sample(subject, x))}
    level = FALSE_ALARM["samples"] / len(tests)
    name, least = min(tests.items(), key=lambda item: item[1])
    if least > level:
        note = f"{len(tests)} tests on {len(x)} samples"
        return Result("samples", PASSED, least, level, "least p-value", note)
    seen = (
        f"{name}: p = {least:.2g}; z = forward(sample()) has mean {_short(z.mean(axis=0))}, sd {_short(z.std(axis=0))}"
    )
    where = "sample() against the standard normal" if "against" not in name else "sample() against inverse(normal)"
    return Result("samples", FAILED, least, level, "least p-value", seen, where, _cause(subject, x, z, c))


def _two_sample(subject: Subject, x: np.ndarray) -> list[float]:
    from scipy.stats import ks_2samp

    n = len(x)
    try:
        pushed = subject.inverse(subject.noise(n, 62), subject.contexts(n, 62))[0]
    except (Broken, Skip):
        return []
    if not np.isfinite(pushed).all():
        return []
    return [float(ks_2samp(x[:, j], pushed[:, j], method="asymp").pvalue) for j in range(subject.dim)]


def _short(values: np.ndarray) -> str:
    return np.array2string(values, precision=3, suppress_small=True, threshold=6)


def _looks_normal(subject: Subject, z: np.ndarray) -> bool:
    return bool(np.isfinite(z).all()) and min(_normal_tests(z, subject.rng(63)).values()) > 1e-4


def _cause(subject: Subject, x: np.ndarray, z: np.ndarray, c: np.ndarray | None) -> str:
    """What the samples look like instead."""

    def forward(rows: np.ndarray) -> np.ndarray:
        return subject.forward(subject.rounded(rows), c)[0]

    if _looks_normal(subject, x):
        return "sample returns the base's noise: the inverse is not applied"
    if _looks_normal(subject, z / z.std(axis=0)) and np.ptp(z.std(axis=0)) < 0.1 * z.std():
        words = f"sample draws its noise with standard deviation {z.std():.4g}, where log_prob and forward have 1"
        return f"{words}: a variance for a scale, a temperature left on, or another base"
    spread = z.std(axis=0)
    for low, high in ((0.0, 1.0), (-np.sqrt(3), np.sqrt(3))):
        uniform = np.all(np.abs(spread / (high - low) * np.sqrt(12) - 1) < 0.1)
        if uniform and z.min() > low - 0.02 and z.max() < high + 0.02:
            return "the base's noise is uniform, not normal"
    if subject.dim > 1:
        correlation = np.corrcoef(z, rowvar=False) - np.eye(subject.dim)
        if np.abs(correlation).max() > 0.9:
            return "the coordinates of the noise are copies of each other: one column of noise is used for all"
        for words, rows in (("reversed", x[:, ::-1]), ("rotated by one", np.roll(x, 1, axis=1))):
            if _looks_normal(subject, forward(rows)):
                return f"the columns of the samples are {words}: a permutation is missing or not undone"
    if _affine_copy(subject, x):
        return "every column is a scaled and shifted one of inverse's: the standardisation is not undone (or twice)"
    try:
        if subject.has("inverse") and _looks_normal(subject, subject.inverse(subject.rounded(x), c)[0]):
            return "sample runs forward where it must run inverse"
    except Broken:
        pass
    if np.abs(z.mean(axis=0)).max() < 0.2 and np.abs(z.std(axis=0) - 1).max() < 0.2:
        return "close to the normal, but not it: another base (logistic, Student), or a solver that stops early"
    return "sample and forward do not belong together: an inverse in another order, a stale parameter, a missing layer"


def _affine_copy(subject: Subject, x: np.ndarray) -> bool:
    """Whether the quantiles of the samples' columns are linear in those of inverse's, but other than these."""
    if not subject.has("inverse"):
        return False
    levels = np.arange(10, 91, 5)
    pushed = subject.inverse(subject.noise(len(x), 62), subject.contexts(len(x), 62))[0]
    ours, theirs = np.percentile(x, levels, axis=0), np.percentile(pushed, levels, axis=0)
    moved = False
    for a, b in zip(ours.T, theirs.T, strict=True):
        design = np.column_stack([b, np.ones_like(b)])
        fit = np.linalg.lstsq(design, a, rcond=None)[0]
        if np.abs(design @ fit - a).max() > 0.08 * np.ptp(a):
            return False
        moved |= abs(fit[0] - 1) > 0.15 or abs(fit[1] + (fit[0] - 1) * np.median(b)) > 0.2 * np.ptp(b)
    return moved


def _by_importance(subject: Subject, x: np.ndarray) -> Result:
    """Means and squares of the coordinates, and log p, under the samples and under the density."""
    from scipy.stats import norm

    if not subject.has("log_prob"):
        raise Skip("neither forward nor log_prob was given")
    if subject.context_dim:
        raise Skip("with a context this needs forward")
    half = len(x) // 2
    proposal = StudentMixture(x[:half], subject.rng(64))
    proposed = subject.rounded(proposal.sample(4 * len(x), subject.rng(65)))
    nats = subject.log_prob(proposed, None)
    log_weights = nats - proposal.log_density(proposed)
    if np.isnan(log_weights).any():
        raise Broken("log p is NaN where samples fall")
    weights = np.exp(log_weights - log_weights.max())
    size = effective_size(weights)
    if size < 200:
        raise Inconclusive(f"importance sampling has {size:.0f} effective samples only")
    weights /= weights.sum()
    rest = x[half:]
    own_nats = subject.log_prob(rest, None)
    middle, spread = rest.mean(axis=0), rest.std(axis=0)
    worst, names = 0.0, []
    for name, ours, theirs in _statistics(rest, proposed, own_nats, nats, middle, spread):
        expected = float(weights @ theirs)
        variance = float(np.sum(weights**2 * (theirs - expected) ** 2)) + float(np.var(ours)) / len(ours)
        score = abs(float(np.mean(ours)) - expected) / np.sqrt(variance)
        names.append(name)
        if score > worst:
            worst, seen = score, f"{name}: {np.mean(ours):.4g} over the samples, {expected:.4g} under the density"
    limit = float(norm.isf(FALSE_ALARM["samples"] / 2 / len(names)))
    if worst <= limit:
        return Result("samples", PASSED, worst, limit, "standard errors", f"{size:.0f} effective samples")
    cause = "sample and log_prob are of two distributions: another base or scale, or a layer that is in one only"
    return Result("samples", FAILED, worst, limit, "standard errors", seen, "sample() against log_prob", cause)


def _statistics(
    a: np.ndarray, b: np.ndarray, a_nats: np.ndarray, b_nats: np.ndarray, middle: np.ndarray, spread: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, and values on the rows of a and of b."""
    clip = 6.0  # bounded statistics, whose averages are close to normal
    for j in range(a.shape[1]):
        u, v = (np.clip((rows[:, j] - middle[j]) / spread[j], -clip, clip) for rows in (a, b))
        yield f"mean of x_{j}", u, v
        yield f"square of x_{j}", u * u, v * v
    low, high = np.percentile(a_nats, [1, 99])
    margin = high - low
    yield "log p", *(np.clip(nats, low - margin, high + margin) for nats in (a_nats, b_nats))


def sample_log_prob(subject: Subject) -> Result:
    """log p of the samples is distributed as log p of base noise pushed through inverse; its mean agrees."""
    from scipy.stats import ks_2samp

    if not subject.has("inverse"):
        raise Skip("no inverse was given")
    n = subject.rows
    x, c = subject.sample(n, 66)
    pushed, pushed_c = subject.inverse(subject.noise(n, 67), subject.contexts(n, 67))[0], subject.contexts(n, 67)
    ours, theirs = subject.log_prob(x, c), subject.log_prob(np.nan_to_num(pushed), pushed_c)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise Broken("log p of a sample is not finite", "samples where the density is zero, or overflow")
    p = float(ks_2samp(ours, theirs, method="asymp").pvalue)
    level = FALSE_ALARM["sample log_prob"]
    error = float(np.sqrt((np.var(ours) + np.var(theirs)) / n))
    seen = f"mean log p {ours.mean():.5g} over samples, {theirs.mean():.5g} over inverse(normal), +- {error:.2g}"
    if p > level:
        return Result("sample log_prob", PASSED, p, level, "p-value", seen)
    entropy = base_log_prob(subject.noise(n, 68).T).mean()
    cause = (
        f"sample draws from another distribution (a temperature, another base; the base's own mean is {entropy:.4g})"
    )
    return Result("sample log_prob", FAILED, p, level, "p-value", seen, "sample() against inverse(normal)", cause)
