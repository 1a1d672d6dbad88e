"""From the pattern of an error to what is likely to have caused it, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.chain import base_log_prob
from refnaf.verify.conformance_returns import Broken, Skip
from refnaf.verify.conformance_subject import Subject

MASKS = "a mask: a degree is off by one, >= and > are exchanged, it is transposed or not applied, or orders are mixed"
SLOPES = (
    "a slope or a weight of a monotone network that is not kept positive (no softplus or exp on it); or theta_i "
    "depends on x_i itself (a mask that is off by one)"
)
CLIPPED = "a clipped output (clip or clamp before a logit or an inverse CDF, a saturated sigmoid or tanh)"
BOUNDED = (
    "the last monotone step is bounded (tanh, sigmoid, a clipped logit): make its tails linear, or use a logit that is "
    "not clipped"
)
NOT_FINITE = "the logarithm of a negative number (a slope that is not kept positive), a division by 0, or exp overflows"
SMALL = "an epsilon added within a logarithm or to a slope, a quadrature rule for the map, or constants in float32"
NO_INVERSE = (
    "inverse is not the inverse of this forward: layers in the wrong order, one not inverted, or dimensions in another "
    "order"
)
OVERFLOW = "exp, a power or a logit that overflows or takes log(0), or a difference of infinities: work with logarithms"

_FACTORS = (
    (-1.0, "the sign is wrong: it is the log-determinant of the inverse"),
    (0.0, "it does not change with x: the data-dependent terms are missing"),
    (2.0, "counted twice (or the logarithm of a square, a variance for a scale)"),
    (0.5, "half of it is missing (the logarithm of a square root, a scale for a variance)"),
    (1 / np.log(2), "factor 1/ln 2: in bits, a log2 for log"),
    (np.log(2), "factor ln 2: nats were converted from bits once too often"),
    (1 / np.log(10), "factor 1/ln 10: a log10 for log"),
)


def _same(a: np.ndarray, b: np.ndarray, slack: np.ndarray | float) -> bool:
    return bool(np.all(np.abs(a - b) <= slack))


def _constant(values: np.ndarray, slack: np.ndarray | float) -> float | None:
    """The values' common value, or None."""
    middle = float(np.median(values))
    return middle if _same(values, np.full_like(values, middle), slack) else None


def _offset(subject: Subject, offset: float, slack: float) -> str:
    """What a constant of this size is, for a density in D dimensions."""
    dim, half = subject.dim, 0.5 * float(np.log(2 * np.pi))
    known = [
        (
            dim * half,
            "D/2 log 2 pi, the base's constant: left out of log p, added to a log-determinant, or counted twice",
        ),
        (2 * dim * half, "D log 2 pi: the base's constant with the wrong sign"),
        ((dim - 1) * half, "(D-1)/2 log 2 pi: the base's constant is counted for one dimension only"),
        (half, "1/2 log 2 pi: the base's constant of one dimension"),
        (dim * float(np.log(2)), "D log 2: a factor 2 in every dimension"),
    ]
    for value, words in known:
        if value and abs(abs(offset) - value) <= slack:
            return words
    return "a constant layer (a standardisation or another linear layer) is not counted, or with the wrong sign"


def log_determinant(subject: Subject, found: dict[str, Any], pairs: list[tuple[int, int]] | None) -> str:
    """Of a claimed log-determinant L against the true T at several points."""
    claimed, true = found["claimed"], found["logdet"]
    if not np.isfinite(claimed).all():
        return OVERFLOW
    size = float(np.max(np.abs(claimed - true)))
    # what explains an error must leave much less than that error
    slack = np.minimum((1e-4 if subject.double else 1e-2) * (1 + np.abs(true)), 0.1 * size) + 20 * found["bound"]
    tight = float(np.median(slack))
    varies = np.ptp(true) > 20 * tight
    dim = subject.dim
    factors = [
        *_FACTORS,
        *([(1 / dim, f"factor 1/D = 1/{dim}: averaged over dimensions, not summed")] if dim > 1 else []),
    ]
    for factor, words in factors:
        if _same(claimed, factor * true, slack) and (factor or varies):
            return words
    base = base_log_prob(found["z"].T)
    if _same(claimed, true + base, slack):
        return "the base's log-density is added: forward returns log p, not the log-determinant"
    for got, words in (
        (np.exp(true), "the determinant itself: a log is missing"),
        (np.abs(true), "its absolute value"),
    ):
        if _same(claimed, got, slack * (1 + np.abs(got))) and varies:
            return words
    offset = _constant(claimed - true, slack)
    if offset is not None:
        reason = SMALL if abs(offset) < 1e-3 else _offset(subject, offset, 3 * tight)
        return f"off by the constant {offset:.6g}: {reason}"
    words = _coordinates(found, pairs, slack)
    if words:
        return words
    if size < (1e-3 if subject.double else 0.05):
        return f"a small error (at most {size:.1g}): {SMALL}"
    if varies:
        for factor, text in factors:
            offset = _constant(claimed - factor * true, slack)
            if offset is not None:
                return f"{text} (of all but a constant, {offset:.6g})"
        if _same(np.sort(claimed), np.sort(true), slack.max()):
            return "the right numbers in the wrong rows"
        if _same(claimed, np.clip(true, claimed.min(), claimed.max()), slack):
            return f"clipped to [{claimed.min():.4g}, {claimed.max():.4g}]"
    if pairs is None:
        text = "a layer, or a factor of its derivative, is not counted; or, where each layer should be autoregressive"
        return f"{text}, {MASKS}"
    text = (
        "a layer or a factor of the derivative is not counted, or theta_i depends on x_i itself (a mask that is off by "
    )
    return text + "one: >= for >), which adds to the diagonal what the formula does not know"


