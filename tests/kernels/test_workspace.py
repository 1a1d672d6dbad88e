"""Buffers that are handed out again, and work in halves."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.kernels.array.workspace import SHARED, Workspace, split
from refnaf.parallel import Workers


def test_the_same_buffers_come_again():
    ws = Workspace()
    first = ws.take((3, 4), np.float32)
    mark = ws.mark()
    second = ws.take((5,), np.float64)
    ws.release(mark)
    assert np.shares_memory(ws.take((2, 2), np.float64), second)
    ws.reset()
    again = ws.take((2, 6), np.float32)
    assert np.shares_memory(again, first)
    assert again.shape == (2, 6) and again.flags.c_contiguous
    # a larger one takes the place of what is too small
    ws.reset()
    assert ws.take((100,), np.float64).shape == (100,)


def test_what_is_its_own_is_made_once():
    ws = Workspace()
    assert ws.own("key", list) is ws.own("key", list)
    assert ws.own("key", list) is not ws.own("other", list)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8])
def test_halves_are_the_whole(count):
    whole, halves = split(count)
    numbers = list(range(count))
    assert [n for half in halves for n in numbers[half]] == numbers[whole] == numbers
    assert len(halves) == min(count, 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_work_is_shared_where_it_is_large_enough(threads):
    def parts(ws, part):
        return ws, part

    ws = Workspace()
    whole, halves = split(7)
    assert ws.share(parts, whole, halves, 10 * SHARED) == [(ws, whole)]
    assert [part for _, part in ws.share(parts, whole, halves, 1, always=True)] == halves
    ws.workers = Workers(threads)
    assert ws.share(parts, whole, halves, SHARED - 1) == [(ws, whole)]
    (mine, first), (other, second) = ws.share(parts, whole, halves, SHARED)
    assert mine is ws and other is not ws
    assert [first, second] == halves
    assert ws.share(parts, *split(1), SHARED) == [(ws, slice(0, 1))]
    ws.workers.close()
