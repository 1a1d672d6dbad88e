"""Properties as functions that raise AssertionError, so that the tests of the tests can watch them fail."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad, jacobian

from refnaf.flows import Flow, chain
from refnaf.flows.conditioned import Conditioned
from refnaf.flows.inverse import Inverse
from refnaf.flows.recurrent import Recurrent
from refnaf.ops import ArrayOps, ReferenceOps


def reference_log_prob(flow: Flow, x: Any, context: Any, params: Any) -> Any:
    """``log p`` by the reference, for autograd to trace: x ``(N, D)``."""
    c = None if context is None else flow.standard_context(anp.transpose(context))
    return chain.log_prob(flow.layers, flow.layer_params(params), ReferenceOps(), anp.transpose(x), c)


def close(got: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Agreement relative to the largest entry of the expected array (at least 1e-3)."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    if got.size:
        worst = np.max(np.abs(got - expected)) / max(np.max(np.abs(expected)), 1e-3)
        assert worst <= tolerance, f"{what}: off by {worst:.3g} of the largest entry"


def _theta(layer: Any, ops: ArrayOps, params: Any, y: np.ndarray, c: Any) -> np.ndarray:
    """Pseudo-parameters ``(D, P, N)``, or, of a recurrent transformation, the states that take their place."""
    if isinstance(layer, Conditioned):
        return layer.pseudo_parameters(ops, params, y, c)[0].copy()
    own = layer.recurrence
    return ops.states(y, c, own.numbers(params), own.cell, layer.bound)[0].transpose(1, 0, 2).copy()


def triangular(flow: Flow, x: np.ndarray, context: Any) -> None:
    """Each autoregressive layer: theta_i unmoved, bit for bit, by x_j of its rank or later, and y_i rising with x_i."""
    ops = ArrayOps()
    c = None if context is None else flow.standard_context(context.T)
    y = x.T.astype(flow.dtype)
    for layer, params in zip(flow.layers[1:], flow.layer_params()[1:], strict=True):
        if isinstance(layer, Inverse):
            layer = layer.layer
        if isinstance(layer, Conditioned | Recurrent):
            ranks = layer.ranks if isinstance(layer, Conditioned) else np.arange(flow.dim)
            image = layer.forward(ops, params, y, c)[0].copy()
            theta = _theta(layer, ops, params, y, c)
            for j in range(flow.dim):
                moved = y.copy()
                moved[j] += 0.25
                after = layer.forward(ops, params, moved, c)[0]
                theta_after = _theta(layer, ops, params, moved, c)
                for i in range(flow.dim):
                    if ranks[i] <= ranks[j]:
                        same = np.array_equal(theta_after[i], theta[i])
                        assert same, f"the parameters of output {i} depend on input {j}, which is not before it"
                    if ranks[i] < ranks[j]:
                        assert np.array_equal(after[i], image[i]), f"output {i} depends on the later input {j}"
                assert np.all(after[j] > image[j]), f"output {j} does not rise with its input"


def log_determinant(flow: Flow, x: np.ndarray, context: Any, tolerance: float) -> None:
    """``forward``'s log-determinant against autograd's full Jacobian of the reference."""
    _, logdet = flow.forward(x, context)
    for n in range(len(x)):
        c = None if context is None else flow.standard_context(context[n : n + 1].T)

        def image(point: Any, c: Any = c) -> Any:
            layers, params = flow.layers, flow.layer_params()
            return chain.forward(layers, params, ReferenceOps(), anp.reshape(point, (-1, 1)), c)[0][:, 0]

        sign, expected = np.linalg.slogdet(jacobian(image)(x[n]))
        assert sign > 0 or "permutation" in {layer.kind for layer in flow.layers}
        assert abs(logdet[n] - expected) <= tolerance * (1 + abs(expected)), f"{logdet[n]} against {expected}"


def twins(flow: Flow, x: np.ndarray, context: Any, tolerance: float) -> None:
    """The fast chain against the reference: log p, z, log-determinant."""
    wide = flow.astype("float64")
    c = None if context is None else wide.standard_context(context.T)
    z, logdet, _ = chain.forward(wide.layers, wide.layer_params(), ReferenceOps(), x.T, c)
    got_z, got_logdet = flow.forward(x, context)
    close(got_z, z.T, tolerance, "z")
    close(got_logdet, logdet, tolerance, "log-determinant")
    close(flow.log_prob(x, context), reference_log_prob(wide, x, context, wide.params), tolerance, "log p")


def gradients(flow: Flow, x: np.ndarray, context: Any, tolerance: float) -> None:
    """The analytic chain against autograd through the reference: data, context, every parameter."""
    wide = flow.astype("float64")
    weights = np.linspace(0.5, 1.5, len(x))

    def slow(x: Any, context: Any, params: Any) -> Any:
        return anp.sum(weights * reference_log_prob(wide, x, context, params))

    def fast(x: Any, context: Any, params: Any) -> Any:
        return anp.sum(weights * flow.log_prob(x, context, params))

    for argument, name in ((0, "x"), (1, "context")):
        if argument == 0 or context is not None:
            expected = grad(slow, argument)(x, context, dict(wide.params))
            close(grad(fast, argument)(x, context, dict(flow.params)), expected, tolerance, f"gradient of {name}")
    expected = grad(slow, 2)(x, context, dict(wide.params))
    got = grad(fast, 2)(x, context, dict(flow.params))
    for name in flow.params:
        close(got[name], expected[name], tolerance, f"gradient of {name}")


def inverse_gradients(flow: Flow, x: np.ndarray, context: Any, tolerance: float) -> None:
    """The implicit VJP of ``inverse`` against autograd through the reference's Newton step."""
    rng = np.random.default_rng(0)
    on_x, on_logdet = rng.normal(size=x.shape), rng.normal(size=len(x))
    z = flow.forward(x, context)[0]

    def slow(z: Any, context: Any, params: Any) -> Any:
        c = None if context is None else flow.standard_context(anp.transpose(context))
        out, logdet, _, _ = chain.inverse(flow.layers, flow.layer_params(params), ReferenceOps(), anp.transpose(z), c)
        return anp.sum(anp.transpose(out) * on_x) + anp.sum(logdet * on_logdet)

    def fast(z: Any, context: Any, params: Any) -> Any:
        out, logdet = flow.inverse(z, context, params)
        return anp.sum(out * on_x) + anp.sum(logdet * on_logdet)

    params = dict(flow.params)
    close(grad(fast)(z, context, params), grad(slow)(z, context, params), tolerance, "gradient of z")
    expected, got = grad(slow, 2)(z, context, params), grad(fast, 2)(z, context, params)
    for name in params:
        close(got[name], expected[name], tolerance, f"gradient of {name}")


