"""Flows of other libraries as functions on NumPy arrays, for ``refnaf.verify.check_flow``: what to copy for one's own.

Each function here gives a dict of forward, inverse, log_prob and sample (those that the flow has). Set torch's default
dtype to float64, or JAX's ``jax_enable_x64``, before the flow is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

Functions = dict[str, Callable[..., Any]]


def _torch() -> Any:
    return importlib.import_module("torch")


def _given(c: np.ndarray | None) -> tuple[Any, ...]:
    return () if c is None else (_torch().tensor(c),)


def _without_gradients(functions: Functions) -> Functions:
    """NumPy in and out, and no graph; sampling is seeded."""
    torch = _torch()

    def plain(value: Any) -> Any:
        return tuple(part.numpy() for part in value) if isinstance(value, (tuple, list)) else value.numpy()

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: np.ndarray, c: np.ndarray | None = None) -> Any:
            with torch.no_grad():
                return plain(function(torch.tensor(x), *_given(c)))

        return call

    def sample(n: int, seed: int, context: np.ndarray | None = None) -> Any:
        torch.manual_seed(seed)
        with torch.no_grad():
            return plain(functions["sample"](n, *_given(context)))

    out = {name: wrapped(function) for name, function in functions.items() if name != "sample"}
    return out | ({"sample": sample} if "sample" in functions else {})


def zuko(flow: Any) -> Functions:
    """A ``zuko.flows.Flow``."""
    return _without_gradients(
        {
            "forward": lambda x, *c: flow(*c).transform.call_and_ladj(x),
            "inverse": lambda z, *c: flow(*c).transform.inv.call_and_ladj(z),
            "log_prob": lambda x, *c: flow(*c).log_prob(x),
            "sample": lambda n, *c: flow(*c).sample(() if c else (n,)),
        }
    )


def nflows(flow: Any) -> Functions:
    """An ``nflows.flows.Flow`` in evaluation mode."""
    return _without_gradients(
        {
            "forward": flow._transform,
            "inverse": flow._transform.inverse,
            "log_prob": flow.log_prob,
            "sample": lambda n, *c: flow.sample(1, *c)[:, 0] if c else flow.sample(n),
        }
    )


def torchflows(flow: Any) -> Functions:
    """A ``torchflows.flows.Flow`` in evaluation mode."""
    return _without_gradients(
        {
            "forward": flow.bijection.forward,
            "inverse": flow.bijection.inverse,
            "log_prob": flow.log_prob,
            "sample": flow.sample,
        }
    )


def pyro_density(transform: Any) -> Functions:
    """A Pyro transform that takes data to noise, as its neural autoregressive ones must (they have no inverse)."""

    def forward(x: Any) -> Any:
        z = transform(x)
        return z, transform.log_abs_det_jacobian(x, z)

    return _without_gradients({"forward": forward})


def pyro_sampler(transform: Any, dim: int) -> Functions:
    """A Pyro transform with an inverse, that takes noise to data."""
    torch = _torch()
    distributions = importlib.import_module("pyro.distributions")
    base = distributions.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1)
    density = distributions.TransformedDistribution(base, [transform])

    def forward(x: Any) -> Any:
        z = transform.inv(x)
        return z, -transform.log_abs_det_jacobian(z, x)

    def inverse(z: Any) -> Any:
        x = transform(z)
        return x, transform.log_abs_det_jacobian(z, x)

    sample = lambda n: density.sample((n,))  # noqa: E731
    return _without_gradients({"forward": forward, "inverse": inverse, "log_prob": density.log_prob, "sample": sample})


def flowjax(flow: Any) -> Functions:
    """A flowjax distribution over one base normal, with or without a condition."""
    jax, unwrap = importlib.import_module("jax"), importlib.import_module("paramax").unwrap

    def rows(name: str) -> Callable[..., Any]:
        def one(*arguments: Any) -> Any:
            return getattr(unwrap(flow.bijection), name)(*arguments)

        compiled = jax.jit(jax.vmap(one))
        return lambda *arguments: tuple(np.asarray(part) for part in compiled(*arguments))

    def sample(n: int, key: int, context: np.ndarray | None = None) -> np.ndarray:
        shape, condition = ((n,), {}) if context is None else ((), {"condition": context})
        return np.asarray(flow.sample(jax.random.key(key), shape, **condition))

    return {
        "forward": rows("inverse_and_log_det"),
        "inverse": rows("transform_and_log_det"),
        "log_prob": lambda *arguments: np.asarray(flow.log_prob(*arguments)),
        "sample": sample,
    }
