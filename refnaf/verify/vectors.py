"""Golden vectors: a flow's numbers, inputs, outputs and gradients in one file, to hold any implementation against.

A safetensors file of float64 (and one int64) arrays; N rows, D columns, C columns of context, K layers, P
pseudo-parameters a dimension:

==================================  ======================================================================
inputs/x (N, D)                     rows; inputs/context (N, C) where the flow has one
inputs/kind (N,)                    0 random, 1 a tail (as far out as nats are finite), 2 exact corner values
outputs/z, logdet, log_prob         refnaf's in float64: (N, D), (N,), (N,); nats
layers/{k}/y, logdet                after each layer, (N, D) and (N,); layer 0 is the standardisation
layers/{k}/theta (N, D, P)          raw pseudo-parameters of autoregressive layers, also where one is run backwards
oracle/z, logdet, log_prob,         the same in arbitrary precision, rounded to float64: what is true of the flow
oracle/layers/{k}/...
grads/x, grads/context              of 0.7 sum(z) + 1.3 sum(logdet) over the rows of kind 0, zeros in the other rows
grads/params/{name}                 the same by the parameters
params/{name}, buffers/{name}       the flow's numbers
inverse/z, x, logdet                base points, refnaf's inverse of them and log|det dx/dz|; row m under context row m
oracle/inverse/x                    the true inverse
==================================  ======================================================================

The metadata entry ``refnaf`` is a JSON object: ``kind`` "vectors", ``config`` (of the flow: with params and buffers it
makes the flow again), ``digits`` of the oracle, ``seed``, ``objective`` of the gradients, ``versions``. Random rows,
contexts, base points and the parameters of unfitted flows are float32 numbers, so that single precision can hold them
exactly. refnaf/verify/README.md shows how to read a file from NumPy, PyTorch, JAX and C++.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import refnaf.flows
from refnaf import __version__
from refnaf import ops as operations
from refnaf.flows.flow import Flow, _assemble
from refnaf.persistence import FileFormatError, check_writable, read_archive, write_archive

OBJECTIVE = "0.7 * sum(z) + 1.3 * sum(logdet) over the rows of kind 0"
#: Magnitudes of the tails, taken in turn; where log p overflows, the square root is tried.
TAILS = (1e30, 1e3, 1e300, 30.0, 1e12, 1e100, 1e6, 1e150)
#: Values that every column of a corner row has; None stands for the means, which are standardised to zero.
CORNERS = (0.0, None, -0.0, 1.0, 2.0**-1022, -1.0, -(2.0**-1022), 2.0**-1074, 2.0**-52, 1 + 2.0**-52)
#: Points that are inverted.
INVERTED = 8

#: The files that come with the package: model, columns, columns of context, and options.
SHIPPED: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "maf": ("maf", 3, 0, {"flows": 2, "hidden": (6, 5)}),
    "maf-ddsf-context": ("maf-ddsf", 2, 2, {"flows": 2, "hidden": (6,), "units": 3}),
    "maf-dsf-channels": (
        "maf-dsf",
        3,
        0,
        {"flows": 2, "hidden": (8,), "units": 4, "channels": 3, "activation": "tanh"},
    ),
    "iaf-dsf": ("iaf-dsf", 2, 0, {"flows": 2, "hidden": (6,), "units": 3, "permutation": "random"}),
}
SHIPPED_ROWS = 20


def example_flow(model: str, dim: int, context_dim: int = 0, seed: int = 0, **options: Any) -> Flow:
    """An unfitted float64 flow, moved away from the identity by seeded noise, standardisation and all.

    Its numbers are float32 numbers. Arguments as those of :func:`refnaf.build`, and its errors.
    """
    flow = refnaf.flows.build(model, dim, context_dim, seed=seed, dtype="float64", **options)
    rng = np.random.default_rng([seed, 1])
    flow = flow.replace({name: _single(a + 0.3 * rng.normal(size=a.shape)) for name, a in flow.params.items()})
    for name, buffer in flow.layers[0].buffers.items():
        noise = rng.uniform(0.5, 2, buffer.shape) if "scale" in name else rng.normal(size=buffer.shape)
        buffer[...] = _single(noise)
    return flow


def write_vectors(flow: Flow, path: str | os.PathLike[str], rows: int = 32, seed: int = 0, digits: int = 50) -> None:
    """Write golden vectors of a flow, atomically; the layout is this module's docstring.

    A float32 flow is taken to float64 first, its numbers as they are. A quarter of the rows each are tails and corners.
    The same arguments give the same inputs and oracle on any machine; refnaf's own numbers depend in their last bits on
    the BLAS. Raises ValueError where ``rows`` is below 1 or the oracle has no equation for a layer, ImportError without
    mpmath, OSError where the file cannot be written.
    """
    check_writable(path)
    tensors, header = vectors(flow, rows, seed, digits)
    write_archive(path, tensors, header)


def read_vectors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and the header. Raises FileFormatError for any other file, FileNotFoundError for none."""
    tensors, header = read_archive(path)
    if header.get("kind") != "vectors":
        raise FileFormatError(
            f"{os.fspath(path)} holds a {header.get('kind')}, not golden vectors: give a file made by refnaf vectors"
        )
    return tensors, header