def round_trip(flow: Flow, x: np.ndarray, context: Any, tolerance: float) -> None:
    """``inverse(forward(x)) = x`` to ``tolerance (1 + |x|)``, with opposite log-determinants."""
    z, logdet = flow.forward(x, context)
    back, other, residual = flow.inverse(z, context, return_residual=True)
    worst = np.max(np.abs(back - x) / (1 + np.abs(x)), initial=0)
    assert worst <= tolerance, f"round trip off by {worst:.3g} (1 + |x|)"
    assert np.all(np.abs(logdet + other) <= 1e3 * tolerance * (1 + np.abs(logdet))), "log-determinants do not cancel"
    assert np.isfinite(residual).all()


def integral(flow: Flow, context: Any, points: int) -> float:
    """The density's integral over the box that holds all but 1e-8 of its mass, by the trapezoidal rule (D <= 2)."""
    z = np.stack(np.meshgrid(*[np.linspace(-6.2, 6.2, 201)] * flow.dim), axis=-1).reshape(-1, flow.dim)
    reach = flow.inverse(z, context)[0]
    axes = [np.linspace(low, high, points) for low, high in zip(reach.min(axis=0), reach.max(axis=0), strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, flow.dim)
    density = np.exp(flow.log_prob(grid, context))
    return float(density.sum() * np.prod([axis[1] - axis[0] for axis in axes]))
