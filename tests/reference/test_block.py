"""The block network's reference: its equations one sample at a time, its Jacobian, its tails, its image."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import jacobian

from refnaf.reference import block


def network(dim, sizes=(3, 2), context_dim=0, residual="none", seed=0, spread=0.7, **options):
    """Random numbers, zero above the diagonal blocks."""
    rng = np.random.default_rng(seed)
    pairs = list(zip([1, *sizes], [*sizes, 1], strict=True))
    weights = [
        spread * rng.normal(size=(dim * here, dim * below)) * np.add(*block.masks(dim, here, below))
        for below, here in pairs
    ]
    gains, biases = ([spread * rng.normal(size=dim * here) for _, here in pairs] for _ in range(2))
    contexts = [spread * rng.normal(size=(dim * here, context_dim)) for _, here in pairs] if context_dim else []
    mix = {"linear": spread * rng.normal(size=dim), "gated": spread * rng.normal(size=1)}.get(residual)
    return block.Network(weights, gains, biases, contexts, residual, mix, **{"bound": 10.0, **options})


def _naive(x, context, net):
    """The paper's equations with explicit loops, one sample; no tricks."""
    dim, h = len(x), x
    for k, (raw, gain, bias) in enumerate(zip(net.weights, net.gains, net.biases, strict=True)):
        r, c = raw.shape[0] // dim, raw.shape[1] // dim
        w = np.zeros_like(raw)
        for row in range(len(raw)):
            for column in range(raw.shape[1]):
                if column // c == row // r:
                    w[row, column] = np.exp(raw[row, column])
                elif column // c < row // r:
                    w[row, column] = raw[row, column]
            w[row] *= np.exp(gain[row]) / (np.sqrt(np.sum(w[row] ** 2)) + net.epsilon)
        if k:
            h = np.tanh(h) + net.leak * h
        h = w @ h + bias
        if context is not None:
            h = h + net.contexts[k] @ (context / (1 + np.abs(context) / 10) if net.bound else context)
    if net.residual == "normal":
        return h + x
    if net.residual == "gated":
        gate = 1 / (1 + np.exp(-net.mix))
        return gate * h + (1 - gate) * x
    return h + np.exp(2 * np.tanh(net.mix / 2)) * x if net.residual == "linear" else h


OPTIONS = [{}, {"leak": 0.01}, {"leak": 0.3, "bound": None}, {"epsilon": 0.1}]


@pytest.mark.parametrize("residual", block.RESIDUALS)
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("dim", [1, 2, 4])
@pytest.mark.parametrize("options", OPTIONS)
def test_values_are_the_equations(options, dim, context_dim, residual):
    net = network(dim, context_dim=context_dim, residual=residual, **options)
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(dim, 5)), rng.normal(size=(context_dim, 5)) if context_dim else None
    y, _ = block.block(x, context, net)
    for n in range(5):
        np.testing.assert_allclose(
            y[:, n], _naive(x[:, n], None if context is None else context[:, n], net), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("residual", block.RESIDUALS)
@pytest.mark.parametrize("leak", [0.0, 0.01])
def test_log_slopes_are_the_diagonal_of_a_triangular_jacobian(leak, residual):
    net = network(4, residual=residual, leak=leak)
    x = np.random.default_rng(1).normal(size=(4, 3))
    _, log_slope = block.block(x, None, net)
    for n in range(3):
        full = jacobian(lambda point: block.block(point[:, None], None, net)[0][:, 0])(x[:, n])
        np.testing.assert_array_equal(np.triu(full, 1), 0)
        assert np.abs(np.tril(full, -1)).max() > 0.01
        np.testing.assert_allclose(np.log(np.diag(full)), log_slope[:, n], rtol=1e-11, atol=1e-12)


def test_rows_of_a_weight_have_the_length_of_their_gain():
    net = network(3)
    weight, log_blocks = block.normalised(net.weights[1], net.gains[1], 3)
    np.testing.assert_allclose(np.sqrt(np.sum(weight**2, axis=1)), np.exp(net.gains[1]), rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_blocks), block.diagonal_blocks(weight, 3), rtol=1e-14)


