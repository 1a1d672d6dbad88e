"""A block of samples of one dimension through the layers of a DDSF, and back.

Everything is flat: rows of ``BLOCK`` samples, of which the last are padding in a block that is not full (any finite
numbers forwards, zeros backwards). ``slots`` has a row for each pseudo-parameter, in its place in theta. Of each layer
and unit, the arrays of a scratch (:func:`block_room`) hold these rows:

    inner   v and v'                                mixed   e^c h, e^c t, e^c
    units   w s(p), w s(-p), w q p', s(p), s(-p)    sums_u  E_U times these
    out     h and t                                 sums_w  E_W times the first three of units: A, B, M

A loop reads from some of these arrays and writes to others: where they are one, a compiler takes the rows to depend on
each other, and makes no vector instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnaf.kernels.cpu.compiler import part, summing
from refnaf.kernels.cpu.elementary import exp_negative, expm1_negative, log, softplus
from refnaf.kernels.cpu.tile import ROWS, VECTORS, lanes, single, whole

#: Samples a block.
BLOCK = 64

#: Places in flat arrays are unsigned: a signed one might be negative and count from the end, which no vector
#: instruction does. These are of rows after the first, and all of a row of three blocks.
_U = np.uint64
_R1, _R2, _R3, _R4 = (_U(k * BLOCK) for k in (1, 2, 3, 4))
_LANES, _THREE = _U(BLOCK), _U(3 * BLOCK)


@part
def _row(index: int) -> Any:
    """Where a row begins."""
    return _U(index * BLOCK)


@part
def _product(matrix: Any, at: int, rows: int, cols: int, source: Any, step: int, out: Any) -> None:
    """``out_i = sum_j matrix_ij source_j`` for vectors of three rows: the source's begin ``step`` rows apart."""
    # three rows of a block are whole tiles, whatever a vector has
    width, apart, size = 3 * BLOCK, step * BLOCK, lanes(out)
    i = 0
    while i + ROWS <= rows:
        for n in range(0, width, VECTORS * size):
            whole(matrix, at + i * cols, cols, 1, source, n, apart, out, i * width + n, width, cols, False, size)
        i += ROWS
    while i < rows:
        for n in range(0, width, size):
            single(matrix, at + i * cols, cols, 1, source, n, apart, out, i * width + n, width, cols, False, size)
        i += 1


@summing
def _dots(left: Any, i0: Any, i1: Any, right: Any, j0: Any, j1: Any, j2: Any, j3: Any, out: Any) -> None:
    """Eight dot products of vectors of three rows: of two with four."""
    zero = left.dtype.type(0)
    a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
    for n in range(_THREE):
        a0 += left[i0 + n] * right[j0 + n]
        a1 += left[i0 + n] * right[j1 + n]
        a2 += left[i0 + n] * right[j2 + n]
        a3 += left[i0 + n] * right[j3 + n]
        b0 += left[i1 + n] * right[j0 + n]
        b1 += left[i1 + n] * right[j1 + n]
        b2 += left[i1 + n] * right[j2 + n]
        b3 += left[i1 + n] * right[j3 + n]
    out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a0, a1, a2, a3, b0, b1, b2, b3


@summing
def _dot(left: Any, i: Any, right: Any, j: Any) -> Any:
    total = left.dtype.type(0)
    for n in range(_THREE):
        total += left[i + n] * right[j + n]
    return total


