"""The elementary functions, each held to a number of units in the last place, and to vector instructions."""

from __future__ import annotations

import functools
import re
import warnings

import mpmath
import numba
import numpy as np
import pytest
from llvmlite import binding

from refnaf.kernels import scalar
from refnaf.kernels.cpu.compiler import FLAGS, part

DTYPES = (np.float32, np.float64)
FUNCTIONS = {dtype: scalar.make(part, dtype) for dtype in DTYPES}
#: Largest error of each in units in the last place, in either dtype.
ULPS = {
    "exp_negative": 1.0,
    "exp_bounded": 1.0,
    "expm1_negative": 1.0,
    "log1p_unit": 1.0,
    "log": 1.0,
    "softplus": 1.8,
    "tanh": 2.75,
    "mills": 4.0,
}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_function = pytest.mark.parametrize("name", ULPS)
#: How far exp goes before its result is no normal number.
REACH = {np.float32: 87.3, np.float64: 708.3}


@functools.cache
def _loop(name, dtype):
    function = getattr(FUNCTIONS[dtype], name)

    @numba.njit(**FLAGS)
    def loop(x, out):
        for n in range(len(x)):
            out[n] = function(x[n])

    return loop


def _run(name, x):
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    _loop(name, x.dtype.type)(x, out)
    return out


def _softplus(x, exp, log1p, maximum):
    return maximum(x, 0) + log1p(exp(-abs(x)))


TRUTH = {
    "exp_negative": mpmath.exp,
    "exp_bounded": mpmath.exp,
    "expm1_negative": mpmath.expm1,
    "log1p_unit": mpmath.log1p,
    "log": mpmath.log,
    "softplus": lambda x: _softplus(x, mpmath.exp, mpmath.log1p, max),
    "tanh": mpmath.tanh,
    # erfc loses its argument's digits in its exponent far out, and then its asymptotic series is exact
    "mills": lambda u: (
        mpmath.ncdf(-u) * mpmath.exp(u * u / 2) if u < 1e3 else (1 - u**-2 + 3 * u**-4) / u / mpmath.sqrt(2 * mpmath.pi)
    ),
}
WIDE_TRUTH = {
    "exp_negative": np.exp,
    "exp_bounded": np.exp,
    "expm1_negative": np.expm1,
    "log1p_unit": np.log1p,
    "log": np.log,
    "softplus": lambda x: _softplus(x, np.exp, np.log1p, np.maximum),
    "tanh": np.tanh,
}


def _domain(name, dtype, count, seed=0):
    """Random points of a function's whole domain: evenly, and evenly in the exponent."""
    rng = np.random.default_rng(seed)
    limits, reach = np.finfo(dtype), REACH[dtype]
    tiny, huge = np.log(float(limits.tiny)), np.log(float(limits.max)) - 1e-3

    def scales(low, high):
        return np.exp(rng.uniform(low, high, count))

    points = {
        "exp_negative": [rng.uniform(-reach, 0, count), rng.uniform(-1, 0, count), -scales(tiny, np.log(reach))],
        "exp_bounded": [rng.uniform(-reach, reach, count), scales(tiny, 0), -scales(tiny, 0)],
        "expm1_negative": [rng.uniform(-reach, 0, count), rng.uniform(-1, 0, count), -scales(tiny, huge)],
        "log1p_unit": [rng.uniform(0, 1, count), scales(tiny, 0)],
        "log": [scales(tiny, huge), rng.uniform(0.5, 2, count), 1 + rng.choice([-1, 1], count) * scales(-30, -1)],
        "softplus": [rng.uniform(-reach, reach, count), rng.normal(size=count), scales(tiny, huge)],
        "tanh": [rng.uniform(-20, 20, count), scales(tiny, huge), -scales(tiny, 0)],
        "mills": [rng.uniform(0, 40, count), scales(tiny, huge - 3)],
    }[name]
    return np.concatenate(points).astype(dtype)


def _edges(name, dtype):
    """Where something changes: zeros, the smallest numbers, octaves' ends, the ends of the reduced intervals."""
    limits, reach = np.finfo(dtype), REACH[dtype]
    octaves = 2.0 ** np.arange(limits.minexp, limits.maxexp)
    halves = (np.arange(0, int(reach / np.log(2))) + 0.5) * np.log(2)
    special = [limits.tiny, limits.eps, 2 / 3, 3 / 4, 1 / np.sqrt(2), 1.0, 4 / 3, np.sqrt(2), np.sqrt(2) - 1, 2.0]
    magnitudes = np.concatenate([octaves, halves, special]).astype(dtype)
    near = np.concatenate([magnitudes, np.nextafter(magnitudes, dtype(0)), np.nextafter(magnitudes, dtype(np.inf))])
    near = np.concatenate([near[near >= limits.tiny], np.array([0.0], dtype)])
    signed = np.concatenate([-near, near])
    return {
        "exp_negative": -near[near <= reach],
        "exp_bounded": signed[np.abs(signed) <= reach],
        "expm1_negative": -near,
        "log1p_unit": near[near <= 1],
        "log": np.append(near[near > 0], limits.max),
        "softplus": signed[signed >= -reach],
        "tanh": signed,
        "mills": near[near < limits.max / 8],
    }[name]


def _ulps(got, truth):
    spacing = np.spacing(np.abs(truth).astype(got.dtype)).astype(truth.dtype)
    return np.abs(got.astype(truth.dtype) - truth) / spacing


def _exact(name, x):
    """The truth in 60 digits."""
    with mpmath.workdps(60):
        return [TRUTH[name](mpmath.mpf(float(v))) for v in x]


