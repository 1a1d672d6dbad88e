"""Roots of compiled transformers over wild parameters and far images: no NaN, inside the bracket, to a stated bound.

With eps of the dtype, of a layer ``h = logit(w sigmoid(a v + b))`` the output is off by no more than the largest p is,
since h is a generalised mean of the p: so an error E of its input and the roundings of p and of the softmax make

    E' = max_j(a_j) E + eps max_j(|a_j v| + |b_j|) + eps (1 + |h| + max_j |raw w_j|),

and that at the last layer bounds ``|f(x) - y|`` for a root x as good as its own spacing, ``E_0 = eps |x|``. For a
mixture it is ``eps (1 + |y| + f'(x) (|x| + max |m|) + ...)`` likewise. f is the reference in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array.root import widest
from refnaf.kernels.cpu import ddsf, dsf, mixture
from refnaf.reference import ddsf as reference_ddsf
from refnaf.reference import dsf as reference_dsf
from refnaf.reference import mixture as reference_mixture
from refnaf.reference.stable import slopes

UNITS = 4
SHAPES = [(UNITS, UNITS), (UNITS, UNITS), (1, UNITS)]
SIZES = {"dsf": 3 * UNITS, "ddsf": 7 * UNITS, "mog": 3 * UNITS}
INVERSES = {"dsf": dsf.inverse, "ddsf": ddsf.inverse, "mog": mixture.inverse}
REFERENCES = {"dsf": reference_dsf, "ddsf": reference_ddsf, "mog": reference_mixture}
FORWARDS = {"dsf": reference_dsf.dsf, "ddsf": reference_ddsf.ddsf, "mog": reference_mixture.mog}
#: Multiples of the bound above.
ALLOWED = {"dsf": 4, "ddsf": 4, "mog": 4}
CHUNK = 50_000


def _problems(name, n, dtype, seed):
    """Images of all sizes to 1e30, pseudo-parameters of scale 0.1 to 100, shared matrices."""
    rng = np.random.default_rng(seed)
    theta = (10.0 ** rng.uniform(-1, 2, n) * rng.normal(size=(SIZES[name], n))).astype(dtype)
    y = np.where(rng.random(n) < 0.6, 3 * rng.normal(size=n), 10.0 ** rng.uniform(-30, 30, n))
    y = (rng.choice([-1, 1], n) * y).astype(dtype)
    y[:3] = 0, 1e30, -1e30
    scale = 10.0 ** rng.uniform(-1, 1)
    shared = [(scale * rng.normal(size=shape)).astype(dtype) for shape in SHAPES] if name == "ddsf" else []
    return y, theta, shared


def _bound(name, x, y, theta, shared, log_slope, eps):
    """See above, for the reference's float64 arguments."""
    if name == "mog":
        _, mean, log_scale = reference_mixture.constrain(theta)
        # the exponential of log s has its digits less those of log s
        digits = 1 + np.max(np.abs(log_scale), axis=0) + np.max(np.abs(theta[:UNITS]), axis=0)
        steep = np.exp(log_slope) * (np.abs(x) + np.max(np.abs(mean), axis=0))
        return eps * digits * (1 + np.abs(y) + steep)
    if name == "dsf":
        parts, pairs = [(theta[:UNITS], theta[UNITS : 2 * UNITS], theta[2 * UNITS :], None)], [(None, np.zeros((1, 1)))]
    else:
        parts, pairs = reference_ddsf.split(theta, UNITS, 2), reference_ddsf.pairs(shared)
    error, h = eps * np.abs(x), np.abs(x)
    for (a, b, w, u), (matrix, own) in zip(parts, pairs, strict=True):
        a = slopes(a)
        mixed = 0 if u is None else (np.max(np.abs(u), axis=0) + np.max(np.abs(matrix))) * h
        reach = np.max(a * h + np.abs(b), axis=0)
        error = np.max(a, axis=0) * (error + eps * mixed) + eps * reach
        error = error + eps * (1 + reach + np.max(np.abs(w), axis=0) + np.max(np.abs(own)))
        h = reach
    return error


def _invert(name, n, dtype, seed):
    """Problems that miss the promises, by what they miss; and the worst residual as a part of the bound."""
    y, theta, shared = _problems(name, n, dtype, seed)
    found = INVERSES[name](y, theta, *shared)
    for array in found:
        assert array.shape == (n,) and array.dtype == dtype
        assert np.isfinite(array).all(), f"{name}: {np.sum(~np.isfinite(array))} not finite"
    wide_y, wide, *matrices = (a.astype(np.float64) for a in (y, theta, *shared))
    x = found[0].astype(np.float64)
    eps = float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        value, log_slope = FORWARDS[name](x, wide, *matrices)
        low, high = REFERENCES[name].bracket(wide_y, wide, *matrices)
    # beyond the largest floats nothing is looked for
    farthest = widest(np.dtype(dtype))
    low, high = np.clip(low, -farthest, farthest), np.clip(high, -farthest, farthest)
    assert np.isfinite(value).all()
    # each end is a quotient of a difference, or a sum, of rounded terms
    edge = 64 * eps * _edge(name, wide_y, wide, low, high)
    outside = (x < low - edge) | (x > high + edge)
    assert not outside.any(), f"{name}: {outside.sum()} roots outside their brackets"
    bound = _bound(name, x, wide_y, wide, matrices, log_slope, eps)
    # a root beyond the largest floats has the farthest point in its place, and a residual that says so
    beyond = (np.abs(x) >= 0.99 * farthest) & (np.sign(found[2]) == -np.sign(x))
    assert beyond.mean() < 0.01
    worst = np.max((np.abs(value - wide_y) / bound)[~beyond], initial=0)
    claimed = np.max((np.abs(found[2]) / bound)[~beyond], initial=0)
    assert worst <= ALLOWED[name], f"{name}: |f(x) - y| is {worst:.3g} of its bound"
    assert claimed <= ALLOWED[name], f"{name}: the residual is {claimed:.3g} of its bound"
    return worst


def _edge(name, y, theta, low, high):
    """The size of the terms that a bracket's ends are made of."""
    if name == "mog":
        _, mean, log_scale = reference_mixture.constrain(theta)
        digits = 1 + np.max(np.abs(log_scale), axis=0)
        return digits * np.max(np.abs(mean) + np.exp(log_scale) * np.abs(y), axis=0)
    parts = [(theta[:UNITS], theta[UNITS:], None, None)] if name == "dsf" else reference_ddsf.split(theta, UNITS, 2)
    size = np.abs(y)
    for a, b, _, _ in reversed(parts):
        size = np.max((size + np.abs(b[:UNITS])) / slopes(a), axis=0)
    return size + np.abs(low) + np.abs(high)


each = [pytest.mark.parametrize("name", SIZES), pytest.mark.parametrize("dtype", [np.float32, np.float64])]


@each[0]
@each[1]
def test_twenty_thousand_inversions(name, dtype):
    _invert(name, 20_000, dtype, seed=1)


@pytest.mark.slow
@each[0]
@each[1]
def test_a_million_inversions(name, dtype):
    for seed in range(20):
        _invert(name, CHUNK, dtype, seed=100 + seed)


@each[0]
@each[1]
@pytest.mark.parametrize("n", [0, 1, 127, 129])
def test_few_inversions(name, dtype, n):
    y, theta, shared = _problems(name, 200, dtype, seed=2)
    whole = INVERSES[name](y, theta, *shared)
    part = INVERSES[name](y[:n], theta[:, :n], *shared)
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a, b[:n])