@part
def _outer(left: Any, rows: int, right: Any, step: int, cols: int, grad: Any, at: int) -> None:
    """Add ``left_i . right_j`` to a matrix of float64."""
    found = np.empty(8, left.dtype)
    even, whole = rows - rows % 2, cols - cols % 4
    for i in range(0, even, 2):
        for j in range(0, whole, 4):
            r0, r1, r2, r3 = _row(j * step), _row((j + 1) * step), _row((j + 2) * step), _row((j + 3) * step)
            _dots(left, _row(3 * i), _row(3 * i + 3), right, r0, r1, r2, r3, found)
            for k in range(8):
                grad[at + (i + k // 4) * cols + j + k % 4] += found[k]
    for i in range(rows):
        for j in range(whole if i < even else 0, cols):
            grad[at + i * cols + j] += _dot(left, _row(3 * i), right, _row(j * step))


@part
def _exponentials(theta: Any, raw: Any, step: Any, m: Any, slots: Any, top: Any, row: int, d: int) -> None:
    """``exp(raw - max)`` of d rows."""
    for j in range(row, row + d):
        at = raw + _U(j) * step
        for n in range(m):
            top[n] = theta[at + n] if j == row or theta[at + n] > top[n] else top[n]
    for j in range(row, row + d):
        at, out = raw + _U(j) * step, _row(j)
        for n in range(m):
            slots[out + n] = exp_negative(theta[at + n] - top[n])


@part
def prepare(theta: Any, raw: Any, step: Any, m: Any, slots: Any, top: Any, d: int, layers: int, offset: Any) -> None:
    """Raw theta, flat, its rows a step apart, to softplus(a), b, ``exp(w - max)`` and ``exp(u - max)``."""
    if m < _LANES:
        slots[:] = slots.dtype.type(1)
    row = 0
    for k in range(layers):
        for j in range(row, row + d):
            at, out = raw + _U(j) * step, _row(j)
            for n in range(m):
                slots[out + n] = softplus(theta[at + n] + offset)
            at, out = raw + _U(j + d) * step, _row(j + d)
            for n in range(m):
                slots[out + n] = theta[at + n]
        _exponentials(theta, raw, step, m, slots, top, row + 2 * d, d)
        if k > 0:
            _exponentials(theta, raw, step, m, slots, top, row + 3 * d, d)
        row += 4 * d if k > 0 else 3 * d


def block_room(dtype: np.dtype, d: int, layers: int) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
    """``slots``; the scratch ``inner, mixed, sums_u, units, sums_w, out``, a row of numbers for each layer; and rows of
    samples for x, y, log dy/dx and the least sum. They come from here: to allocate them would take long to compile."""
    scratch = tuple(np.zeros((layers, rows * d * BLOCK), dtype) for rows in (2, 3, 3, 5, 3, 2))
    return np.ones((4 * layers - 1) * d * BLOCK, dtype), scratch, np.zeros((4, BLOCK), dtype)


def pull_room(dtype: np.dtype, d: int) -> tuple[np.ndarray, ...]:
    """``down, on_sums, back, own`` of :func:`pull_back`."""
    return tuple(np.zeros(rows * d * BLOCK, dtype) for rows in (2, 3, 3, 5))


@part
def evaluate(
    point: Any, slots: Any, e: Any, scratch: Any, y: Any, log_slope: Any, least: Any, d: int, layers: int, floor: Any
) -> None:
    """y, log dy/dx and the least of all sums for a block of x, and everything in the scratch."""
    zero, one = slots.dtype.type(0), slots.dtype.type(1)
    row, at = 0, 0
    for n in range(_LANES):
        least[n] = one
    for k in range(layers):
        inner, mixed, sums_u = scratch[0][k], scratch[1][k], scratch[2][k]
        units, sums_w, out = scratch[3][k], scratch[4][k], scratch[5][k]
        if k == 0:
            for j in range(d):
                v = _row(2 * j)
                for n in range(_LANES):
                    inner[v + n] = point[n]
                    inner[v + _R1 + n] = one
        else:
            below = scratch[5][k - 1]
            for j in range(d):
                s, o, c = _row(3 * j), _row(2 * j), _row(row + 3 * d + j)
                for n in range(_LANES):
                    ec = slots[c + n]
                    mixed[s + n] = ec * below[o + n]
                    mixed[s + _R1 + n] = ec * below[o + _R1 + n]
                    mixed[s + _R2 + n] = ec
            _product(e, at, d, d, mixed, 3, sums_u)
            at += d * d
            for j in range(d):
                v, s = _row(2 * j), _row(3 * j)
                for n in range(_LANES):
                    inverse = one / sums_u[s + _R2 + n]
                    inner[v + n] = sums_u[s + n] * inverse
                    inner[v + _R1 + n] = sums_u[s + _R1 + n] * inverse
        for j in range(d):
            v, u = _row(2 * j), _row(5 * j)
            ra, rb, rw = _row(row + j), _row(row + d + j), _row(row + 2 * d + j)
            for n in range(_LANES):
                a = slots[ra + n] + floor
                p = a * inner[v + n] + slots[rb + n]
                dp = a * inner[v + _R1 + n]
                tail = exp_negative(-abs(p))
                r = one / (one + tail)
                small = tail * r
                plus = r if p >= zero else small
                minus = small if p >= zero else r
                w = slots[rw + n]
                units[u + n] = w * plus
                units[u + _R1 + n] = w * minus
                units[u + _R2 + n] = w * (plus * minus) * dp
                units[u + _R3 + n] = plus
                units[u + _R4 + n] = minus
        outs = 1 if k == layers - 1 else d
        _product(e, at, outs, d, units, 5, sums_w)
        at += outs * d
        for i in range(outs):
            s, o = _row(3 * i), _row(2 * i)
            for n in range(_LANES):
                s_plus, s_minus, mass = sums_w[s + n], sums_w[s + _R1 + n], sums_w[s + _R2 + n]
                low = s_plus if s_plus < s_minus else s_minus
                low = low if low < mass else mass
                # written so that NaN is taken for the least
                least[n] = least[n] if low >= least[n] else low
                # the sums have a common factor, which logarithms taken one by one would turn into a cancellation
                out[o + n] = log(s_plus / s_minus)
                out[o + _R1 + n] = (mass / s_plus) * ((s_plus + s_minus) / s_minus)
        row += 4 * d if k > 0 else 3 * d
    last = scratch[5][layers - 1]
    for n in range(_LANES):
        y[n] = last[n]
        log_slope[n] = log(last[_R1 + n])


@part
def pull_back(
    slots: Any,
    e_t: Any,
    scratch: Any,
    down: Any,
    grad_x: Any,
    grad_e: Any,
    on_sums: Any,
    back: Any,
    own: Any,
    m: Any,
    d: int,
    layers: int,
    floor: Any,
) -> None:
    """Cotangents of y and log dy/dx, in the first two rows of ``down`` (d, 2), to those of x, theta and E.

    That of theta takes the place of ``slots``. Scratch: ``on_sums`` (d, 3), whose padding is zero, ``back`` (d, 3) and
    ``own`` (d, 5), for the cotangents of sums, of what was summed, and of units.
    """
    zero, one = slots.dtype.type(0), slots.dtype.type(1)
    at, row = len(e_t), len(slots) // BLOCK
    for n in range(_LANES):
        grad_x[n] = zero
    for k in range(layers - 1, -1, -1):
        inner, mixed, sums_u = scratch[0][k], scratch[1][k], scratch[2][k]
        units, sums_w = scratch[3][k], scratch[4][k]
        row -= 4 * d if k > 0 else 3 * d
        outs = 1 if k == layers - 1 else d
        at -= outs * d
        for i in range(outs):
            s, up = _row(3 * i), _row(2 * i)
            for n in range(m):
                on_h, on_t = down[up + n], down[up + _R1 + n]
                s_plus, s_minus, mass = sums_w[s + n], sums_w[s + _R1 + n], sums_w[s + _R2 + n]
                shared = on_t / (s_plus + s_minus)
                on_sums[s + n] = (on_h - on_t) / s_plus + shared
                on_sums[s + _R1 + n] = shared - (on_h + on_t) / s_minus
                on_sums[s + _R2 + n] = on_t / mass
        _outer(on_sums, outs, units, 5, d, grad_e, at)
        _product(e_t, at, d, outs, on_sums, 3, back)
        for j in range(d):
            b, u, v = _row(3 * j), _row(5 * j), _row(2 * j)
            ra, rb, rw = _row(row + j), _row(row + d + j), _row(row + 2 * d + j)
            for n in range(_LANES):
                soft, w = slots[ra + n], slots[rw + n]
                a = soft + floor
                plus, minus = units[u + _R3 + n], units[u + _R4 + n]
                dv = inner[v + _R1 + n]
                on_plus, on_minus, on_mass = back[b + n], back[b + _R1 + n], back[b + _R2 + n]
                dp, wq = a * dv, w * (plus * minus)
                on_p = ((minus - plus) * on_mass * dp + (on_plus - on_minus)) * wq
                on_dp = on_mass * wq
                own[u + n] = (on_p * inner[v + n] + on_dp * dv) * -expm1_negative(-soft)
                own[u + _R1 + n] = on_p
                own[u + _R2 + n] = (on_plus * plus + on_minus * minus) * w + on_dp * dp
                own[u + _R3 + n] = on_p * a
                own[u + _R4 + n] = on_dp * a
            for n in range(_LANES):
                slots[ra + n] = own[u + n]
            for n in range(_LANES):
                slots[rb + n] = own[u + _R1 + n]
            for n in range(_LANES):
                slots[rw + n] = own[u + _R2 + n]
            if k == 0:
                for n in range(_LANES):
                    grad_x[n] += own[u + _R3 + n]
        if k > 0:
            below = scratch[5][k - 1]
            at -= d * d
            for j in range(d):
                s, u, v = _row(3 * j), _row(5 * j), _row(2 * j)
                for n in range(m):
                    inverse = one / sums_u[s + _R2 + n]
                    on_v, on_dv = own[u + _R3 + n] * inverse, own[u + _R4 + n] * inverse
                    on_sums[s + n] = on_v
                    on_sums[s + _R1 + n] = on_dv
                    on_sums[s + _R2 + n] = -(on_v * inner[v + n] + on_dv * inner[v + _R1 + n])
            _outer(on_sums, d, mixed, 3, d, grad_e, at)
            _product(e_t, at, d, d, on_sums, 3, back)
            for j in range(d):
                b, o, c = _row(3 * j), _row(2 * j), _row(row + 3 * d + j)
                for n in range(_LANES):
                    h, t, ec = below[o + n], below[o + _R1 + n], slots[c + n]
                    on_h, on_t, on_one = back[b + n], back[b + _R1 + n], back[b + _R2 + n]
                    slots[c + n] = (on_h * h + on_t * t + on_one) * ec
                    down[o + n] = on_h * ec
                    down[o + _R1 + n] = on_t * ec * t


@part
def brackets(y: Any, m: int, slots: Any, low: Any, high: Any, d: int, layers: int, floor: Any) -> None:
    """An interval for each x with ``ddsf(x) = y``: from the last layer to the first (the reference's ``bracket``)."""
    row = len(slots) // BLOCK
    for n in range(m):
        low[n], high[n] = y[n], y[n]
    for k in range(layers - 1, -1, -1):
        row -= 4 * d if k > 0 else 3 * d
        for n in range(m):
            least, most = math.inf, -math.inf
            for j in range(d):
                a, b = slots[(row + j) * BLOCK + n] + floor, slots[(row + d + j) * BLOCK + n]
                least, most = min(least, (low[n] - b) / a), max(most, (high[n] - b) / a)
            low[n], high[n] = least, most
