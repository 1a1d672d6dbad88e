"""The inverse of a block network (:mod:`refnaf.kernels.array.block_inverse`), its root finding compiled.

It goes along the dimensions. What earlier ones add to a dimension's units is a product with rows of the weights, all D
of which together cost about one pass; what is left is a network of one input, whose roots are found a block of samples
at a time, in the first-level cache. Columns whose slopes underflow there are left to the array twin,
and so is everything, in float64, where weights overflow.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from refnaf.kernels.array import block as array
from refnaf.kernels.array import block_inverse as array_inverse
from refnaf.kernels.array.root import monotone_root, widest
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import root
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.block import least_slope, paths, widened
from refnaf.kernels.cpu.block_steps import BLOCK, activated
from refnaf.kernels.cpu.block_weights import weight
from refnaf.kernels.cpu.compiler import kernel, part
from refnaf.kernels.cpu.elementary import log
from refnaf.reference.block import Network

#: Samples whose roots are found together; the units of a layer are filled up with zeros to a multiple of four.
LANES = 64
_U = np.uint64
#: Places in flat arrays are unsigned, as in :mod:`.ddsf_block`.
_ROW, _R1, _R2, _R3 = _U(LANES), _U(LANES), _U(2 * LANES), _U(3 * LANES)


def _filled(units: int) -> int:
    return -(-units // 4) * 4


def inverse(
    y: np.ndarray, context: np.ndarray | None, net: Network, *, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The x with ``block(x) = y``, ``log dx_i/dy_i`` and the residual ``f(x) - y``, each ``(D, N)``.

    Raises ValueError, as the array twin does, where y is outside the image.
    """
    y = plain(y)
    dim, n = y.shape
    mark = ws.mark()
    weights = [weight(raw, gain, dim, net.epsilon, ws) for raw, gain in zip(net.weights, net.gains, strict=True)]
    least = least_slope(weights, y.dtype)
    if not math.isfinite(least):
        ws.release(mark)
        wide = None if context is None else context.astype(np.float64)
        with np.errstate(all="ignore"):
            found = array_inverse.inverse(y.astype(np.float64), wide, widened(net), ws=ws)
            return found[0].astype(y.dtype), found[1].astype(y.dtype), found[2].astype(y.dtype)
    added, mixed = array.shifts(net, context)[0], np.ascontiguousarray(paths(net, dim).T)
    log_mixed = [None if each is None else np.broadcast_to(each, dim) for each in array.mixture_of(net, y.dtype)]
    sizes = np.array([1, *(w.blocks.shape[1] for w in weights)])
    own, slopes, places = _places(sizes, y.dtype)
    edges = np.cumsum([0, *sizes[1:]])
    known, units = ws.take((edges[-1], n), y.dtype), ws.take((edges[-2], n), y.dtype)
    hidden = [ws.take((w.full.shape[1], n), y.dtype) for w in weights]
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    eps, far = float(np.finfo(y.dtype).eps), widest(y.dtype)
    for i in range(dim):
        pairs, parts = [], []
        for k, (w, below) in enumerate(zip(weights, hidden, strict=True)):
            rows, columns = w.blocks.shape[1:]
            here, before = slice(i * rows, (i + 1) * rows), i * columns
            parts.append(known[edges[k] : edges[k + 1]])
            np.dot(w.full[here, :before], below[:before], out=parts[k])
            parts[k] += added[k][here]
            pairs.append((w.full[here, before : before + columns], w.blocks[i : i + 1]))
            for flat, matrix in ((own, pairs[k][0]), (slopes, pairs[k][1][0])):
                flat[places[k]].reshape(-1, _filled(columns) if k else 1)[:rows, :columns] = matrix
        alone = _Alone(pairs, parts, array.Mixed(*(m if m is None else m[i : i + 1] for m in log_mixed)), net.leak)
        low, high = alone.bracket(y[i])
        bad = np.zeros(n, np.bool_)
        out = x[i], log_slope[i], residual[i], units, bad
        _solve(y[i], known, sizes, own, slopes, mixed[i], net.leak, low, high, *out, least, eps, far)
        if bad.any():
            few = np.flatnonzero(bad)
            alone = alone.of(few)
            x[i, few], log_slope[i, few], residual[i, few] = monotone_root(alone, y[i, few], low[few], high[few])
            units[:, few] = np.concatenate(alone.units(x[i, few]))
        hidden[0][i] = x[i]
        for k, below in enumerate(hidden[1:]):
            rows = sizes[k + 1]
            below[i * rows : (i + 1) * rows] = units[edges[k] : edges[k + 1]]
    return x, -log_slope, residual


