"""What is timed: inputs of a transformer, and the numbers of a flow, the same for every candidate."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

import refnaf
from refnaf import ops
from refnaf.flows import chain
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.flow import Flow
from refnaf.flows.transformers import transformer
from refnaf.reference._numpy import np as traced

UNITS = 16
SIZES: dict[str, dict[str, Any]] = {
    "affine": {},
    "dsf": {"units": UNITS},
    "ddsf": {"units": UNITS},
    "mog": {"components": UNITS},
}
#: How near a candidate's numbers must be to the reference's in float64 (see timing.agree). In 10,000 rows some
#: gradients are ill-conditioned: float32 differs by 2e-4 there.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """x ``(D, N)``, theta ``(D, P, N)``, the shared matrices, and cotangents of y and log dy/dx ``(D, N)``."""

    name: str
    x: np.ndarray
    theta: np.ndarray
    shared: list[np.ndarray]
    options: dict[str, Any]
    grad_y: np.ndarray
    grad_log_slope: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def reference(self) -> list[np.ndarray]:
        """y, log dy/dx and the gradients of x, theta and the shared numbers, by autograd in float64."""
        from autograd import make_vjp

        truth, name, options = ops.make("reference"), self.name, self.options

        def stacked(arguments: Any) -> Any:
            x, theta, *shared = arguments
            return traced.stack(truth.transform(name, x, theta, shared, options)[:2])

        arguments = tuple(a.astype(np.float64) for a in (self.x, self.theta, *self.shared))
        pull, out = make_vjp(stacked)(arguments)
        return [*out, *pull(np.stack([self.grad_y, self.grad_log_slope]).astype(np.float64))]


def inputs(name: str, dim: int, n: int, dtype: str, seed: int = 0, **options: Any) -> Inputs:
    """Seeded inputs: standard normal x, and parameters moved by normals from where a new flow starts."""
    rng = np.random.default_rng(seed)
    made = transformer({"name": name, **SIZES[name], **options})
    theta = made.initial(dim, rng)[:, :, None] + rng.normal(scale=0.5, size=(dim, made.count, n))
    arrays = rng.normal(size=(dim, n)), theta, rng.normal(size=(dim, n)), rng.normal(size=(dim, n))
    x, theta, grad_y, grad_log_slope = (a.astype(dtype) for a in arrays)
    shared = [a.astype(dtype) for a in made.initial_shared(rng)]
    return Inputs(name, x, theta, shared, made.options, grad_y, grad_log_slope)


@dataclasses.dataclass(frozen=True)
class Network:
    """A flow's numbers: each layer's weights and biases in turn, then its shared matrices; masks of all weights."""

    name: str
    weights: int
    bound: float
    layers: list[list[np.ndarray]]
    masks: list[np.ndarray]

    def inside(self) -> int:
        """How many entries of the weights lie inside the masks."""
        return int(sum(mask.sum() for mask in self.masks))


@functools.lru_cache(maxsize=2)
def flow(model: str, dim: int, hidden: int, dtype: str, flows: int = 5, units: int = UNITS) -> Flow:
    """A flow of two hidden layers with standardisation by 0 and 1, its parameters moved from where they start."""
    options = {"units": units} if model.endswith("dsf") else {}
    made = refnaf.build(model, dim=dim, flows=flows, hidden=(hidden, hidden), dtype=dtype, **options)
    rng = np.random.default_rng(1)
    return made.replace({k: a + rng.normal(scale=0.02, size=a.shape) for k, a in made.params.items()})


def network(model: Flow) -> Network:
    """The numbers of a flow, for other libraries."""
    params = model.layer_params()
    found = [(layer, own) for layer, own in zip(model.layers, params, strict=True) if isinstance(layer, Autoregressive)]
    layers = [[np.array(a) for a in _in_turn(layer, own)] for layer, own in found]
    masks = [mask.astype(model.dtype) for layer, _ in found for mask in layer.layer_masks]
    first = found[0][0]
    assert first.bound is not None
    return Network(first.transformer.name, len(first.layer_masks), first.bound, layers, masks)


def save_network(found: Network, path: str) -> None:
    """Write the numbers and masks to a .npz, for a process that is to hold nothing else."""
    arrays: dict[str, Any] = {f"{k}.{j}": a for k, layer in enumerate(found.layers) for j, a in enumerate(layer)}
    arrays |= {f"mask.{k}": mask for k, mask in enumerate(found.masks)}
    np.savez(path, **arrays)


def load_network(path: str, like: str, weights: int, bound: float) -> Network:
    """The network of :func:`save_network`; ``like`` is its transformer."""
    layers: dict[str, list[np.ndarray]] = {}
    with np.load(path) as file:
        for name in file.files:
            layers.setdefault(name.partition(".")[0], []).append(file[name])
    masks = layers.pop("mask")
    return Network(like, weights, bound, list(layers.values()), masks)


def _in_turn(layer: Autoregressive, own: dict[str, Any]) -> list[Any]:
    pairs = [own[f"{kind}.{k}"] for k in range(len(layer.layer_masks)) for kind in ("weight", "bias")]
    return [*pairs, *layer.shared(own)]


def rows(n: int, dim: int, dtype: str) -> np.ndarray:
    """Seeded standard normal rows ``(N, D)``."""
    return np.random.default_rng(2).normal(size=(n, dim)).astype(dtype)


def reference_step(model: Flow, x: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of ``-log p`` over rows and its gradient in all parameters, by autograd on the reference in float64."""
    from autograd import value_and_grad

    wide, truth = model.astype("float64"), ops.make("reference")

    def loss(params: dict[str, Any]) -> Any:
        own = wide.layer_params(params)
        return -traced.mean(chain.log_prob(wide.layers, own, truth, x.T.astype(np.float64), None))

    value, grads = value_and_grad(loss)(dict(wide.params))
    return float(value), np.concatenate([grads[name].ravel() for name in wide.params])
