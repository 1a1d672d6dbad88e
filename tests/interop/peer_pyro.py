"""Pyro's transforms with random numbers and what they make of random points. Needs Pyro."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyro.distributions.transforms as T
import torch
from pyro.distributions.torch_transform import ComposeTransformModule
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN
from torch import nn

NONLINEARITIES = {"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}

#: Case -> dimension, width of the context, and the transforms with their settings; networks by "hidden" and "skip".
CASES: dict[str, tuple[int, int, list[dict[str, Any]]]] = {
    "affine": (3, 0, [{"name": "AffineAutoregressive", "hidden": [6]}]),
    "affine-one": (1, 0, [{"name": "AffineAutoregressive", "hidden": [3]}]),
    "affine-deep": (5, 0, [{"name": "AffineAutoregressive", "hidden": [7, 9], "nonlinearity": "tanh"}]),
    "affine-clips": (
        3,
        0,
        [{"name": "AffineAutoregressive", "hidden": [6], "log_scale_min_clip": -0.3, "log_scale_max_clip": 0.2}],
    ),
    "affine-context": (3, 2, [{"name": "ConditionalAffineAutoregressive", "hidden": [6, 5]}]),
    "affine-stable": (
        3,
        0,
        [{"name": "AffineAutoregressive", "hidden": [6], "stable": True, "sigmoid_bias": 1.5, "nonlinearity": "elu"}],
    ),
    "affine-skip": (4, 0, [{"name": "AffineAutoregressive", "hidden": [6, 5], "skip": True}]),
    "affine-skip-context": (3, 2, [{"name": "ConditionalAffineAutoregressive", "hidden": [6, 5], "skip": True}]),
    "neural": (3, 0, [{"name": "NeuralAutoregressive", "hidden": [6], "hidden_units": 4}]),
    "neural-context": (3, 2, [{"name": "ConditionalNeuralAutoregressive", "hidden": [5, 6], "hidden_units": 3}]),
    "neural-tanh": (3, 0, [{"name": "NeuralAutoregressive", "hidden": [6], "hidden_units": 4, "activation": "tanh"}]),
    "neural-elu": (3, 0, [{"name": "NeuralAutoregressive", "hidden": [6], "hidden_units": 4, "activation": "ELU"}]),
    "neural-leaky": (
        2,
        0,
        [{"name": "NeuralAutoregressive", "hidden": [6], "hidden_units": 4, "activation": "LeakyReLU"}],
    ),
    "planar": (3, 0, [{"name": "Planar"}, {"name": "Planar"}]),
    "block": (3, 0, [{"name": "BlockAutoregressive", "hidden_factors": [4, 2], "residual": "normal"}]),
    "block-gated": (2, 0, [{"name": "BlockAutoregressive", "hidden_factors": [3], "residual": "gated"}]),
    "block-plain": (2, 0, [{"name": "BlockAutoregressive", "hidden_factors": [3]}]),
    "stack": (
        3,
        2,
        [
            {"name": "ConditionalAffineAutoregressive", "hidden": [5]},
            {"name": "Permute", "permutation": [2, 0, 1]},
            {"name": "NeuralAutoregressive", "hidden": [5], "hidden_units": 2},
            {"name": "AffineTransform", "loc": [1.0, -2.0, 0.5], "scale": [2.0, 0.5, 1.5]},
        ],
    ),
    "stack-inverse": (
        3,
        0,
        [
            {"name": "AffineAutoregressive", "hidden": [5], "inverse": True},
            {"name": "Permute", "permutation": [2, 0, 1], "inverse": True},
            {"name": "AffineTransform", "loc": 0.5, "scale": [2.0, 0.5, 1.5], "inverse": True},
            {"name": "AffineAutoregressive", "hidden": [5], "stable": True, "inverse": True},
        ],
    ),
}


def transform(spec: dict[str, Any], dim: int, context_dim: int) -> Any:
    """One transform as Pyro builds it, its ``.inv`` not taken."""
    options = {k: v for k, v in spec.items() if k not in ("name", "hidden", "skip", "nonlinearity", "inverse")}
    name = spec["name"]
    if name == "Permute":
        return T.Permute(torch.tensor(options["permutation"]))
    if name == "AffineTransform":
        return T.AffineTransform(torch.tensor(options["loc"]), torch.tensor(options["scale"]), event_dim=1)
    if name == "Planar":
        return T.Planar(dim)
    if name == "BlockAutoregressive":
        return T.BlockAutoregressive(dim, **options)
    conditional = name.startswith("Conditional")
    units = options.get("hidden_units", 0)
    common = {
        "param_dims": [units] * 3 if units else [1, 1],
        "skip_connections": spec.get("skip", False),
        "nonlinearity": NONLINEARITIES[spec.get("nonlinearity", "relu")](),
    }
    net = (
        ConditionalAutoRegressiveNN(dim, context_dim, spec["hidden"], **common)
        if conditional
        else AutoRegressiveNN(dim, spec["hidden"], **common)
    )
    return getattr(T, name)(net, **options)


def loaded(state: dict[str, np.ndarray], specs: list[dict[str, Any]], dim: int, context_dim: int) -> list[Any]:
    """Transforms of these settings, and of the state's sizes, with the state loaded: every name must be there."""
    parts, place = [], 0
    for spec in specs:
        bare = spec["name"] in ("Permute", "AffineTransform")
        own = {} if bare else {n.split(".", 1)[1]: a for n, a in state.items() if n.startswith(f"{place}.")}
        widths = [len(own[name]) for name in sorted(own) if ".layers." in name and name.endswith("bias")]
        part = transform({**spec, "hidden": widths[:-1]}, dim, context_dim)
        if not bare:
            part.load_state_dict({n: torch.tensor(a) for n, a in own.items()}, strict=True)
            place += 1
        parts.append(part)
    return parts