class _Alone:
    """The network of one dimension, by the array twin."""

    def __init__(self, pairs: list[Any], known: list[np.ndarray], mixed: array.Mixed, leak: float) -> None:
        self.pairs, self.known, self.mixed, self.leak = pairs, known, mixed, leak

    def of(self, columns: np.ndarray) -> _Alone:
        return _Alone(self.pairs, [k[:, columns] for k in self.known], self.mixed, self.leak)

    def __call__(self, x: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values and log-slopes of the columns ``index`` at x."""
        known = [k[:, index] for k in self.known]
        value, log_slope, _ = array.run(x[None], self.pairs, known, self.mixed, self.leak, Workspace())
        return value[0], log_slope[0]

    def units(self, x: np.ndarray) -> list[np.ndarray]:
        """The values of all hidden units at x."""
        return array.run(x[None], self.pairs, self.known, self.mixed, self.leak, Workspace())[2].hidden[1:]

    def bracket(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = array_inverse._bracket(y, [own for own, _ in self.pairs], self.known, self.mixed, self.leak)
        low, high = found or array_inverse._enclosed(self, y)
        return low.astype(y.dtype), high.astype(y.dtype)


def _places(sizes: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """Two vectors of zeros for the matrices of all layers, filled up, one after the other, and where these begin and
    end."""
    lengths = [
        _filled(rows) * (_filled(columns) if k else 1) for k, (columns, rows) in enumerate(itertools.pairwise(sizes))
    ]
    edges = np.cumsum([0, *lengths])
    places = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return np.zeros(edges[-1], dtype), np.zeros(edges[-1], dtype), places


@part
def _times(matrix: Any, at: int, rows: int, columns: int, source: Any, first: int, out: Any) -> None:
    """``out_i = sum_j matrix_ij source_j``, whose rows begin with ``first``; multiples of four of either."""
    zero = out.dtype.type(0)
    for n in range(_U(rows * LANES)):
        out[n] = zero
    for i in range(0, rows, 4):
        o = _U(i * LANES)
        for j in range(0, columns, 4):
            m = at + i * columns + j
            a0, a1, a2, a3 = matrix[m], matrix[m + 1], matrix[m + 2], matrix[m + 3]
            m += columns
            b0, b1, b2, b3 = matrix[m], matrix[m + 1], matrix[m + 2], matrix[m + 3]
            m += columns
            c0, c1, c2, c3 = matrix[m], matrix[m + 1], matrix[m + 2], matrix[m + 3]
            m += columns
            d0, d1, d2, d3 = matrix[m], matrix[m + 1], matrix[m + 2], matrix[m + 3]
            s = _U((first + j) * LANES)
            for n in range(_ROW):
                x0, x1, x2, x3 = source[s + n], source[s + _R1 + n], source[s + _R2 + n], source[s + _R3 + n]
                out[o + n] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[o + _R1 + n] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                out[o + _R2 + n] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                out[o + _R3 + n] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@part
def _evaluate(
    point: Any, slots: Any, sizes: Any, own: Any, slopes: Any, mixed: Any, leak: Any, scratch: Any, results: Any
) -> None:
    """y, its slope and its log-slope, and the size of the terms that y is the sum of: the rows of ``results``, for a
    block of x; and the units' values: the rows of the first array of the scratch, in which those of a layer follow
    those of the layer below, as in ``slots``."""
    values, tangents, z, v, work = scratch
    dtype = slots.dtype.type
    zero = dtype(0)
    at, above, below, columns = 0, 0, 0, 1
    layers = len(sizes) - 1
    for k in range(layers):
        rows = (sizes[k + 1] + 3) // 4 * 4
        if k == 0:
            for j in range(rows):
                r, w, slope = _U(j * LANES), own[j], slopes[j]
                for n in range(_ROW):
                    z[r + n] = w * point[n]
                    v[r + n] = slope
        else:
            _times(own, at, rows, columns, values, below, z)
            _times(slopes, at, rows, columns, tangents, below, v)
        if k == layers - 1:
            for n in range(LANES):
                results[3, n] = abs(slots[above * LANES + n])
            for j in range(columns):
                w = own[at + j]
                for n in range(LANES):
                    size = values[(below + j) * LANES + n] if k > 0 else point[n]
                    results[3, n] += w * abs(size)
        at += rows * columns
        for j in range(rows):
            r, s = _U(j * LANES), _U((above + j) * LANES)
            for n in range(_ROW):
                z[r + n] += slots[s + n]
            if k < layers - 1:
                activated(z[j * LANES : (j + 1) * LANES], zero, leak, work)
                for n in range(_ROW):
                    values[s + n] = work[n]
                for n in range(_ROW):
                    tangents[s + n] = work[_U(BLOCK) + n] * v[r + n]
        below, above, columns = above, above + rows, rows
    scale, straight, by, plus = dtype(mixed[0]), dtype(mixed[1]), dtype(mixed[2]), dtype(mixed[3])
    for n in range(LANES):
        results[0, n] = scale * z[n] + straight * point[n]
        results[1, n] = by * v[n] + plus
        results[3, n] = scale * results[3, n] + abs(straight * point[n])
    for n in range(LANES):
        results[2, n] = log(results[1, n])


@kernel
def _solve(
    y: Any,
    known: Any,
    sizes: Any,
    own: Any,
    slopes: Any,
    mixed: Any,
    leak: float,
    low: Any,
    high: Any,
    x: Any,
    log_slope: Any,
    residual: Any,
    units: Any,
    bad: Any,
    least: float,
    eps: float,
    widest: float,
) -> None:
    """The roots of one dimension and the hidden units' values there; marks those where the slope is not right."""
    dtype = y.dtype.type
    layers, wide, total = len(sizes) - 1, 0, 0
    for k in range(layers):
        rows = (sizes[k + 1] + 3) // 4 * 4
        wide, total = max(wide, rows), total + rows
    slots, values = np.zeros(total * LANES, y.dtype), np.zeros(total * LANES, y.dtype)
    tangents, z = np.zeros(total * LANES, y.dtype), np.zeros(wide * LANES, y.dtype)
    v, work = np.zeros(wide * LANES, y.dtype), np.zeros(3 * BLOCK, y.dtype)
    scratch = values, tangents, z, v, work
    results, state = np.zeros((4, LANES), y.dtype), np.zeros((root.ROWS, LANES), y.dtype)
    for start in range(0, len(y), LANES):
        stop = min(start + LANES, len(y))
        m = stop - start
        row, above = 0, 0
        for k in range(layers):
            for j in range(sizes[k + 1]):
                for n in range(m):
                    slots[(above + j) * LANES + n] = known[row, start + n]
                row += 1
            above += (sizes[k + 1] + 3) // 4 * 4
        ys = y[start:stop]
        for n in range(m):
            state[root.LOW, n], state[root.HIGH, n] = low[start + n], high[start + n]
        root.start(state, ys, m, dtype(eps), dtype(widest))
        left, step = m, 0
        while left > 0 and step < root.ALL_STEPS:
            _evaluate(state[root.POINT], slots, sizes, own, slopes, mixed, dtype(leak), scratch, results)
            left = root.advance(state, ys, results[0], results[2], m, step, dtype(eps))
            for n in range(m):
                # less than the rounding of y's terms: another point is as good
                if state[root.DONE, n] == 0 and abs(results[0, n] - ys[n]) <= dtype(eps) * results[3, n]:
                    state[root.DONE, n] = 1
                    left -= 1
            step += 1
        _evaluate(state[root.ROOT], slots, sizes, own, slopes, mixed, dtype(leak), scratch, results)
        row, above = 0, 0
        for k in range(layers - 1):
            for j in range(sizes[k + 1]):
                for n in range(m):
                    units[row, start + n] = values[(above + j) * LANES + n]
                row += 1
            above += (sizes[k + 1] + 3) // 4 * 4
        for n in range(m):
            x[start + n] = state[root.ROOT, n]
            log_slope[start + n] = state[root.LOG_SLOPE, n]
            residual[start + n] = state[root.RESIDUAL, n]
            # written so that NaN is bad
            good = results[1, n] >= dtype(least) and results[1, n] < math.inf and abs(results[0, n]) < math.inf
            if not good:
                bad[start + n] = True
