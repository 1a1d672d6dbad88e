"""The oracle's transformers against closed forms, difference quotients and the reference."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.ops import REFERENCE
from refnaf.reference import affine
from refnaf.verify import oracle
from refnaf.verify.oracle_normal import FAR, quantile, tail
from refnaf.verify.oracle_root import solve
from refnaf.verify.oracle_transformers import slopes
from refnaf.verify.precision import exact, mpmath, rounded
from tests.verify.errors import relative

mp = mpmath().mp


#: A monotone network's numbers for one dimension, of a signal of 3.
NETWORK = [(4, 4), (4,), (3, 4), (3,), (1, 3), (1,)]
#: Rows of theta, and shapes of shared arrays.
SIZES = {
    "affine": (2, []),
    "dsf": (9, []),
    "ddsf": (21, [(3, 3), (3, 3), (1, 3)]),
    "mean": (9, []),
    "mog": (9, []),
    "monotonic": (3, NETWORK),
}


def _dsf_by_numbers(x, theta, digits):
    """Equation 28 with 1 - sigmoid as it stands, in so many digits that it does not matter; mpmath's derivative."""
    with mp.workdps(digits):
        d = len(theta) // 3
        a = [slopes(mp.mpf(float(v))) for v in theta[:d]]
        weights = [mp.exp(mp.mpf(float(v))) for v in theta[2 * d :]]

        def y(point):
            units = (
                1 / (1 + mp.exp(-(s * point + mp.mpf(float(b))))) for s, b in zip(a, theta[d : 2 * d], strict=True)
            )
            mixture = mp.fsum(w * unit for w, unit in zip(weights, units, strict=True)) / mp.fsum(weights)
            return mp.log(mixture / (1 - mixture))

        return y(mp.mpf(float(x))), mp.log(mp.diff(y, mp.mpf(float(x))))


@pytest.mark.parametrize("x", [0.3, -40.0, 1e-200])
def test_dsf_is_the_equation_and_its_derivative(x):
    theta = 2 * np.random.default_rng(3).normal(size=12)
    (y,), (log_slope,) = oracle.dsf([x], theta[:, None])
    expected = _dsf_by_numbers(x, theta, 400)
    with mp.workdps(60):
        assert abs(y - expected[0]) <= mp.mpf(10) ** -49 * abs(expected[0])
        assert abs(log_slope - expected[1]) <= mp.mpf(10) ** -40 * abs(expected[1])


def test_small_values_keep_their_digits():
    # opposite offsets and equal weights: y is odd in x, and S+ - S- cancels to the last of 300 digits
    theta = np.array([0.7, 0.7, 2.0, -2.0, 0.0, 0.0])[:, None]
    (tiny,), (log_slope,) = oracle.dsf([1e-300], theta)
    with mp.workdps(60):
        slope = mp.exp(log_slope)
        assert abs(tiny / (slope * mp.mpf(1e-300)) - 1) <= mp.mpf(10) ** -48
    assert rounded(oracle.dsf([0.0], theta)[0]) == 0


def test_tails_are_lines():
    theta = np.random.default_rng(0).normal(size=(9, 1))
    for sign in (1, -1):
        (y,), (log_slope,) = oracle.dsf([sign * 1e300], theta)
        with mp.workdps(60):
            least = min(slopes(value) for value in exact(theta)[:3, 0])
            assert abs(y / (sign * mp.mpf(1e300) * least) - 1) < mp.mpf(10) ** -49
            assert abs(log_slope - mp.log(least)) < mp.mpf(10) ** -49


def test_ddsf_of_one_layer_with_equal_rows_is_a_dsf():
    rng = np.random.default_rng(1)
    x, theta = rng.normal(size=5), rng.normal(size=(12, 5))
    for a, b in zip(oracle.dsf(x, theta), oracle.ddsf(x, theta, np.zeros((1, 4))), strict=True):
        with mp.workdps(60):
            assert all(abs(p - q) <= mp.mpf(10) ** -49 for p, q in zip(a, b, strict=True))


def test_ddsf_derivative_is_that_of_its_value():
    rng = np.random.default_rng(2)
    theta = 2 * rng.normal(size=(2 * 9 + 3, 1))
    matrices = [rng.normal(size=shape) for shape in ((3, 3), (3, 3), (1, 3))]
    step = 2.0**-60
    (low,), (middle,), (high,) = (oracle.ddsf([x], theta, *matrices)[0] for x in (-step, 0.0, step))
    with mp.workdps(60):
        slope = (high - low) / (2 * mp.mpf(step))
        # the difference quotient is off by the third derivative times the step squared
        assert abs(mp.log(slope) - oracle.ddsf([0.0], theta, *matrices)[1][0]) < mp.mpf(10) ** -30
        assert low < middle < high


