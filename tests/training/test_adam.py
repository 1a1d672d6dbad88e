"""The optimiser against the papers' formulas written out."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.training.adam import Adam


def _formulas(start, grads, rate, amsgrad, decay, averaging, clip):
    x, m, v, top = start.copy(), 0 * start, 0 * start, 0 * start
    values, weights = [], []
    for t, g in enumerate(grads, 1):
        g = g * min(1, clip / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        top = np.maximum(top, v)
        used = top if amsgrad else v
        x = x - rate * decay * x - rate * (m / (1 - 0.9**t)) / (np.sqrt(used / (1 - 0.999**t)) + 1e-8)
        keep = min(averaging, (1 + t) / (10 + t)) if t > 1 else 0
        weights = [w * keep for w in weights] + [1 - keep]
        values.append(x)
    return x, np.average(values, axis=0, weights=weights), sum(weights)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_and_average(amsgrad, decay):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=6), rng.normal(size=(40, 6)) * 5
    x, average, weight = _formulas(start, grads, 0.01, amsgrad, decay, 0.95, clip=8.0)
    adam = Adam(start.copy(), amsgrad=amsgrad, decay=decay, averaging=0.95, clip=8.0)
    for grad in grads:
        adam.step(grad.copy(), 0.01)
    assert weight == pytest.approx(1)
    np.testing.assert_allclose(adam.flat, x, rtol=1e-12)
    np.testing.assert_allclose(adam.average, average, rtol=1e-12)


def test_undo_takes_back_one_step():
    rng = np.random.default_rng(0)
    adam = Adam(rng.normal(size=4), amsgrad=True)
    adam.step(rng.normal(size=4), 0.1)
    before = adam.state()
    adam.step(rng.normal(size=4), 0.1)
    adam.undo()
    for name, array in adam.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_decay_spares_what_it_should():
    adam = Adam(np.ones(2), decay=0.5, decayed=np.array([1.0, 0.0]))
    adam.step(np.zeros(2), 0.1)
    np.testing.assert_allclose(adam.flat, [0.95, 1.0])