def _coordinates(found: dict[str, Any], pairs: list[tuple[int, int]] | None, slack: np.ndarray) -> str:
    """Whether one coordinate's term alone explains the difference, up to a constant."""
    if pairs is None or len(pairs) < 2:
        return ""
    for i, j in pairs:
        log_slope = np.log(np.abs(found["jacobian"][:, i, j]))
        if not np.ptp(log_slope) > 20 * np.median(slack):
            continue
        for factor, words in ((-1, "is missing"), (-2, "has the wrong sign"), (1, "is counted twice")):
            if _constant(found["claimed"] - found["logdet"] - factor * log_slope, slack) is not None:
                return f"the log of the slope dz_{i}/dx_{j} of one coordinate {words}"
    return ""


def log_prob(subject: Subject, nats: np.ndarray, z: np.ndarray, logdet: np.ndarray) -> str:
    """Of log p against the base's log-density plus the log-determinant."""
    if not np.isfinite(nats).all():
        return OVERFLOW
    base = base_log_prob(z.T)
    true, dim = base + logdet, subject.dim
    if subject.double and _same(nats, true, 1e-5 * (1 + np.abs(true))):
        return "a difference of rounding: one of log_prob and forward works in float32"
    slack = (1e-6 if subject.double else 1e-2) * (1 + np.abs(true))
    tight = float(np.median(slack))
    tried = [
        (-true, "the sign is wrong: it is the negative log-likelihood"),
        (base - logdet, "the log-determinant is subtracted, not added"),
        (base, "the log-determinant is not added"),
        (logdet, "the base's log-density is not added"),
        (true / dim, "averaged over dimensions: factor 1/D"),
        (true / np.log(2), "factor 1/ln 2: in bits, not nats"),
        (base + logdet / dim, "the log-determinant is averaged over dimensions"),
        (base / dim + logdet, "the base's log-density is averaged over dimensions"),
        (np.where(true < 700, np.exp(np.minimum(true, 700)), np.inf), "the density itself: a log is missing"),
    ]
    for value, words in tried:
        if _same(nats, value, slack):
            return words
    if np.ptp(nats) <= tight * 0.01 and len(nats) > 1:
        return "all rows have one number: it is summed or averaged over the batch"
    offset = _constant(nats - true, slack)
    if offset is not None:
        return f"off by the constant {offset:.6g}: {_offset(subject, offset, 10 * tight)}"
    rest = nats - logdet
    square = np.sum(z * z, axis=1)
    design = np.column_stack([np.ones_like(square), square])
    constant, slope = np.linalg.lstsq(design, rest, rcond=None)[0]
    if _same(rest, constant + slope * square, 10 * slack) and slope < 0:
        words = (
            f"the base is a normal of variance {-0.5 / slope:.5g}, not 1: z / {np.sqrt(-0.5 / slope):.5g} is standard"
        )
        return words + ", and its log-determinant must be counted"
    for value, words in _other_bases(z):
        if _constant(rest - value, slack) is not None:
            return (
                f"the base is {words}, not the standard normal: map z to a standard normal, and count that map's slope"
            )
    for sign, words in ((1, "not counted twice"), (-1, "")):
        if _constant(nats - base - sign * logdet, slack) is not None:
            return f"log p is not that of this forward: the log-determinant's sign {words}"
    return "log_prob and forward do not belong together: a transformation (standardisation, a layer) is in one only"


def _other_bases(z: np.ndarray) -> list[tuple[np.ndarray, str]]:
    logistic = np.sum(-np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z))), axis=1)
    laplace = -np.sum(np.abs(z), axis=1)
    cauchy = -np.sum(np.log1p(z * z), axis=1)
    words = ("logistic", "Laplace", "Cauchy", "uniform")
    return list(zip((logistic, laplace, cauchy, np.zeros(len(z))), words, strict=True))


