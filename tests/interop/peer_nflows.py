"""nflows' transforms with random numbers and what they make of random points. Needs nflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nflows.distributions.base import Distribution
from nflows.distributions.mixture import MADEMoG
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow, MaskedAutoregressiveFlow
from nflows.transforms import (
    CompositeTransform,
    InverseTransform,
    MaskedAffineAutoregressiveTransform,
    PointwiseAffineTransform,
    RandomPermutation,
    ReversePermutation,
)
from torch.nn import functional as F

Affine = MaskedAffineAutoregressiveTransform


def _flow(dim: int, *transforms: Any) -> Any:
    return Flow(CompositeTransform(transforms), StandardNormal([dim]))


#: Case -> dimension, width of the context, the flow, and what refnaf's importer is told.
CASES: dict[str, tuple[int, int, Callable[[], Any], dict[str, Any]]] = {
    "maf": (3, 0, lambda: MaskedAutoregressiveFlow(3, 6, 2, 1), {}),
    "maf-plain": (
        4,
        0,
        lambda: MaskedAutoregressiveFlow(
            4, 7, 2, 2, use_residual_blocks=False, use_random_masks=True, use_random_permutations=True
        ),
        {},
    ),
    "one": (1, 0, lambda: Affine(1, 4), {}),
    "context": (3, 2, lambda: _flow(3, Affine(3, 5, 2, num_blocks=2)), {}),
    "context-plain": (3, 2, lambda: _flow(3, Affine(3, 5, 2, num_blocks=1, use_residual_blocks=False)), {}),
    "context-one": (1, 3, lambda: _flow(1, Affine(1, 4, 3, num_blocks=1)), {}),
    "tanh": (5, 1, lambda: Affine(5, 8, 1, activation=torch.tanh, num_blocks=2), {"activation": "tanh"}),
    "no-blocks": (3, 2, lambda: Affine(3, 5, 2, num_blocks=0, activation=F.elu), {"activation": "elu"}),
    "dropout": (3, 0, lambda: Affine(3, 5, num_blocks=1, dropout_probability=0.5).eval(), {}),
    "mog": (3, 0, lambda: MADEMoG(3, 5, None, num_blocks=1, num_mixture_components=3), {}),
    "mog-context": (3, 2, lambda: MADEMoG(3, 5, 2, num_blocks=1, num_mixture_components=2), {}),
    "mog-plain": (
        2,
        1,
        lambda: MADEMoG(2, 5, 1, num_blocks=1, num_mixture_components=4, use_residual_blocks=False),
        {},
    ),
    "mog-base": (
        3,
        1,
        lambda: Flow(
            CompositeTransform([ReversePermutation(3), Affine(3, 4, 1, num_blocks=1)]),
            MADEMoG(3, 4, 1, num_blocks=1, num_mixture_components=2),
        ),
        {},
    ),
    "standardised": (
        3,
        1,
        lambda: _flow(
            3,
            PointwiseAffineTransform(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.5, 1.5])),
            CompositeTransform([RandomPermutation(3), Affine(3, 5, 1, num_blocks=1)]),
            InverseTransform(CompositeTransform([ReversePermutation(3), PointwiseAffineTransform(0.5, 2.0)])),
            InverseTransform(Affine(3, 4, 1, num_blocks=1)),
        ),
        {},
    ),
}


def random(name: str, seed: int, rows: int = 6, scale: float = 0.5) -> dict[str, np.ndarray]:
    """A case with random numbers: its state (prefix "state/"), what the importer is told, and its values.

    ``x`` ``(N, D)`` is mapped to ``y`` with ``logdet``, and ``back_y`` to ``back_x`` with ``back_logdet`` by the
    inverse. Where the case is a distribution, ``log_prob`` is that of x. Over a mixture y is not the noise, and is left
    out.
    """
    dim, context_dim, make, told = CASES[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    try:
        module = make()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
            x, back = torch.randn(rows, dim), torch.randn(rows, dim)
            context = torch.randn(rows, context_dim) if context_dim else None
            found = {"x": x, **({} if context is None else {"context": context})}
            if isinstance(module, Distribution):
                found["log_prob"] = module.log_prob(x, context)
            if not name.startswith("mog"):
                transform = module._transform if isinstance(module, Flow) else module
                found["y"], found["logdet"] = transform(x, context)
                found["back_x"], found["back_logdet"] = transform.inverse(back, context)
                found["back_y"] = back
        found |= {f"state/{k}": v for k, v in module.state_dict().items()}
        return {**{k: v.detach().numpy().copy() for k, v in found.items()}, "config": np.array(json.dumps(told))}
    finally:
        torch.set_default_dtype(before)
