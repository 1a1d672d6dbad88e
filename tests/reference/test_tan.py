"""The recurrences of TAN against the paper's equations written out, a number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import jacobian

from refnaf.reference import tan
from refnaf.reference.affine import bend

each_cell = pytest.mark.parametrize("name", tan.CELLS)


def numbers(name, dim=4, size=3, context_dim=0, leak=True, seed=0):
    """A cell and an output."""
    rng = np.random.default_rng(seed)
    count = tan.rows(name, size)
    shapes = [(count,), (count, size), (dim * count,), (count, context_dim)]
    arrays = [0.7 * rng.normal(size=shape) for shape in shapes]
    cell = tan.Cell(*arrays[:3], arrays[3] if context_dim else None)
    out = [rng.normal(size=shape) for shape in ((dim, size), (dim,), (dim,), (dim,))]
    return cell, tan.Output(*out[:3], out[3] if leak else None)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_by_one(x, c, cell, name, bound):
    """h_1 to h_D of one sample, x ``(D,)``, by loops over the units."""
    count, size = cell.state.shape
    h, found = [0.0] * size, []
    for i in range(len(x)):
        seen = 0.0 if i == 0 else x[i - 1] / (1 + abs(x[i - 1]) / bound)
        p = [cell.inputs[k] * seen + cell.bias[i * count + k] for k in range(count)]
        if c is not None:
            p = [
                p[k] + sum(cell.context[k, j] * c[j] / (1 + abs(c[j]) / bound) for j in range(len(c)))
                for k in range(count)
            ]
        q = [sum(cell.state[k, j] * h[j] for j in range(size)) for k in range(count)]
        if name == "tanh":
            h = [np.tanh(a + b) for a, b in zip(p, q, strict=True)]
        elif name == "relu":
            h = [max(a + b, 0.0) for a, b in zip(p, q, strict=True)]
        else:
            reset = [sigmoid(p[k] + q[k]) for k in range(size)]
            update = [sigmoid(p[size + k] + q[size + k]) for k in range(size)]
            new = [np.tanh(p[2 * size + k] + reset[k] * q[2 * size + k]) for k in range(size)]
            h = [update[k] * h[k] + (1 - update[k]) * new[k] for k in range(size)]
        found.append(h)
    return np.array(found).T


@each_cell
@pytest.mark.parametrize("context_dim", [0, 2])
def test_states_are_the_recurrence_written_out(name, context_dim):
    cell, _ = numbers(name, context_dim=context_dim)
    rng = np.random.default_rng(1)
    x, c = 3 * rng.normal(size=(4, 5)), rng.normal(size=(context_dim, 5)) if context_dim else None
    got = tan.states(x, c, cell, name, 10.0)
    assert got.shape == (3, 4, 5)
    for n in range(5):
        expected = one_by_one(x[:, n], None if c is None else c[:, n], cell, name, 10.0)
        np.testing.assert_allclose(got[:, :, n], expected, rtol=1e-13, atol=1e-14)


@each_cell
@pytest.mark.parametrize("leak", [True, False])
def test_the_transformation_is_the_papers(name, leak):
    cell, out = numbers(name, leak=leak)
    x = 2 * np.random.default_rng(2).normal(size=(4, 6))
    y, log_slope = tan.transformation(x, None, cell, out, name, 10.0)
    for n in range(6):
        h = one_by_one(x[:, n], None, cell, name, 10.0)
        for i in range(4):
            scale = np.exp(bend(out.log_scale[i]))
            t = scale * x[i, n] + out.weight[i] @ h[:, i] + out.bias[i]
            alpha = sigmoid(bend(out.leak[i])) if leak and t < 0 else 1.0
            assert y[i, n] == pytest.approx(alpha * t, rel=1e-12, abs=1e-13)
            assert log_slope[i, n] == pytest.approx(np.log(alpha * scale), rel=1e-12, abs=1e-13)


def test_the_papers_own_numbers_are_one_for_all_dimensions():
    """``z_i = r(y x_i + w's_{i-1} + b)``, ``s_i = tanh(u x_i + V s_{i-1} + a)`` with s_0 = 0, nothing squashed."""
    rng = np.random.default_rng(3)
    u, v, a, w = rng.normal(size=3), rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    y, b, raw = 0.8, 0.3, 1.5
    # before x_1 the state is 0
    bias = np.concatenate([np.zeros(3), np.tile(a, 3)])
    scale = np.full(4, 8 * np.arctanh(np.log(y) / 8))
    out = tan.Output(np.tile(w, (4, 1)), np.full(4, b), scale, np.full(4, raw))
    x = rng.normal(size=4)
    got, _ = tan.transformation(x[:, None], None, tan.Cell(u, v, bias, None), out, "tanh", None)
    s, alpha = np.zeros(3), sigmoid(bend(np.array(raw)))
    for i in range(4):
        t = y * x[i] + w @ s + b
        assert got[i, 0] == pytest.approx(t if t > 0 else alpha * t, rel=1e-12)
        s = np.tanh(u * x[i] + v @ s + a)


@each_cell
@pytest.mark.parametrize("leak", [True, False])
def test_slopes_are_those_of_a_triangular_jacobian(name, leak):
    cell, out = numbers(name, leak=leak, seed=4)
    for x in np.random.default_rng(5).normal(size=(4, 4)):
        matrix = jacobian(lambda v: tan.transformation(v[:, None], None, cell, out, name, 10.0)[0][:, 0])(x)
        assert np.array_equal(matrix, np.tril(matrix))
        log_slope = tan.transformation(x[:, None], None, cell, out, name, 10.0)[1]
        np.testing.assert_allclose(np.log(np.diag(matrix)), log_slope[:, 0], atol=1e-12)


@each_cell
@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_the_inverse_is_exact(name, leak, scale):
    cell, out = numbers(name, context_dim=2, leak=leak, seed=6)
    rng = np.random.default_rng(7)
    x, c = scale * rng.normal(size=(4, 9)), rng.normal(size=(2, 9))
    y, log_slope = tan.transformation(x, c, cell, out, name, 10.0)
    back, other = tan.inverse(y, c, cell, out, name, 10.0)
    np.testing.assert_allclose(back, x, atol=1e-12 * scale, rtol=1e-12)
    np.testing.assert_allclose(other, -log_slope, atol=1e-12)


def test_the_leaky_relu_at_its_bend():
    z, log_slope = tan.leaky(np.array([-2.0, -0.0, 0.0, 3.0]), np.array(0.0))
    np.testing.assert_array_equal(z, [-1.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(log_slope, [np.log(0.5), 0, 0, 0])
    t, other = tan.unleaky(z, np.array(0.0))
    np.testing.assert_array_equal(t, [-2.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(other, -log_slope)


def test_pseudo_parameters_by_dimension():
    out, bias = np.arange(12.0).reshape(2, 6), np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    theta = tan.by_dimension(out, bias, 3)
    assert theta.shape == (3, 2, 2)
    for i in range(3):
        for p in range(2):
            np.testing.assert_array_equal(theta[i, p], out[p, 2 * i : 2 * i + 2] + bias[2 * i + p])