def round_trip(
    subject: Subject, x: np.ndarray, z: np.ndarray, back: np.ndarray, c: Any, pairs: list[tuple[int, int]] | None
) -> str:
    """Of inverse(forward(x)) against x."""
    close = 1e-5 if subject.double else 1e-2
    u, v = (x - subject.center) / subject.scale, (back - subject.center) / subject.scale
    right = np.abs(v - u) <= close * (1 + np.abs(u))
    if subject.dim > 1:
        match = [
            [
                bool(np.all(np.abs(back[:, a] - x[:, b]) <= close * (subject.scale[b] + np.abs(x[:, b]))))
                for b in range(subject.dim)
            ]
            for a in range(subject.dim)
        ]
        taken = [row.index(True) if any(row) else -1 for row in match]
        if sorted(taken) == list(range(subject.dim)):
            words = "a permutation is not undone, or undone with itself (argsort is its inverse)"
            return f"the columns come back as {taken}: {words}"
    wide = not np.isfinite(back).all()
    if wide:
        return f"inverse returns values that are not finite; {OVERFLOW}"
    if _tried(lambda: subject.forward(z, c)[0], back, close):
        return "inverse is the forward map once more"
    affine = [_affine(x[:, j], back[:, j], close) for j in range(subject.dim)]
    if all(fit is not None for fit in affine) and not right.all():
        return "x comes back up to a scale and a shift of every column: the standardisation is not undone (or twice)"
    found = _bracket_or_steps(subject, back, x)
    if found:
        return found
    order = [j for _, j in pairs] if pairs else list(range(subject.dim))
    good = [bool(right[:, j].all()) for j in order]
    if good[0] and not all(good):
        first = good.index(False)
        text = f"coordinates are right up to x_{order[first - 1]} and wrong from x_{order[first]} on"
        return f"{text}: later pseudo-parameters are not recomputed from the x found so far, or the passes are too few"
    return NO_INVERSE


def solver(subject: Subject, back: np.ndarray, x: np.ndarray) -> str:
    """Causes in the root finding, from where the rows are lost."""
    return _bracket_or_steps(subject, back, x) or f"{CLIPPED}; a bracket too small; or {OVERFLOW}"


def _bracket_or_steps(subject: Subject, back: np.ndarray, x: np.ndarray) -> str:
    u, v = (x - subject.center) / subject.scale, (back - subject.center) / subject.scale
    off = np.max(np.abs(v - u) / (1 + np.abs(u)), axis=1)
    size = np.max(np.abs(u), axis=1)
    lost = ~(off <= subject.tolerance)
    if not lost.all() and np.abs(back).max() < 0.9 * np.abs(x).max() and size[lost].min() > np.median(size[~lost]):
        reach = f"no |x| beyond {np.abs(back).max():.4g} comes back"
        return f"only rows far out are lost, and {reach}: a bracket that is too small"
    if np.median(off) <= subject.tolerance:
        where = "where the map saturates, overflows or folds, or beyond the solver's bracket"
        return f"{lost.sum()} of {len(x)} rows only: {where}"
    if np.median(off) < 1e-2:
        return f"small errors (median {np.median(off):.1g}): a root finder with too few steps or too loose a tolerance"
    return ""


def round_trip_of_noise(z: np.ndarray, x: np.ndarray, again: np.ndarray) -> str:
    """Of forward(inverse(z)) against z."""
    if not np.isfinite(x).all():
        return f"inverse returns values that are not finite; {OVERFLOW}"
    limit = np.abs(again).max()
    lost = ~(np.max(np.abs(again - z), axis=1) <= 1e-3 * (1 + np.abs(z).max(axis=1)))
    if not lost.all() and np.all(np.abs(z[lost]).max(axis=1) > 0.99 * limit):
        return f"z beyond {limit:.4g} is not reached: {BOUNDED}"
    return (
        "see the round trip of x; if that one passes, noise has no x (a bounded image) or the bracket does not reach it"
    )


def inverse_log_determinant(subject: Subject, claimed: np.ndarray, forward: np.ndarray) -> str:
    """Of the inverse's log-determinant against the negative of forward's at the same points."""
    if subject.cache.get("wrong log-determinant"):
        return "forward's own log-determinant is wrong (see there); the inverse's may be right"
    slack = 1e-4 * (1 + np.abs(forward)) if subject.double else 1e-2 * (1 + np.abs(forward))
    if _same(claimed, forward, slack):
        return "the sign is wrong: it is that of forward; the inverse's is its negative"
    offset = _constant(claimed + forward, slack)
    if offset is not None:
        return f"off by the constant {offset:.6g}: {_offset(subject, offset, 3 * float(np.median(slack)))}"
    offset = _constant(claimed - forward, slack)
    if offset is not None:
        return f"the sign is wrong, for all but a constant ({offset:.6g})"
    return "taken at another point than the x returned (before the last step, or at z), or a layer is not counted"


def precision(level: float, double: bool) -> str:
    """Of noise of this relative size."""
    if double and 1e-9 < level < 1e-6:
        return "float32 leak: an array, a constant or a parameter within is float32"
    return "a root finder with a loose tolerance, random noise, or arithmetic in a narrower dtype"


def _affine(a: np.ndarray, b: np.ndarray, close: float) -> tuple[float, float] | None:
    slope, constant = np.linalg.lstsq(np.column_stack([a, np.ones_like(a)]), b, rcond=None)[0]
    return (slope, constant) if _same(b, slope * a + constant, close * (1 + np.abs(b))) else None


def _tried(function: Any, expected: np.ndarray, close: float) -> bool:
    try:
        return _same(function(), expected, close * (1 + np.abs(expected)))
    except (Broken, Skip):
        return False
