"""The toy log densities: the authors' numbers, gradients, normalisers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad
from scipy import integrate, special

import refnaf
from refnaf.datasets import ENERGIES, energies, energy, log_normaliser
from tests.refusals import refusal

TORCHKIT = [f"u{k}" for k in range(1, 10)]
REZENDE = ["rezende2", "rezende3", "rezende4"]
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "toy_energies.npz"


def wave(z1):
    return np.sin(np.pi * z1 / 2)


def fork(z1, z2_weight, z2_centre, offset):
    """The integral over z2 of exp(fork - z2_weight (z2 - z2_centre)^2): products of two Gaussians of the line."""
    total = 0.0
    for centre, sd in ((wave(z1), 0.4), (wave(z1) - 2.5 * special.expit((z1 - 2) / 0.3), 0.35)):
        ours = 1 / (2 * z2_weight)
        both = sd**2 + ours
        spread = math.sqrt(2 * math.pi * sd**2 * ours / both)
        total += spread * math.exp(-((centre - z2_centre) ** 2) / (2 * both))
    return total * math.exp(-0.05 * (z1 - offset) ** 2)


def line(function, low=-np.inf, high=np.inf, **options):
    pieces = np.linspace(-40, 40, 41) if np.isinf(low) else np.linspace(low, high, 9)
    total = 0.0
    for a, b in itertools.pairwise(pieces):
        total += integrate.quad(function, a, b, epsabs=1e-13, epsrel=1e-12, **options)[0]
    return total


def oval_mass(power):
    """The integral of exp(-power (2 - sqrt(z1^2 + z2^2 / 2))^2)."""
    return 2 * math.pi * math.sqrt(2) * line(lambda r: r * math.exp(-power * (2 - r) ** 2), 0, 20)


def arcs_mass():
    """u1 in polar coordinates: the angle by the trapezoidal rule, which converges geometrically."""
    angle = np.arange(400) * 2 * math.pi / 400

    def around(r):
        c = r * np.cos(angle)
        bumps = np.exp(-0.5 * ((c - 2) / 0.6) ** 2) + np.exp(-0.5 * ((c + 2) / 0.6) ** 2)
        return r * math.exp(-0.5 * ((r - 2) / 0.4) ** 2) * bumps.mean() * 2 * math.pi

    return line(around, 0, 8)


def bands_mass():
    angle = np.arange(800) * 2 * math.pi / 800

    def around(r):
        c, s = r * np.cos(angle), r * np.sin(angle)
        bands = (
            np.exp(-0.5 * ((c - 2) / 0.6) ** 2)
            + np.exp(-0.5 * (np.sin(c) / 0.5) ** 2)
            + np.exp(-0.5 * ((c + s + 2.5) / 0.6) ** 2)
        )
        return r * math.exp(-0.5 * ((r / math.sqrt(2) - 2) / 0.5) ** 2) * bands.mean() * 2 * math.pi

    return line(around, 0, 14)


def masses():
    root = math.sqrt(2 * math.pi)
    return {
        "u1": arcs_mass(),
        "u2": bands_mass(),
        "u3": oval_mass(1),
        "u4": math.exp(2.5) / 4 * (1.500005 / 1.5),
        "u5": 0.4 * root * math.sqrt(math.pi / 0.1),
        "u6": 2 * 0.35 * root * math.sqrt(math.pi / 0.05),
        "u7": 2 * 0.35 * root * math.sqrt(math.pi / 0.1),
        "u8": line(lambda z1: fork(z1, 0.05, -3, 2)) + math.pi / 2.5,
        "u9": (line(lambda z1: fork(z1, 0.05, 0, 0)) + oval_mass(2) / 1.5**2) / math.e,
    }


@pytest.fixture(scope="module")
def exact():
    return masses()


@pytest.fixture(scope="module")
def points():
    return np.random.RandomState(3).uniform(-4, 4, size=(50, 2))


@pytest.mark.parametrize("name", TORCHKIT)
def test_the_authors_numbers(name):
    with np.load(VECTORS) as archive:
        z, expected = archive["z"], archive[name.upper()]
    np.testing.assert_allclose(energy(name)(z), expected, rtol=1e-12, atol=1e-12)


def test_the_potentials_of_the_paper(points):
    z1, z2 = points.T
    w1, w2 = wave(z1), 3 * np.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + np.exp(-(z1 - 1) / 0.3))

    def ridge(c, s):
        return np.exp(-0.5 * ((z2 - c) / s) ** 2)

    expected = {
        "rezende2": np.log(ridge(w1, 0.4)),
        "rezende3": np.log(ridge(w1, 0.35) + ridge(w1 - w2, 0.35)),
        "rezende4": np.log(ridge(w1, 0.4) + ridge(w1 - w3, 0.35)),
    }
    for name in REZENDE:
        np.testing.assert_allclose(energy(name)(points), expected[name], rtol=1e-11)


@pytest.mark.parametrize("name", ENERGIES)
def test_gradients(name, points):
    function = energy(name)
    got = elementwise_grad(function)(points)
    step = 1e-5
    for k in range(2):
        move = step * np.eye(2)[k]
        slope = (function(points + move) - function(points - move)) / (2 * step)
        np.testing.assert_allclose(got[:, k], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ENERGIES)
def test_values_and_gradients_are_finite(name):
    """At the origin and the other tips of the cones, where an exponential underflows, and far out."""
    far = [[r * a, r * b] for r in (30, 1e3, 1e6, 1e30) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    z = np.array([[0, 0], [4 / 3, 4 / 3], [100, 0.0], [-600, 5], *far])
    assert np.isfinite(energy(name)(z)).all()
    assert np.isfinite(elementwise_grad(energy(name))(z)).all()


@pytest.mark.parametrize("name", ENERGIES)
def test_dtypes(name, points):
    single = points.astype(np.float32)
    got = energy(name)(single)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, energy(name)(points), rtol=1e-4, atol=1e-4)
    assert elementwise_grad(energy(name))(single).dtype == np.float32
    assert energy(name)([[1, 2], [0, 0]]).dtype == np.float64


@pytest.mark.parametrize("name", TORCHKIT)
def test_normalisers(name, exact):
    assert log_normaliser(name) == pytest.approx(math.log(exact[name]), abs=1e-9)


def test_normalisers_of_a_box():
    def over_z2(z1):
        edges = (np.array([-4.0, 4.0]) - wave(z1)) / 0.4
        return 0.4 * math.sqrt(2 * math.pi) * np.diff(special.ndtr(edges))[0]

    box = ((-4, 4), (-4, 4))
    assert log_normaliser("rezende2", box) == pytest.approx(math.log(line(over_z2, -4, 4)), abs=1e-9)
    for name in ("rezende3", "u9"):
        parts = [log_normaliser(name, ((a, b), (-4, 4))) for a, b in ((-4, -1), (-1, 0.3), (0.3, 4))]
        assert np.logaddexp.reduce(parts) == pytest.approx(log_normaliser(name, box), abs=1e-9)


def test_a_box_far_out_does_not_underflow():
    z = np.array([[40.5, 1.0]])
    box = ((40.5 - 1e-6, 40.5 + 1e-6), (1 - 1e-6, 1 + 1e-6))
    assert log_normaliser("u1", box) == pytest.approx(energies.u1(z)[0] + math.log(4e-12), abs=1e-3)


@pytest.mark.parametrize("name", TORCHKIT)
def test_divergence_from_a_gaussian(name, exact):
    """KL(q || p) by Monte Carlo with the normaliser, against KL by quadrature of both densities: q = N(m, s^2 I)."""
    m, s = np.array([0.3, -0.2]), 1.2
    rng = np.random.RandomState(5)
    z = m + s * rng.standard_normal((20_000, 2))
    log_q = -0.5 * (((z - m) / s) ** 2).sum(1) - math.log(2 * math.pi * s**2)
    terms = log_q - energy(name)(z) + log_normaliser(name)

    axis = np.linspace(-12, 12, 241)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    on_grid = -0.5 * (((grid - m) / s) ** 2).sum(1) - math.log(2 * math.pi * s**2)
    cell = (axis[1] - axis[0]) ** 2
    log_p = energy(name)(grid) - math.log(exact[name])
    expected = (np.exp(on_grid) * (on_grid - log_p)).sum() * cell
    assert expected > 0
    assert abs(terms.mean() - expected) < 5 * terms.std() / math.sqrt(len(z))


def test_as_the_target_of_a_flow():
    flow = refnaf.build("iaf", dim=2, flows=1, hidden=(8,), dtype="float64")
    base = np.random.RandomState(0).standard_normal((16, 2))

    def free_energy(params):
        x, logdet = flow.inverse(base, params=params)
        return -anp.mean(energies.u9(x) + logdet)

    gradient = grad(free_energy)(dict(flow.params))
    name = max(gradient, key=lambda key: np.abs(gradient[key]).max())
    at = np.unravel_index(np.abs(gradient[name]).argmax(), gradient[name].shape)
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = {key: array.copy() for key, array in flow.params.items()}
        moved[name][at] += sign * step
        ends.append(free_energy(moved))
    assert gradient[name][at] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_refusals():
    assert "'u10'" in refusal(energy, "u10")
    assert "'u10'" in refusal(log_normaliser, "u10")
    assert "(5, 3)" in refusal(energies.u1, np.zeros((5, 3)))
    assert "(2,)" in refusal(energies.u4, np.zeros(2))
    assert "complex" in refusal(energies.u4, np.zeros((3, 2), complex))
    for name in REZENDE:
        assert "infinite" in refusal(log_normaliser, name)
    for box in (((4, -4), (-4, 4)), ((0, 0), (0, 1)), ((0, np.inf), (0, 1)), (1, 2), ((-1e6, 1e6), (-4, 4))):
        assert "box" in refusal(log_normaliser, "u1", box)