@pytest.mark.parametrize("form", affine.FORMS)
def test_affine_forms(form):
    x, theta = np.array([0.5, -2.0, 1e200]), np.array([[0.3, -1.0, 2.0], [0.7, -30.0, 4.0]])
    y, log_slope = oracle.affine(x, theta, form)
    expected = affine.affine(x, theta, form)
    assert relative(rounded(y), expected[0]) < 2e-15
    assert relative(rounded(log_slope), expected[1]) < 2e-15


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dsf", {"clip": 1e-3}),
        ("dsf", {"floor": 0.1, "epsilon": 0.01}),
        ("dsf", {"steepness": 2.0}),
        ("ddsf", {"clip": 1e-3}),
        ("affine", {"form": "exp", "how": "squash", "limit": 3.0}),
        ("affine", {"form": "exp", "how": "clamp", "limit": 1.0}),
        ("affine", {"form": "exp", "how": "clamp", "limit": (-0.5, 0.2)}),
        ("affine", {"form": "gated", "how": "none", "clip": 0.1}),
        ("affine", {"form": "sigmoid", "floor": 0.01}),
        ("mean", {}),
        ("mean", {"floor": 0.0, "epsilon": 0.05}),
        ("mean", {"activation": "leakyrelu", "floor": 0.1, "epsilon": 0.01}),
        ("mog", {}),
        ("mog", {"floor": 0.1}),
        ("monotonic", {}),
    ],
)
def test_options_are_those_of_the_reference(name, options):
    rng = np.random.default_rng(0)
    count, shapes = SIZES[name]
    matrices = [rng.normal(size=shape) for shape in shapes]
    x, theta = rng.normal(size=20), rng.normal(size=(count, 20))
    # the last ones far out, on either side
    x[-4:] *= [1e3, -1e3, 1e6, -1e6]
    got = oracle.transform(name, x, theta, matrices, options, digits=30)
    for ours, true in zip(REFERENCE[name](x, theta, *matrices, **options), got, strict=True):
        assert relative(ours, rounded(true)) < (1e-13 if name == "ddsf" else 1e-14)


@pytest.mark.parametrize("x", [0.7, -30.0, 25.0])
def test_mog_is_the_equation_and_its_derivative(x):
    theta = np.random.default_rng(3).normal(size=12)
    (y,), (log_slope,) = oracle.transform("mog", [x], theta[:, None])
    with mp.workdps(500):
        w, mean, raw = ([mp.mpf(float(v)) for v in part] for part in np.split(theta, 3))
        scale = [mp.exp(8 * mp.tanh(v / 8)) for v in raw]

        def cdf(point):
            each = (mp.exp(a) * mp.ncdf((point - m) / s) for a, m, s in zip(w, mean, scale, strict=True))
            return mp.fsum(each) / mp.fsum(mp.exp(a) for a in w)

        # 500 digits: also the upper tail is known from below
        beyond = cdf(mp.mpf(x)) if x < 0 else 1 - cdf(mp.mpf(x))
        assert abs((mp.ncdf(y) if x < 0 else mp.ncdf(-y)) / beyond - 1) < mp.mpf(10) ** -45
        slope = mp.diff(cdf, mp.mpf(x)) / mp.npdf(y)
        assert abs(mp.log(slope) - log_slope) < mp.mpf(10) ** -40


def test_the_far_tails_of_a_mixture_are_those_of_its_widest_component():
    theta = np.array([0.0, -3.0, 0.5, 1.0, 0.2, 2.0])[:, None]
    for x in (1e20, -1e200, 1e300):
        (y,), (log_slope,) = oracle.transform("mog", [x], theta, digits=30)
        with mp.workdps(60):
            log_scale = 8 * mp.tanh(mp.mpf(2) / 8)
            assert abs(log_slope + log_scale) < mp.mpf(10) ** -15
            assert abs(y / ((mp.mpf(x) - 1) / mp.exp(log_scale)) - 1) < mp.mpf(10) ** -30


def test_the_tail_of_the_normal_and_its_quantile():
    with mp.workdps(80):
        # where the series is used; the square of a rounded x / sqrt 2 costs erfc twice the digits of x
        x = mp.mpf(2 * FAR)
        assert abs(tail(x) * 2 / mp.erfc(x / mp.sqrt(2)) - 1) < mp.mpf(10) ** -60
        assert abs(tail(x) + tail(-x) - 1) == 0
    with mp.workdps(50):
        for x in (-3, 0.25, 40.0, 1e30, 1e200, -1e300):
            x = mp.mpf(x)
            assert abs(quantile(tail(-x), tail(x)) - x) < mp.mpf(10) ** -48 * abs(x)
        assert quantile(mp.mpf(1) / 2, mp.mpf(1) / 2) == 0


def test_what_cannot_be_asked_of_a_transformer():
    with pytest.raises(ValueError, match="theta must have shape"):
        oracle.dsf([1.0, 2.0], np.zeros((6, 3)))
    with pytest.raises(ValueError, match="form 'cubic'"):
        oracle.affine([1.0], np.zeros((2, 1)), "cubic")
    with pytest.raises(ValueError, match="knows the transformers"):
        oracle.transform("spline", [1.0], np.zeros((2, 1)))
    with pytest.raises(ValueError, match="mean under 'relu'"):
        oracle.transform("mean", [1.0], np.zeros((3, 1)), options={"activation": "relu"})


def test_roots_of_plateaus_cliffs_and_nothing():
    def steps(x):
        y = mp.tanh(1000 * (x - 1)) + x / 10**9
        return y, mp.log(1000 * (1 - mp.tanh(1000 * (x - 1)) ** 2) + mp.mpf(10) ** -9)

    with mp.workdps(50):
        for y in (mp.mpf("0.3"), mp.mpf(-5), mp.mpf(10) ** 20):
            assert abs(steps(solve(steps, y))[0] - y) <= mp.mpf(10) ** -45 * abs(y)
        assert abs(solve(lambda x: (mp.expm1(x), x), mp.mpf(0))) < mp.mpf(10) ** -45
        with pytest.raises(ArithmeticError, match="does not rise"):
            solve(lambda x: (mp.nan, mp.mpf(0)), mp.mpf(1))