def config(spec: dict[str, Any]) -> dict[str, Any]:
    """What refnaf's importer is told of a transform."""
    return {k: v for k, v in spec.items() if k not in ("hidden", "skip")}


def through(parts: list[Any], specs: list[dict[str, Any]], x: Any, context: Any, back: bool = False) -> tuple[Any, Any]:
    """A point through the transforms, or back through them, and the log-determinant."""
    logdet = torch.zeros(len(x))
    pairs = list(zip(parts, specs, strict=True))
    for part, spec in reversed(pairs) if back else pairs:
        if spec["name"].startswith("Conditional"):
            part = part.condition(context)
        if back != spec.get("inverse", False):
            y = part._inverse(x)
            logdet = logdet - _logdet(part, y, part(y))
        else:
            y = part(x)
            logdet = logdet + _logdet(part, x, y)
        x = y
    return x, logdet


def _logdet(part: Any, x: Any, y: Any) -> Any:
    found = part.log_abs_det_jacobian(x, y)
    return found.sum(-1) if found.ndim == 2 else found


def _jacobians(parts: list[Any], specs: list[dict[str, Any]], x: Any, context: Any) -> Any:
    out = []
    for n in range(len(x)):
        c = None if context is None else context[n : n + 1]

        def image(row: Any, c: Any = c) -> Any:
            return through(parts, specs, row[None], c)[0][0]

        with torch.enable_grad():
            out.append(torch.linalg.slogdet(torch.autograd.functional.jacobian(image, x[n]))[1])
    return torch.stack(out)


def random(name: str, seed: int, rows: int = 6, scale: float = 0.5) -> dict[str, np.ndarray]:
    """A case with random numbers: its state, what the importer is told, and its values.

    ``x`` ``(N, D)`` is mapped to ``y`` with ``logdet`` as Pyro has it, and ``true_logdet`` by the Jacobian; where all
    transforms have an inverse, ``back_y`` to ``back_x`` with ``back_logdet``. Names of the state have the prefix
    "state/".
    """
    dim, context_dim, specs = CASES[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    try:
        parts = [transform(spec, dim, context_dim) for spec in specs]
        modules = [part for part in parts if isinstance(part, nn.Module)]
        plain = len(modules) < len(parts) and not any(spec["name"].startswith("Conditional") for spec in specs)
        module = modules[0] if len(parts) == 1 else (ComposeTransformModule(parts) if plain else nn.ModuleList(modules))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
            x, context = torch.randn(rows, dim), torch.randn(rows, context_dim) if context_dim else None
            y, logdet = through(parts, specs, x, context)
            found = {"x": x, "y": y, "logdet": logdet, **({"context": context} if context_dim else {})}
            found["true_logdet"] = _jacobians(parts, specs, x, context)
            if all("Affine" in spec["name"] or spec["name"] == "Permute" for spec in specs):
                back = torch.randn(rows, dim)
                found["back_y"] = back
                found["back_x"], found["back_logdet"] = through(parts, specs, back, context, back=True)
        found |= {f"state/{k}": v for k, v in module.state_dict().items()}
        told = json.dumps({"transforms": [config(spec) for spec in specs]})
        return {**{k: v.detach().numpy().copy() for k, v in found.items()}, "config": np.array(told)}
    finally:
        torch.set_default_dtype(before)
