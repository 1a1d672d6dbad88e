"""The toy sets: samples follow the densities, and the densities are densities."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from autograd import elementwise_grad
from scipy import stats

from refnaf.datasets import SAMPLE_SETS, grid_of_gaussians, sample_set, samples
from refnaf.datasets.mixture import circle_log_density, curve_nodes, points_log_density
from tests.refusals import refusal

DATA = Path(__file__).resolve().parents[2] / "data"
BOX = 7.0
BINS = 28  # a half wide: edges of the checkerboard are edges of bins
NODES = 9
RULE = np.polynomial.legendre.leggauss(NODES)
EDGES = np.linspace(-BOX, BOX, BINS + 1)
WIDTH = 2 * BOX / BINS

SETS = {**SAMPLE_SETS, "grid2": grid_of_gaussians(2, 3.0, 0.4), "grid6": grid_of_gaussians(6, 1.5, 0.1)}
CURVES = {
    "moons": (samples._moon, 2, 1, 0.1),
    "two_spirals": (samples._spiral, 2, 2, 0.1),
    "swiss_roll": (samples._roll, 1, 1, 0.2),
}


def log_densities(one):
    """The log density at NODES x NODES nodes of each bin."""
    axis = (EDGES[:-1, None] + WIDTH * (1 + RULE[0]) / 2).ravel()
    return one.log_density(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2))


def bin_integrals(values):
    """The integral over each bin ``(BINS, BINS)``, by the Gauss-Legendre rule."""
    weights = RULE[1] * WIDTH / 2
    return np.einsum("ikjl,k,l->ij", values.reshape(BINS, NODES, BINS, NODES), weights, weights)


def bin_masses(log_p):
    return bin_integrals(np.exp(log_p))


def fit(x, masses):
    """The p-value of a chi-squared test of samples against masses of bins; rare bins are thrown together."""
    counts, *_ = np.histogram2d(*x.T, bins=BINS, range=[[-BOX, BOX]] * 2)
    assert counts.sum() == len(x)
    often = masses * len(x) >= 10
    got = np.append(counts[often], counts[~often].sum())
    expected = np.append(masses[often], masses[~often].sum()) * len(x)
    if expected[-1] < 10:
        got, expected = np.append(got[:-2], got[-2:].sum()), np.append(expected[:-2], expected[-2:].sum())
    return stats.chisquare(got, expected * len(x) / expected.sum()).pvalue


@pytest.fixture(scope="module")
def log_p():
    return {name: log_densities(one) for name, one in SETS.items()}


@pytest.mark.parametrize("name", SETS)
def test_rows(name):
    one = SETS[name]
    x = one(100, 7)
    assert x.shape == (100, 2)
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x, one(100, seed=7))
    assert (x != one(100, seed=8)).any()
    np.testing.assert_array_equal(one(100), one(100, seed=0))
    assert one(0).shape == (0, 2)
    assert one.log_density(x).shape == (100,)
    assert one.log_density(one(0)).shape == (0,)


@pytest.mark.parametrize("name", SETS)
def test_densities_integrate_to_one(name, log_p):
    assert bin_masses(log_p[name]).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_samples_follow_the_density(name, log_p):
    assert fit(SETS[name](50_000, seed=11), bin_masses(log_p[name])) > 1e-3


@pytest.mark.parametrize("name", SETS)
def test_a_small_difference_is_seen(name, log_p):
    """Samples stretched by 2% do not pass."""
    assert fit(1.02 * SETS[name](50_000, seed=11), bin_masses(log_p[name])) < 1e-6


@pytest.mark.parametrize("name", SETS)
def test_entropy_is_the_same_by_samples_and_by_quadrature(name, log_p):
    """A bin hides what happens inside it; the mean of the log density does not."""
    p = np.exp(log_p[name])
    expected = bin_integrals(p * np.where(p > 0, log_p[name], 0)).sum()
    got = SETS[name].log_density(SETS[name](10_000, seed=5))
    assert abs(got.mean() - expected) < 5 * got.std() / np.sqrt(len(got)) + 1e-12


@pytest.mark.parametrize("name", CURVES)
def test_nodes_are_close_enough(name):
    """With 2.5 times as many the density is the same."""
    position, arms, power, sd = CURVES[name]
    near, far = sample_set(name)(300, seed=2), np.random.RandomState(2).uniform(-7, 7, size=(300, 2))
    x = np.concatenate([near, far])
    finer = curve_nodes(position, arms, power, 0.4 * sd)
    np.testing.assert_allclose(sample_set(name).log_density(x), points_log_density(x, *finer, sd), rtol=0, atol=1e-9)


def test_circle_is_a_mixture_of_its_points():
    angle = 2 * np.pi * np.arange(2000) / 2000
    centres = 1.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.concatenate([np.random.RandomState(0).uniform(-4, 4, size=(50, 2)), [[0, 0], [1.7, 0], [30, -20]]])
    expected = points_log_density(x, centres, -np.log(2000), 0.3)
    np.testing.assert_allclose(circle_log_density(x, 1.7, 0.3), expected, rtol=1e-11)


@pytest.mark.parametrize("name", [name for name in SETS if name != "checkerboard"])
def test_gradients(name):
    one, x = SETS[name], SETS[name](30, seed=3)
    got = elementwise_grad(one.log_density)(x)
    step = 1e-6
    for k in range(2):
        move = step * np.eye(2)[k]
        slope = (one.log_density(x + move) - one.log_density(x - move)) / (2 * step)
        np.testing.assert_allclose(got[:, k], slope, rtol=1e-5, atol=1e-5)
    edge = np.array([[0.0, 0.0], [20.0, -30.0], [1e4, 1e4]])
    assert np.isfinite(one.log_density(edge)).all()
    assert np.isfinite(elementwise_grad(one.log_density)(edge)).all()


def test_checkerboard():
    board = SAMPLE_SETS["checkerboard"]
    x = board(5000, seed=1)
    np.testing.assert_array_equal(board.log_density(x), np.full(5000, -np.log(32)))
    np.testing.assert_array_equal(np.unique(np.floor(x / 2).sum(1)), [-4, -2, 0, 2])
    off = np.array([[1.0, -1.0], [-1.0, 1.0], [4.0, 0.5], [9.0, 1.0], [np.inf, 1.0]])
    assert np.isneginf(board.log_density(off)).all()
    assert np.isnan(board.log_density([[np.nan, 1.0]])).all()


def test_the_sets_of_the_repository():
    """The same rows as in data/, and the same definitions as the script that made them, whatever its seed."""
    make = runpy.run_path(str(DATA / "make_data.py"))
    for name, seed in (("grid", 1), ("eight_gaussians", 2)):
        stored = np.load(DATA / f"{name}.npy", allow_pickle=False)
        np.testing.assert_array_equal(sample_set(name)(10_000, seed).astype(np.float32), stored)
        np.testing.assert_array_equal(sample_set(name)(500, 77), make[name](500, 77))
    np.testing.assert_array_equal(SETS["grid2"](500, 77), make["grid"](500, 77, 2, 3.0, 0.4))


def test_the_ring_of_the_repository():
    with np.load(DATA / "context_example.npz") as archive:
        x, c = archive["x"].astype(np.float64), archive["c"].astype(np.float64)
    # of each radius the conditional distribution function, a noncentral chi-squared one, is uniform
    u = stats.ncx2.cdf((x**2).sum(1) / c[:, 0] ** 2, 2, (2 / c[:, 0]) ** 2)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    r = np.sqrt((x**2).sum(1))
    density = stats.rice.pdf(r, 2 / c[:, 0], scale=c[:, 0]) / (2 * np.pi * r)
    np.testing.assert_allclose(circle_log_density(x, 2.0, c[:, 0]), np.log(density), rtol=1e-9)


def test_large_inputs_are_cut_into_blocks():
    one = SAMPLE_SETS["moons"]
    x = one(2 * samples._BLOCK + 3, seed=4)
    whole = one.log_density(x)
    np.testing.assert_allclose(whole, [one.log_density(row[None])[0] for row in x], rtol=1e-12)
    single = one.log_density(x.astype(np.float32))
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, whole, atol=1e-3)


def test_refusals():
    assert "'moon'" in refusal(sample_set, "moon")
    assert "-1" in refusal(samples.moons, -1)
    assert "(4, 3)" in refusal(samples.rings.log_density, np.zeros((4, 3)))
    assert "side=0" in refusal(grid_of_gaussians, 0)
    assert "sd=0" in refusal(grid_of_gaussians, 3, sd=0.0)
    with pytest.raises(TypeError):
        samples.moons(2.5)
