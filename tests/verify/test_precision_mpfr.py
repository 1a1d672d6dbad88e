"""MPFR's arithmetic gives mpmath's digits, and leaves to mpmath what is out of its range."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.verify import oracle
from refnaf.verify.accuracy_sets import OBJECTS, draw
from refnaf.verify.precision import arithmetic, computing_with, mpmath, rounded
from refnaf.verify.precision_mpfr import mpfr

pytest.importorskip("gmpy2")
mp = mpmath().mp


def by_both(monkeypatch, *arguments):
    """The oracle's transformer with MPFR, where it can, and by mpmath alone."""
    fast = oracle.transform(*arguments)
    monkeypatch.setattr(oracle, "mpfr", lambda: None)
    return fast, oracle.transform(*arguments)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_digits_are_mpmaths(name, monkeypatch):
    (batch,) = list(draw(name, 12, 2, "float32"))[:1]
    fast, slow = by_both(monkeypatch, OBJECTS[name].transformer, *batch, OBJECTS[name].options, 30)
    with mp.workdps(50):
        for a, b in zip(np.ravel(fast), np.ravel(slow), strict=True):
            assert abs(a - b) <= mp.mpf(10) ** -30 * abs(b)


@pytest.mark.parametrize(("name", "count"), [("mean", 9), ("mog", 9), ("affine", 2)])
def test_other_transformers_and_whole_numbers(name, count, monkeypatch):
    theta = np.random.default_rng(0).normal(size=(count, 5))
    for options in ({"activation": "leakyrelu"}, {"activation": "elu"}) if name == "mean" else ({},):
        fast, slow = by_both(monkeypatch, name, np.linspace(-2, 2, 5), theta, (), options, 30)
        np.testing.assert_array_equal(rounded(fast[0]), rounded(slow[0]))
        np.testing.assert_array_equal(rounded(fast[1]), rounded(slow[1]))


def test_what_is_out_of_range_is_left_out():
    theta = np.random.default_rng(0).normal(size=(9, 2))
    equation = oracle.oracle_transformers.TRANSFORMERS["dsf"]
    near, far = oracle._by_mpfr(equation, np.array([0.5, 1e300]), theta.T, (), 30)
    assert near is not None and far is None
    # and mpmath answers
    assert np.isfinite(rounded(oracle.dsf([0.5, 1e300], theta)[0])).all()


def test_numbers_and_precisions_are_mpmaths():
    other = mpfr()
    assert arithmetic() is mp
    with computing_with(other), other.active():
        assert arithmetic() is other
        for digits in (15, 30, 77, 500):
            with other.workdps(digits), mp.workdps(digits):
                assert other.prec == mp.prec
                assert other.to_mpf(other.pi) == +mp.pi
                assert other.to_mpf(other.eps) == mp.eps
                with other.extraprec(9):
                    assert other.prec == mp.prec + 9
                for value in (0.1, -3e-200, 5e300, 1.0):
                    assert other.mag(other.mpf(value)) == mp.mag(mp.mpf(value))
        assert other.mag(other.mpf(0)) < -(10**9)
        given = np.array([[0.1, -0.0], [5e-324, 1.7e308]])
        found = other.exact(given)
        assert [[float(other.to_mpf(a)) for a in row] for row in found] == given.tolist()
        assert other.to_mpf(3) == 3
        with pytest.raises(ArithmeticError):
            other.exp(other.mpf(1e19))
        with pytest.raises(ArithmeticError):
            other.log(other.mpf(0))
    assert arithmetic() is mp


def test_the_arithmetic_is_mpmaths_again_after_an_error():
    with pytest.raises(KeyError), computing_with(mpfr()):
        raise KeyError
    assert arithmetic() is mp
