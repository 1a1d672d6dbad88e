"""Every twin of a transformer against the reference that autograd differentiates, in units in the last place.

A unit here is the rounding of the result and that of the problem: the dtype's epsilon times the size of the number, and
times what relative changes of that size in the inputs make of it (by random changes of the reference). No algorithm can
be expected to stay below the second.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.core import make_vjp

from refnaf import ops as operations
from refnaf.flows.transformers import TRANSFORMERS, transformer

#: Units that a twin may be off by; a shared array's cotangent is a sum over all samples, whose terms nearly cancel
#: close to the identity.
UNITS, UNITS_OF_SUMS = 8, 32
#: Relative changes of the inputs from which the condition is taken, and how many.
STEP, TRIES = 1e-7, 24
#: Not a mixture of one: q scales out, where no other is near, dy/dx is the ratio of two densities of exp(-q^2 / 2),
#: which costs some q^2 / 2 units.
CONFIGS = [
    {"name": "affine"},
    {"name": "affine", "form": "gated"},
    {"name": "affine", "form": "softplus"},
    {"name": "dsf", "units": 1},
    {"name": "dsf", "units": 16},
    {"name": "ddsf", "units": 16},
    {"name": "ddsf", "units": 3, "layers": 3},
    {"name": "mean", "units": 8},
    {"name": "mog", "components": 10},
    {"name": "mog", "components": 4, "floor": 1e-3},
]
ids = ["-".join(str(v) for v in config.values()) for config in CONFIGS]


def inputs(
    config: dict[str, Any], dtype: type, seed: int, spread: float, n: int = 70
) -> tuple[Any, list[np.ndarray], list[Any]]:
    """The transformer; x, theta and the shared parameters; cotangents of y and log dy/dx."""
    rng = np.random.default_rng(seed)
    made, dim = transformer(config), 2
    theta = made.initial(dim, rng)[:, :, None] + spread * rng.normal(size=(dim, made.count, n))
    arrays = [2 * rng.normal(size=(dim, n)), theta, *made.initial_shared(rng)]
    arrays = [np.asarray(a, dtype) for a in arrays]
    return made, arrays, [rng.normal(size=(dim, n)).astype(dtype) for _ in range(2)]


def _reference(made: Any, arrays: list[np.ndarray], cotangents: list[np.ndarray]) -> list[np.ndarray]:
    """y, log dy/dx and the cotangents of the inputs, in more digits than float64 where the machine has them."""
    wide = np.float64 if made.name == "mog" else np.longdouble  # whose normal tails are fitted to float64

    def mapped(args: Any) -> Any:
        x, theta, *shared = args
        y, log_slope = operations.REFERENCE[made.name](x, anp.moveaxis(theta, 1, 0), *shared, **made.options)
        return anp.stack([y, log_slope + 0 * y])

    pull, image = make_vjp(mapped, tuple(np.asarray(a, wide) for a in arrays))
    return [*image, *pull(np.asarray(cotangents, wide))]


def twin(backend: str, made: Any, arrays: list[np.ndarray], cotangents: list[np.ndarray]) -> list[np.ndarray]:
    ops = operations.make(backend)
    x, theta, *shared = (ops.put(a.copy()) for a in arrays)
    on_y, on_log_slope = (ops.put(a) for a in cotangents)
    y, log_slope, saved = ops.transform(made.name, x, theta, shared, made.options)
    image = [np.array(ops.get(y)), np.array(ops.get(log_slope))]
    grad_x, grad_theta, grad_shared = ops.transform_vjp(saved, on_y, on_log_slope)
    return [*image, *(ops.get(a) for a in (grad_x, grad_theta, *grad_shared))]


def worst_units(
    config: dict[str, Any], backend: str, dtype: type, seed: int, spread: float, spoil: Any = None, n: int = 70
) -> list[float]:
    """Units by which y, log dy/dx and each cotangent are off at worst."""
    made, arrays, cotangents = inputs(config, dtype, seed, spread, n)
    exact = _reference(made, arrays, cotangents)
    rng = np.random.default_rng(seed + 1)
    condition = [np.zeros_like(e) for e in exact]
    for _ in range(TRIES):
        changed = [a * (1 + STEP * rng.choice([-1.0, 1.0], size=a.shape)) for a in map(np.longdouble, arrays)]
        pulled = [a * (1 + STEP * rng.choice([-1.0, 1.0], size=a.shape)) for a in map(np.longdouble, cotangents)]
        for total, other, e in zip(condition, _reference(made, changed, pulled), exact, strict=True):
            np.maximum(total, np.abs(other - e) / STEP, out=total)
    got = twin(backend, made, arrays, cotangents)
    if spoil is not None:
        spoil(got)
    sizes = [np.abs(e) + c for e, c in zip(exact, condition, strict=True)]
    for size in sizes[:2]:
        size += 1  # both are logarithms of ratios, which near zero are absolute quantities
    # of the cotangents, a column of x and theta is one vector, and so is each shared array
    column = np.maximum(sizes[2], np.max(sizes[3], axis=1))
    sizes[2:4] = column, column[:, None]
    sizes[4:] = [np.max(size) for size in sizes[4:]]
    eps = np.finfo(dtype).eps
    return [float(np.max(np.abs(g - e) / (eps * size))) for g, e, size in zip(got, exact, sizes, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_values_and_vjps_in_units_in_the_last_place(config, backend, dtype):
    if config["name"] == "mog" and dtype is np.float64:
        pytest.skip("the reference has no more digits than float64 here: test_cpu_mixture has the comparison")
    for seed, spread in enumerate((0.1, 0.5, 1.0, 2.0)):
        worst = worst_units(config, backend, dtype, seed, spread)
        assert max(worst[:4]) < UNITS, f"spread {spread}: {np.round(worst, 1)}"
        assert max(worst[4:], default=0) < UNITS_OF_SUMS, f"spread {spread}: {np.round(worst, 1)}"


def test_every_transformer_is_here():
    assert {config["name"] for config in CONFIGS} == set(TRANSFORMERS) - {"monotonic"}


@pytest.mark.parametrize("place", range(7))
def test_a_few_more_units_are_seen(place):
    def spoil(arrays: list[np.ndarray]) -> None:
        flat = arrays[place].reshape(-1)
        k = int(np.argmax(np.abs(flat)))
        flat[k] *= 1 + 100 * np.finfo(np.float32).eps

    config = {"name": "ddsf", "units": 4}
    right, wrong = (worst_units(config, "numba", np.float32, 0, 1.0, how)[place] for how in (None, spoil))
    assert right < UNITS < wrong
