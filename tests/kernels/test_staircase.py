"""Products by blocks of a mask against the dense ones, for masks of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array.staircase import CALL, SAMPLES, Staircase, blocks
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import staircase as compiled
from refnaf.kernels.cpu.staircase_jobs import spans
from refnaf.kernels.cpu.tile import ROWS

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = [(1, 1), (7, 1), (1, 7), (40, 3), (3, 40), (33, 29), (512, 256)]


def _degrees(rng, size, top):
    return np.sort(rng.integers(0, top + 1, size))


def _masks(seed=0):
    """By name: sorted degrees, orders of the inputs, rows of zeros, a few ones anywhere, all, none."""
    rng = np.random.default_rng(seed)
    for rows, columns in SIZES:
        top = int(rng.integers(1, 8))
        out, into = _degrees(rng, rows, top), _degrees(rng, columns, top)
        name = f"{rows}x{columns}"
        yield f"{name}-natural", out[:, None] >= into
        yield f"{name}-strict", out[:, None] > into
        yield f"{name}-reversed", out[:, None] >= into[::-1]
        yield f"{name}-shuffled", rng.permutation(out)[:, None] >= rng.permutation(into)
        gaps = out[:, None] >= into
        gaps[rng.random(rows) < 0.4] = False
        yield f"{name}-gaps", gaps
        yield f"{name}-sparse", rng.random((rows, columns)) < 2 / (rows * columns)
        yield f"{name}-full", np.ones((rows, columns), bool)
        yield f"{name}-empty", np.zeros((rows, columns), bool)
    for rows, columns in [(0, 5), (5, 0), (0, 0)]:
        yield f"{rows}x{columns}", np.ones((rows, columns), bool)


MASKS = dict(_masks())
each_mask = pytest.mark.parametrize("name", MASKS)


class Packed:
    """The compiled one, on packed weights."""

    def __init__(self, mask, dtype):
        self.stairs = compiled.Staircase(mask)
        self.dense = self.stairs.dense

    def product(self, weight, x, out, ws):
        self.stairs.product(self.stairs.pack(weight), x, out, ws)

    def transposed(self, weight, grad, out, ws):
        self.stairs.transposed(self.stairs.pack(weight), grad, out, ws)

    def outer(self, grad, x, out, ws):
        packed = np.zeros(self.stairs.size, out.dtype)
        self.stairs.outer(grad, x, packed, ws)
        out[...] = self.stairs.unpack(packed)
        # not even beside the columns of the matrix
        assert self.stairs.pack(out).tobytes() == packed.tobytes()


KINDS = {
    "numpy": Staircase,
    "numba": lambda mask, dtype: Staircase(mask, dtype).twin(compiled.Staircase),
    "packed": Packed,
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_mask
def test_blocks_cover_the_mask_once_and_cost_no_more_than_the_whole(name):
    mask = MASKS[name]
    covered = np.zeros(mask.shape, int)
    for rows, columns in blocks(mask):
        covered[rows, columns] += 1
        assert mask[rows, columns].any(axis=0)[[0, -1]].all(), "a block is wider than its ones"
    assert (covered <= 1).all()
    assert (covered[mask] == 1).all()
    cost = sum(CALL + SAMPLES * (r.stop - r.start) * (c.stop - c.start) for r, c in blocks(mask))
    assert cost <= CALL + SAMPLES * mask.size


def test_large_staircases_leave_out_most_of_their_zeros():
    degrees = np.arange(512)
    covered = sum((r.stop - r.start) * (c.stop - c.start) for r, c in blocks(degrees[:, None] >= degrees))
    assert covered <= 0.6 * 512 * 512
    assert blocks(np.ones((512, 512), bool)) == [(slice(0, 512), slice(0, 512))]


@each_kind
@each_dtype
@each_mask
@pytest.mark.parametrize("n", [0, 1, 5, 150])
def test_products_are_the_dense_ones(name, n, dtype, kind):
    mask = MASKS[name]
    rng = np.random.default_rng(n)
    weight = (mask * rng.normal(size=mask.shape)).astype(dtype)
    x, grad = rng.normal(size=(mask.shape[1], n)).astype(dtype), rng.normal(size=(mask.shape[0], n)).astype(dtype)
    stairs = KINDS[kind](mask, dtype)
    assert stairs.dense == mask.all()
    ws = Workspace()
    out, below = ws.take(grad.shape, dtype), ws.take(x.shape, dtype)
    # what a buffer held before must not show
    out[...] = below[...] = np.nan
    stairs.product(weight, x, out, ws)
    stairs.transposed(weight, grad, below, ws)
    on_weight = np.zeros(mask.shape, dtype)
    stairs.outer(grad, x, on_weight, ws)
    wide = [a.astype(np.float64) for a in (weight, x, grad)]
    eps = 4 * np.finfo(dtype).eps
    for got, left, right in ((out, wide[0], wide[1]), (below, wide[0].T, wide[2]), (on_weight, wide[2], wide[1].T)):
        bound = eps * np.sqrt(left.shape[1] + 1) * (np.abs(left) @ np.abs(right)) + np.finfo(dtype).tiny
        expected = left @ right
        if got is on_weight:
            expected *= mask
        assert got.dtype == dtype
        assert (np.abs(got - expected) <= bound).all()
    assert (on_weight[~mask] == 0).all()


@each_mask
def test_an_outer_product_writes_nothing_outside_the_blocks(name):
    mask = MASKS[name]
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(mask.shape[1], 4)), rng.normal(size=(mask.shape[0], 4))
    out = np.full(mask.shape, 7.0)
    Staircase(mask, np.float64).outer(grad, x, out, Workspace())
    inside = np.zeros(mask.shape, bool)
    for block in blocks(mask):
        inside[block] = True
    assert (out[~inside] == 7).all()
    assert (out[inside & ~mask] == 0).all()
    np.testing.assert_allclose(out[mask], (grad @ x.T)[mask], rtol=1e-12, atol=1e-14)


@each_dtype
def test_a_mask_of_whole_numbers_is_as_good_as_one_of_bools(dtype):
    mask = MASKS["33x29-natural"]
    x = np.random.default_rng(0).normal(size=(29, 3)).astype(dtype)
    weight = np.where(mask, 1.5, 0).astype(dtype)
    found = []
    for kind in (bool, np.int8, np.float64):
        out = np.empty((33, 3), dtype)
        Staircase(mask.astype(kind), dtype).product(weight, x, out, Workspace())
        found.append(out.tobytes())
    assert len(set(found)) == 1


@each_mask
def test_a_compiled_outer_product_writes_nothing_outside_the_spans_of_its_rows(name):
    mask = MASKS[name]
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(mask.shape[1], 4)), rng.normal(size=(mask.shape[0], 4))
    out = np.full(mask.shape, 7.0)
    compiled.Staircase(mask).outer(grad, x, out, Workspace())
    inside = np.zeros(mask.shape, bool)
    for top, (first, last) in zip(range(0, len(mask), ROWS), spans(mask), strict=True):
        inside[top : top + ROWS, first:last] = True
        some = mask[top : top + ROWS].any(axis=0)
        assert not some.any() or (some[[first, last - 1]].all() and some.sum() == some[first:last].sum())
    assert (out[~inside] == 7).all()
    assert (out[inside & ~mask] == 0).all()
    np.testing.assert_allclose(out[mask], (grad @ x.T)[mask], rtol=1e-12, atol=1e-14)


@each_dtype
@pytest.mark.parametrize("name", ["33x29-natural", "512x256-natural", "512x256-shuffled"])
def test_compiled_products_have_the_same_bits_whatever_is_computed_beside_them(name, dtype):
    mask = MASKS[name]
    rng = np.random.default_rng(0)
    weight = (mask * rng.normal(size=mask.shape)).astype(dtype)
    x = rng.normal(size=(mask.shape[1], 200)).astype(dtype)
    stairs, found = compiled.Staircase(mask), np.empty((len(mask), 200), dtype)
    stairs.product(weight, x, found, Workspace())
    for part in (slice(0, 1), slice(3, 131), slice(190, 200)):
        few = np.ascontiguousarray(x[:, part])
        out = np.empty((len(mask), few.shape[1]), dtype)
        stairs.product(weight, few, out, Workspace())
        assert out.tobytes() == found[:, part].tobytes()


@each_mask
def test_packing_keeps_what_is_inside_the_mask(name):
    mask = MASKS[name]
    stairs = compiled.Staircase(mask)
    weight = np.where(mask, np.random.default_rng(0).normal(size=mask.shape), 0)
    packed = stairs.pack(weight)
    assert packed.shape == (stairs.size,)
    assert stairs.unpack(packed).tobytes() == weight.tobytes()
    assert stairs.pack(stairs.unpack(packed)).tobytes() == packed.tobytes()


def test_a_large_staircase_takes_half_the_memory():
    degrees = np.arange(512)
    stairs = compiled.Staircase(np.repeat(degrees, 4)[:, None] >= degrees)
    assert stairs.size <= 0.53 * 4 * 512 * 512
