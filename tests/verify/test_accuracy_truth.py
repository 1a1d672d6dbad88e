"""What is true of the sets: computed once, kept in a cache, and never taken from a file of other sets."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.verify import accuracy, oracle
from refnaf.verify.accuracy_truth import split, truths
from refnaf.verify.precision import mpmath

mp = mpmath().mp
SETS = ("dsf", 12, 3, "float64")


def numbers(cache=None, sets=SETS):
    return np.concatenate([true for _, true in truths(*sets, cache)], axis=1)


def counted(monkeypatch):
    """How many batches the oracle is asked for from here on."""
    calls = []
    honest = oracle.transform
    monkeypatch.setattr(oracle, "transform", lambda *a: (calls.append(1), honest(*a))[1])
    return calls


def test_a_cache_is_asked_instead_of_the_oracle(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    first = numbers(tmp_path / "new")
    assert calls and [path.name for path in (tmp_path / "new").iterdir()] == ["dsf-float64-3-12.npz"]
    asked = len(calls)
    np.testing.assert_array_equal(numbers(tmp_path / "new"), first)
    assert len(calls) == asked
    np.testing.assert_array_equal(numbers(), first)
    assert len(calls) == 2 * asked


def test_a_report_is_the_same_with_and_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "OBJECTS", {name: accuracy.OBJECTS[name] for name in ("affine-gated", "mog")})
    plain = accuracy.report(samples=9)
    assert accuracy.report(samples=9, cache=tmp_path) == plain
    calls = counted(monkeypatch)
    assert accuracy.report(samples=9, cache=str(tmp_path)) == plain
    assert calls == []


@pytest.mark.parametrize("what", ["other sets", "damaged", "no archive", "another shape"])
def test_a_file_that_does_not_fit_is_computed_again(what, tmp_path):
    first = numbers(tmp_path)
    (path,) = tmp_path.iterdir()
    if what == "other sets":
        numbers(tmp_path, ("dsf", 12, 4, "float64"))
        (tmp_path / "dsf-float64-4-12.npz").replace(path)
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:-40])
    elif what == "no archive":
        path.write_text("not an archive")
    else:
        with np.load(path) as file:
            digest = file["digest"]
        np.savez(path, true=first[:, :5], digest=digest)
    np.testing.assert_array_equal(numbers(tmp_path), first)
    np.testing.assert_array_equal(numbers(tmp_path), first)


def test_two_floats_hold_thirty_digits():
    with mp.workdps(40):
        values = [mp.mpf("1.2345678901234567890123456789012"), mp.mpf(2) ** 2000, mp.mpf(0)]
        high, low = split(np.array(values, dtype=object))
        assert abs(mp.mpf(high[0]) + mp.mpf(low[0]) - values[0]) <= mp.mpf(10) ** -30
    assert low[0] != 0
    assert np.isinf(high[1]) and low[1] == 0 and high[2] == low[2] == 0