def flow_of(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> Flow:
    """The float64 flow that golden vectors are of."""
    params, buffers = (
        {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}
        for prefix in ("params/", "buffers/")
    )
    return _assemble(header["config"], params, buffers, "numpy", None, [], {})


def shipped() -> dict[str, Path]:
    """Paths of the golden vectors that come with the package, by name."""
    folder = Path(__file__).parent / "golden"
    return {name: folder / f"{name}.safetensors" for name in SHIPPED}


def write_shipped(folder: str | os.PathLike[str]) -> list[Path]:
    """Make the shipped files again, in an existing folder."""
    made = []
    for name, (model, dim, context_dim, options) in SHIPPED.items():
        path = Path(folder) / f"{name}.safetensors"
        write_vectors(example_flow(model, dim, context_dim, **options), path, rows=SHIPPED_ROWS)
        made.append(path)
    return made


def vectors(flow: Flow, rows: int, seed: int, digits: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the header of :func:`write_vectors`."""
    from refnaf.verify import oracle
    from refnaf.verify.oracle_layers import INVERSES
    from refnaf.verify.precision import mpmath

    if rows < 1:
        raise ValueError(f"golden vectors need at least one row, got rows={rows}")
    mpmath()
    flow = flow.astype(np.float64)
    x, context, kind, z = _inputs(flow, rows, seed)
    out: dict[str, np.ndarray] = {"inputs/x": x, "inputs/kind": kind}
    if context is not None:
        out["inputs/context"] = context
    out["outputs/z"], out["outputs/logdet"] = flow.forward(x, context)
    out["outputs/log_prob"] = flow.log_prob(x, context)
    out |= _layers(flow, x, context)
    true = oracle.evaluate(flow, x, context, digits).rounded()
    out |= {f"oracle/{name}": getattr(true, name) for name in ("z", "logdet", "log_prob")}
    for k, layer in enumerate(true.layers):
        parts = {"y": layer.y, "logdet": layer.logdet, "theta": layer.theta}
        out |= {f"oracle/layers/{k}/{name}": array for name, array in parts.items() if array is not None}
    out |= _gradients(flow, x, context, kind)
    out |= {f"params/{name}": array for name, array in flow.params.items()}
    out |= {f"buffers/{name}": array for name, array in flow.buffers.items()}
    few = None if context is None else context[: len(z)]
    out["inverse/z"] = z
    out["inverse/x"], out["inverse/logdet"] = flow.inverse(z, few)
    if all(layer.kind in INVERSES for layer in flow.layers):
        out["oracle/inverse/x"] = oracle.invert(flow, z, few, digits).rounded().z
    header = {
        "kind": "vectors",
        "config": flow.config,
        "digits": digits,
        "seed": seed,
        "objective": OBJECTIVE,
        "versions": {"refnaf": __version__, "numpy": np.__version__, "mpmath": version("mpmath")},
    }
    return out, header


def _single(array: np.ndarray) -> np.ndarray:
    """Rounded to float32 numbers, as float64."""
    return array.astype(np.float32).astype(np.float64)


def _inputs(flow: Flow, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """x, context, kind and base points. Only correctly rounded operations, so that any machine gives the same bits."""
    rng = np.random.default_rng([seed, 2])
    mean, scale = flow.layers[0].buffers["mean"], flow.layers[0].buffers["scale"]
    x = _single(mean + 1.5 * scale * rng.normal(size=(rows, flow.dim)))
    context: np.ndarray | None = None
    if flow.context_dim:
        first = flow.layers[0].buffers
        context = _single(first["context_mean"] + first["context_scale"] * rng.normal(size=(rows, flow.context_dim)))
    kind = np.zeros(rows, np.int64)
    quarter = rows // 4
    kind[rows - 2 * quarter : rows - quarter], kind[rows - quarter :] = 1, 2
    for index, row in enumerate(np.flatnonzero(kind == 2)):
        corner = CORNERS[index % len(CORNERS)]
        x[row] = mean if corner is None else corner
    for index, row in enumerate(np.flatnonzero(kind == 1)):
        size = TAILS[index % len(TAILS)]
        # every column, or one of them
        columns = np.arange(flow.dim) if index % 2 == 0 else rng.integers(flow.dim, size=1)
        signs = rng.choice([-1.0, 1.0], len(columns))
        while True:
            x[row, columns] = signs * size
            c = None if context is None else context[row : row + 1]
            with np.errstate(all="ignore"):
                if np.isfinite(flow.log_prob(x[row : row + 1], c)[0]):
                    break
            size = float(np.sqrt(size))
    return x, context, kind, _single(1.5 * rng.normal(size=(min(rows, INVERTED), flow.dim)))


def _layers(flow: Flow, x: np.ndarray, context: np.ndarray | None) -> dict[str, np.ndarray]:
    """What each layer gives in float64."""
    ops = operations.ArrayOps()
    c = flow.standard_context(None if context is None else np.ascontiguousarray(context.T))
    out: dict[str, np.ndarray] = {}
    here: Any = np.ascontiguousarray(x.T)
    for k, (layer, params) in enumerate(zip(flow.layers, flow.layer_params(), strict=True)):
        y, logdet, _ = layer.forward(ops, params, here, c)
        y = np.array(y)
        out[f"layers/{k}/y"], out[f"layers/{k}/logdet"] = y.T, np.array(logdet)
        # of a layer run backwards the network reads the image
        network, read = (layer.layer, y) if hasattr(layer, "layer") else (layer, here)
        if hasattr(network, "pseudo_parameters"):
            theta = network.pseudo_parameters(ops, params, read, c)[0]
            out[f"layers/{k}/theta"] = np.array(np.moveaxis(theta, 2, 0))
        here = y
    return out


def _gradients(flow: Flow, x: np.ndarray, context: np.ndarray | None, kind: np.ndarray) -> dict[str, np.ndarray]:
    from autograd import grad

    usual = kind == 0

    def objective(x: Any, context: Any, params: Any) -> Any:
        z, logdet = flow.forward(x, context, params)
        return 0.7 * z.sum() + 1.3 * logdet.sum()

    point = (x[usual], None if context is None else context[usual], dict(flow.params))
    out = {"grads/x": np.zeros_like(x)}
    out["grads/x"][usual] = grad(objective, 0)(*point)
    if context is not None:
        out["grads/context"] = np.zeros_like(context)
        out["grads/context"][usual] = grad(objective, 1)(*point)
    if flow.params:
        out |= {f"grads/params/{name}": np.asarray(array) for name, array in grad(objective, 2)(*point).items()}
    return out