def test_an_epsilon_shortens_the_rows_and_those_of_the_log_slopes_by_its_square():
    raw, gain, epsilon = network(2).weights[1] - 2 * block.masks(2, 2, 3)[0], np.zeros(4), 1e-2
    exact, exact_blocks = block.normalised(raw, gain, 2)
    weight, log_blocks = block.normalised(raw, gain, 2, epsilon)
    inside, before = block.masks(2, 2, 3)
    norm = np.sqrt(np.sum((np.exp(raw) * inside + raw * before) ** 2, axis=1))
    np.testing.assert_allclose(weight, exact * (norm / (norm + epsilon))[:, None], rtol=1e-13)
    lost = 0.5 * np.log1p(epsilon / norm**2).reshape(2, 2, 1)
    assert lost.min() > 1e-4
    np.testing.assert_allclose(log_blocks, exact_blocks - lost, rtol=1e-12)


def test_an_epsilon_is_added_to_the_shares_of_a_gate():
    mix = np.array([0.7])
    for with_epsilon, share in zip(block.mixture("gated", mix, 0.01), block.mixture("gated", mix), strict=True):
        np.testing.assert_allclose(np.exp(with_epsilon), np.exp(share) + 0.01, rtol=1e-14)
    assert block.mixture("linear", mix, 0.01)[1] == block.mixture("linear", mix)[1]


@pytest.mark.parametrize("size", [800.0, -20.0])
def test_no_raw_weight_overflows(size):
    raw = network(3).weights[1] + size * block.masks(3, 2, 3)[0]
    weight, log_blocks = block.normalised(raw, np.zeros(6), 3)
    assert np.isfinite(weight).all() and np.isfinite(log_blocks).all()


def test_the_logarithm_of_the_slope_of_tanh():
    z = np.array([0.0, 0.5, -0.5, 3.0, 300.0, -1e30])
    near = np.log(1 - np.tanh(z[:4]) ** 2)
    np.testing.assert_allclose(block.log_tanh_slope(z)[:4], near, atol=1e-12)
    np.testing.assert_allclose(block.log_tanh_slope(z)[4:], [np.log(4) - 600, -2e30], rtol=1e-14)


def test_a_leak_is_all_that_is_left_of_the_slope_far_out():
    z = np.array([-1e30, -300.0, -0.5, 0.0, 3.0, 300.0, 1e30])
    h, log_slope = block.activated(z, 0.01)
    np.testing.assert_array_equal(h, np.tanh(z) + 0.01 * z)
    np.testing.assert_allclose(log_slope, np.log(1 - np.tanh(z) ** 2 + 0.01), rtol=1e-12)
    y, log_slope = block.block(np.array([[-1e30, 1e30]]), None, network(1, leak=0.01))
    assert y[0, 0] < -1e24 and y[0, 1] > 1e24 and (np.abs(log_slope) < 20).all()


def test_the_image_without_a_residual_is_bounded_and_with_one_is_not():
    x = np.array([[-1e30, 1e30], [-1e30, 1e30]])
    net = network(2)
    y, log_slope = block.block(x, None, net)
    weight, _ = block.normalised(net.weights[-1], net.gains[-1], 2)
    reach = np.sum(np.abs(weight), axis=1)
    assert (np.abs(y - net.biases[-1][:, None]) <= reach[:, None]).all()
    assert np.isfinite(log_slope).all() and (log_slope < -1e28).all()
    for residual in ("linear", "normal", "gated"):
        y, log_slope = block.block(x, None, network(2, residual=residual))
        assert (np.abs(y) > 1e26).all() and (np.abs(log_slope) < 10).all()


def test_the_published_form_loses_mass_and_the_default_does_not():
    x = np.linspace(-60, 60, 12001)[None]
    for residual, expected in (("linear", 1.0), ("none", None)):
        net = network(1, residual=residual, seed=3)
        y, log_slope = block.block(x, None, net)
        mass = np.sum(np.exp(-0.5 * y**2 + log_slope)) / np.sqrt(2 * np.pi) * (x[0, 1] - x[0, 0])
        if expected is not None:
            assert mass == pytest.approx(expected, abs=1e-9)
        else:
            from scipy.stats import norm

            assert mass == pytest.approx(norm.cdf(y[0, -1]) - norm.cdf(y[0, 0]), abs=1e-6)
            assert mass < 0.99
