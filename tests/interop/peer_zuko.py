"""zuko's flows with random numbers and what they make of random points. Needs zuko."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import zuko
from zuko.flows import MAF, NAF

_ELU, _TANH = {"activation": torch.nn.ELU}, {"activation": torch.nn.Tanh}

#: Case -> the flow's class, features, context features, its options, and what refnaf's importer is told.
CASES: dict[str, tuple[type[zuko.flows.Flow], int, int, dict[str, Any], dict[str, Any]]] = {
    "maf": (MAF, 4, 0, {"transforms": 2, "hidden_features": (6, 5)}, {}),
    "maf-context": (
        MAF,
        3,
        2,
        {"transforms": 2, "hidden_features": (6, 5), "randperm": True, **_ELU},
        {"activation": "elu"},
    ),
    "maf-residual": (MAF, 3, 0, {"transforms": 1, "hidden_features": (6, 6, 4), "residual": True}, {}),
    "maf-residual-context": (
        MAF,
        3,
        1,
        {"transforms": 2, "hidden_features": (4,), "residual": True, **_TANH},
        {"activation": "tanh"},
    ),
    "maf-passes": (MAF, 5, 1, {"transforms": 1, "hidden_features": (6,), "passes": 2}, {}),
    "maf-linear": (MAF, 3, 1, {"transforms": 1, "hidden_features": ()}, {}),
    "maf-one": (MAF, 1, 0, {"transforms": 2}, {}),
    "maf-one-context": (MAF, 1, 2, {"transforms": 2, "hidden_features": (5,), **_TANH}, {"activation": "tanh"}),
    "naf": (
        NAF,
        3,
        0,
        {"transforms": 2, "signal": 2, "network": {"hidden_features": (4, 3)}, "hidden_features": (6,)},
        {},
    ),
    "naf-context": (
        NAF,
        2,
        2,
        {"transforms": 3, "signal": 2, "network": {"hidden_features": (5,)}, "hidden_features": (4,), "randperm": True},
        {},
    ),
    "naf-residual": (
        NAF,
        3,
        1,
        {
            "transforms": 1,
            "signal": 3,
            "network": {"hidden_features": (2, 5, 2)},
            "hidden_features": (4,),
            "residual": True,
            **_ELU,
        },
        {"activation": "elu"},
    ),
    "naf-one": (NAF, 1, 0, {"transforms": 2, "signal": 2, "network": {"hidden_features": (4,)}}, {}),
    "naf-one-context": (
        NAF,
        1,
        1,
        {"transforms": 1, "signal": 2, "network": {"hidden_features": (4,)}, "hidden_features": (4,)},
        {},
    ),
}


def make(name: str, seed: int, scale: float = 0.5) -> zuko.flows.Flow:
    """The flow of a case with random numbers, in float64, its base moved away from the standard normal."""
    kind, dim, context_dim, options, _ = CASES[name]
    torch.manual_seed(seed)
    flow = kind(dim, context_dim, **options).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
        if seed % 2:
            flow.base.loc.add_(torch.randn(dim, dtype=torch.float64))
            flow.base.scale.mul_(1.5)
    return flow


def random(name: str, seed: int, rows: int = 6, scale: float = 0.5) -> dict[str, np.ndarray]:
    """A case with random numbers: its state (prefix "state/"), what the importer is told, and its values.

    ``x`` ``(N, D)`` is mapped to the standard normal noise ``y`` with ``logdet``, and has ``log_prob``; the noise
    ``back_y``, which for a NAF is that of other points, is mapped to ``back_x`` by the inverse.
    """
    kind, dim, context_dim, _, told = CASES[name]
    flow = make(name, seed, scale)
    options = {"dtype": torch.float64}
    with torch.no_grad():
        x, back = torch.randn(rows, dim, **options), torch.randn(rows, dim, **options)
        context = torch.randn(rows, context_dim, **options) if context_dim else None
        density = flow(context)
        loc, scale = flow.base.loc, flow.base.scale
        y, logdet = density.transform.call_and_ladj(x)
        found = {"x": x, "y": (y - loc) / scale, "logdet": logdet - scale.log().sum(), "log_prob": density.log_prob(x)}
        if kind is NAF:  # whose soft clips bound the image
            back = (density.transform(back) - loc) / scale
        found |= {"back_y": back, "back_x": density.transform.inv(back * scale + loc)}
        if context is not None:
            found["context"] = context
    found |= {f"state/{k}": v for k, v in flow.state_dict().items()}
    return {**{k: v.detach().numpy().copy() for k, v in found.items()}, "config": np.array(json.dumps(told))}


def gradients(name: str, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """State, the data (x and, if there is one, the context), and the mean nats' gradients by each of the state."""
    _, dim, context_dim, _, _ = CASES[name]
    flow = make(name, seed)
    x = torch.randn(5, dim, dtype=torch.float64)
    context = torch.randn(5, context_dim, dtype=torch.float64) if context_dim else None
    flow(context).log_prob(x).mean().backward()
    grads = {k: p.grad.numpy() for k, p in flow.named_parameters() if p.grad is not None}
    data = {"x": x.numpy()} | ({} if context is None else {"context": context.numpy()})
    return {k: v.detach().numpy() for k, v in flow.state_dict().items()}, data, grads
