"""The optimiser against the papers' formulas written out."""

from __future__ import annotations

import numpy as np
import pytest

from refnaf.parallel import Workers
from refnaf.training import adam as module
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


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_and_average(amsgrad, decay, backend):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=6), rng.normal(size=(40, 6)) * 5
    x, average, weight = _formulas(start, grads, 0.01, amsgrad, decay, 0.95, clip=8.0)
    adam = Adam(start.copy(), amsgrad=amsgrad, decay=decay, averaging=0.95, clip=8.0, backend=backend)
    for grad in grads:
        adam.step(grad.copy(), 0.01)
    assert weight == pytest.approx(1)
    np.testing.assert_allclose(adam.flat, x, rtol=1e-12)
    np.testing.assert_allclose(adam.average, average, rtol=1e-12)


def test_a_restart_is_a_new_beginning_elsewhere():
    rng = np.random.default_rng(0)
    grads, start = rng.normal(size=(5, 4)), rng.normal(size=4)
    adam, fresh = Adam(rng.normal(size=4), amsgrad=True), Adam(start.copy(), amsgrad=True)
    adam.step(grads[0], 0.1)
    adam.restart(start)
    for grad in grads:
        adam.step(grad, 0.1)
        fresh.step(grad, 0.1)
    for name, array in adam.state().items():
        np.testing.assert_array_equal(array, fresh.state()[name])


def test_decay_spares_what_it_should():
    adam = Adam(np.ones(2), decay=0.5, decayed=[slice(0, 1)])
    adam.step(np.zeros(2), 0.1)
    np.testing.assert_allclose(adam.flat, [0.95, 1.0])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_and_threads_make_no_difference(backend, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=1000).astype(dtype), rng.normal(size=(9, 1000)).astype(dtype)
    states = []
    for part, threads in ((10_000, 1), (128, 1), (128, 3)):
        monkeypatch.setattr(module, "PART", part)
        options = {"decay": 0.1, "decayed": [slice(3, 500), slice(600, 650)], "backend": backend}
        adam = Adam(start.copy(), workers=Workers(threads), amsgrad=True, **options)
        for grad in grads:
            adam.step(grad, 0.01, norm=31.0)
        states.append(adam.state())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_step_is_the_arrays(dtype):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=200).astype(dtype), 30 * rng.normal(size=(20, 200)).astype(dtype)
    both = [Adam(start.copy(), decay=0.01, amsgrad=True, backend=backend) for backend in ("numpy", "numba")]
    for adam in both:
        for grad in grads:
            adam.step(grad.copy(), 0.01)
    for name in Adam.STATE:
        got, expected = getattr(both[1], name), getattr(both[0], name)
        np.testing.assert_allclose(got, expected, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps)