def _assert_within(name, x):
    got = _run(name, x)
    for point, value, truth in zip(x, got, _exact(name, x), strict=True):
        unit = mpmath.mpf(float(np.spacing(np.abs(x.dtype.type(float(truth))))))
        with mpmath.workdps(60):
            assert abs(mpmath.mpf(float(value)) - truth) <= ULPS[name] * unit, (point, value)


@each_function
@each_dtype
def test_errors_at_the_edges(name, dtype):
    _assert_within(name, _edges(name, dtype)[:: 7 if dtype is np.float64 else 1])


@pytest.mark.parametrize("name", [name for name in ULPS if name not in WIDE_TRUTH])
@each_dtype
def test_errors_over_the_domain_of_what_has_no_wide_twin(name, dtype):
    _assert_within(name, _domain(name, dtype, 1000))


@pytest.mark.parametrize("name", WIDE_TRUTH)
@each_dtype
def test_errors_over_the_whole_domain(name, dtype):
    wide = np.float64 if dtype is np.float32 else np.longdouble
    if np.finfo(wide).nmant <= np.finfo(dtype).nmant + 8:
        pytest.skip("long double is no wider than double here")
    x = _domain(name, dtype, 200_000)
    errors = _ulps(_run(name, x), WIDE_TRUTH[name](x.astype(wide)))
    worst = np.argmax(errors)
    assert errors[worst] <= ULPS[name], (x[worst], errors[worst])


def test_an_error_is_measured():
    """A value next to the right one is half a unit or more away; a wrong constant is seen."""
    x = _domain("log", np.float32, 1000)
    got, truth = _run("log", x), np.log(x.astype(np.float64))
    assert _ulps(np.nextafter(got, np.float32(np.inf)), truth).max() > 1.2
    assert _ulps(got * np.float32(1 + 3e-7), truth).max() > 2


@each_function
@each_dtype
def test_nan_gives_nan(name, dtype):
    assert np.isnan(_run(name, np.array([np.nan, np.nan], dtype))).all()


@each_dtype
def test_ends_of_the_domains(dtype):
    limits = np.finfo(dtype)
    ends = np.array([-np.inf, -limits.max], dtype)
    below = _run("exp_negative", np.append(ends, dtype(-REACH[dtype] - 1)))
    assert (below == 0).all()
    assert np.array_equal(_run("expm1_negative", ends), [-1, -1])
    assert np.array_equal(_run("tanh", -ends), [1, 1]) and np.array_equal(_run("tanh", ends), [-1, -1])
    assert np.array_equal(_run("softplus", -ends), -ends)
    assert (_run("softplus", ends) <= 1.002 * limits.tiny).all()
    assert np.array_equal(_run("log", np.array([np.inf, 1], dtype)), [np.inf, 0])
    assert _run("mills", np.array([np.inf], dtype)) == 0
    zeros = np.array([0.0, -0.0], dtype)
    assert np.array_equal(np.signbit(_run("tanh", zeros)), [False, True])
    for name in ("exp_negative", "exp_bounded"):
        assert np.array_equal(_run(name, zeros), [1, 1])


def _without_first_terms(name, z):
    """What the coefficients approximate: ``(expm1(r) - r) / r^2``, or ``(2 atanh(s) - 2 s) / s^3`` at ``s^2``."""
    if name == "expm1":
        return (mpmath.expm1(z) - z) / z**2 if abs(z) > mpmath.mpf("1e-15") else mpmath.mpf(1) / 2 + z / 6
    s = mpmath.sqrt(z)
    return 2 * (mpmath.atanh(s) - s) / s**3 if z > mpmath.mpf("1e-20") else mpmath.mpf(2) / 3 + 2 * z / 5


@pytest.mark.parametrize("name", ["expm1", "log", "log1p"])
@each_dtype
def test_the_coefficients_are_those_of_the_best_approximation(name, dtype):
    with mpmath.workdps(50):
        half = mpmath.log(2) / 2
        interval = {"expm1": [-half, half], "log": [0, mpmath.mpf("0.0401")], "log1p": [0, mpmath.mpf(1) / 9]}[name]
        given = scalar.COEFFICIENTS[dtype][name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of coefficients from the highest power down
            best, error = mpmath.chebyfit(lambda z: _without_first_terms(name, z), interval, len(given), error=True)
        # r^2 P and s z Q are small beside r and 2 s
        assert error * max(abs(interval[0]), interval[1]) < np.finfo(dtype).eps / 8
        for power, (c, b) in enumerate(zip(given, best[::-1], strict=True)):
            # the coefficients stand there in double precision
            assert abs(c - b) <= np.finfo(dtype).eps / 64 / interval[1] ** power + np.spacing(abs(c)) / 2


def _features():
    features = binding.get_host_cpu_features()
    return features.get("avx2", False) and features.get("fma", False)


@pytest.mark.skipif(not _features(), reason="needs a processor with AVX2 and FMA")
@each_function
@each_dtype
def test_a_loop_becomes_vector_instructions(name, dtype):
    loop = _loop(name, dtype)
    _run(name, np.full(8, 0.5 if name in ("log", "log1p_unit", "mills") else -0.5, dtype))
    (assembly,) = loop.inspect_asm().values()
    kind = "ps" if dtype is np.float32 else "pd"
    assert re.search(rf"\bvfn?m(add|sub)\d+{kind}\b.*%[yz]mm", assembly)


@each_function
def test_float32_stays_float32(name):
    _run(name, np.full(8, 0.5 if name in ("log", "log1p_unit", "mills") else -0.5, np.float32))
    (code,) = _loop(name, np.float32).inspect_llvm().values()
    arithmetic = r"\b(fadd|fsub|fmul|fdiv|fcmp|fneg|fpext|fptrunc|[us]itofp)\b[^\n]*"
    found = [m.group() for m in re.finditer(arithmetic, code)]
    assert any("float" in line for line in found)
    assert [line for line in found if "double" in line] == []
