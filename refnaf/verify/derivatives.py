"""Numerical Jacobians with error bounds, of functions that may have kinks and are exact only to rounding.

Ridders' extrapolation (C. J. F. Ridders, Advances in Engineering Software 4, 1982): central differences at steps that
shrink by 4 fill a Neville table, and of all its entries that is taken whose estimated error is smallest. A kink of a
piecewise linear network spoils the long steps, rounding the short ones; what remains between them is used, and where
nothing does the error bound says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_LEVELS = 7
_RATIO = 4.0
_FIRST = 0.2  # in units of the data's scale

Map = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def extrapolate(slopes: np.ndarray, rounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The limit of central differences ``(K, ...)`` at steps that shrink by 4, and its error ``(...)``.

    ``rounding`` ``(K, ...)`` is the error of each from rounding alone.
    """
    best = slopes[0].copy()
    error = np.full(best.shape, np.inf)
    row = [slopes[0]]
    for k in range(1, len(slopes)):
        new = [slopes[k]]
        for m in range(1, k + 1):
            factor = _RATIO ** (2 * m)
            new.append((factor * new[m - 1] - row[m - 1]) / (factor - 1))
            estimate = np.maximum(np.abs(new[m] - new[m - 1]), np.abs(new[m] - row[m - 1])) + rounding[k]
            better = estimate < error
            best, error = np.where(better, new[m], best), np.where(better, estimate, error)
        row = new
    return best, np.where(np.isfinite(best), error, np.inf)


def jacobian(
    function: Map, x: np.ndarray, c: np.ndarray | None, step: np.ndarray, noise: float, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """``dz_i/dx_j`` ``(n, D, D)`` at the rows of x ``(n, D)`` and an error bound for every entry.

    ``step`` ``(n, D)`` is the length over which the function varies, ``noise`` its relative accuracy; inputs are
    rounded to ``dtype`` before the step between them is measured.
    """
    n, dim = x.shape
    best, error = np.empty((n, dim, dim)), np.empty((n, dim, dim))
    block = max(1, (1 << 14) // (2 * _LEVELS * dim))
    for start in range(0, n, block):
        part = slice(start, start + block)
        best[part], error[part] = _block(function, x[part], None if c is None else c[part], step[part], noise, dtype)
    return best, error


def _block(
    function: Map, x: np.ndarray, c: np.ndarray | None, step: np.ndarray, noise: float, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    n, dim = x.shape
    lengths = _FIRST * _RATIO ** -np.arange(_LEVELS)
    moved = np.tile(x, (_LEVELS, 2, dim, 1, 1)).reshape(_LEVELS, 2, dim, n, dim)
    for j in range(dim):
        for side, sign in enumerate((1, -1)):
            moved[:, side, j, :, j] += sign * lengths[:, None] * step[:, j]
    moved = moved.astype(dtype).astype(np.float64)
    flat_c = None if c is None else np.tile(c, (_LEVELS * 2 * dim, 1))
    z = function(moved.reshape(-1, dim), flat_c).reshape(_LEVELS, 2, dim, n, dim)
    width = np.stack([moved[:, 0, j, :, j] - moved[:, 1, j, :, j] for j in range(dim)], axis=1)[..., None]
    slopes = (z[:, 0] - z[:, 1]) / width
    rounding = noise * (1 + np.abs(z).max(axis=1)) / width
    best, error = extrapolate(slopes, rounding)  # (dim_j, n, dim_i)
    return best.transpose(1, 2, 0), error.transpose(1, 2, 0)


def log_determinant(jacobians: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sign and logarithm of the determinants ``(n,)``, and a bound for the logarithm's error to first order."""
    sign, logdet = np.full(len(jacobians), np.nan), np.full(len(jacobians), np.nan)
    bound = np.full(len(jacobians), np.inf)
    for n, (matrix, error) in enumerate(zip(jacobians, errors, strict=True)):
        if np.isfinite(matrix).all() and np.isfinite(error).all():
            sign[n], logdet[n] = np.linalg.slogdet(matrix)
            if sign[n]:
                bound[n] = np.sum(np.abs(np.linalg.inv(matrix)).T * error)
    return sign, logdet, bound


def triangular_order(depends: np.ndarray) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs (output, input) in an order in which each output depends on its own input and earlier ones only.

    ``depends[i, j]`` says whether output i moves with input j. Returns the pairs found, and the inputs that are left
    where no such order of all exists. A topological sort that needs no matching of outputs to inputs beforehand: an
    output that has one input left must be that input's.
    """
    rows, columns = list(range(len(depends))), list(range(len(depends)))
    pairs = []
    while rows:
        ready = [(i, [j for j in columns if depends[i, j]]) for i in rows]
        free = [(i, found[0]) for i, found in ready if len(found) == 1]
        if not free:
            break
        # of several outputs that wait for the same input the first is taken; the others then have none left
        i, j = min(free, key=lambda pair: (pair[0] != pair[1], pair))
        pairs.append((i, j))
        rows.remove(i)
        columns.remove(j)
    return pairs, columns
