"""torch at the work of ``power_curve.py``: the lean algebra with channels; AdamW, clipping and averaging on vectors.

Compiled, all layers and the loss are one graph with one backward pass, which takes a twentieth less time than layers
compiled one by one as in ``lean_torch``. Numbers, gradient, mask and average are a vector each, with the weights, which
alone decay, in front: the optimiser's part is then a few operations.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import cases
import lean
import lean_torch
import numpy as np
from lean_torch import torch
from power_curve_work import Batches, Skips, Work

#: Rows scored together.
CHUNK = 4000
#: How lean.flow_layer knows the transformer below.
CHANNELLED = "ddsf of channels"


def channelled_ddsf(lib: lean.Library, x: Any, channels: Any, weight: Any, bias: Any, *matrices: Any) -> Any:
    """A DDSF whose pseudo-parameters are one linear map ``(P, C)`` of every dimension's channels ``(D, C, N)``."""
    # a product for each dimension: torch copies the channels for one product of all
    spread = torch.baddbmm(bias[:, None], weight.expand(len(channels), *weight.shape), channels)
    return lean.ddsf(lib, x, spread, *matrices)


lean.TRANSFORMERS[CHANNELLED] = channelled_ddsf


class Torch:
    """One of torch's forms (``lean_torch.EAGER`` or ``COMPILED``) at the work; ``name`` is for the log."""

    def __init__(self, form: str, name: str, work: Work) -> None:
        flow, plan = work.flow, work.plan
        self.name, self.plan, self.steps = name, plan, 0
        buffers = flow.layers[0].buffers
        self.mean, self.scale, self.dtype = buffers["mean"], buffers["scale"], flow.dtype
        self.batches = Batches(self._standard(work.train), plan)
        net = cases.network(flow)
        self.layer = functools.partial(_layer, net.weights, net.bound)
        self.lib = lean_torch.library(form, True)
        self.objective: Any = self._negative_log_prob
        if form == lean_torch.COMPILED:
            self.objective = torch.compile(self._negative_log_prob, dynamic=False, fullgraph=True)

        self.shapes = {name: array.shape for name, array in flow.params.items()}
        self.order = sorted(self.shapes, key=lambda name: "weight" not in name)
        self.nesting = [[f"{k}.{name}" for name in own] for k, own in enumerate(flow.layer_params()) if own]
        self.flat = self._vector(flow.params)
        self.mask = self._vector({name: np.ones(shape) for name, shape in self.shapes.items()} | flow.masks())
        self.grad, self.average = torch.zeros_like(self.flat), self.flat.clone()
        self.leaves = {name: part.requires_grad_() for name, part in self._parts(self.flat).items()}

        weights = sum(math.prod(shape) for name, shape in self.shapes.items() if "weight" in name)
        groups = []
        for part, decay in ((slice(0, weights), plan.weight_decay), (slice(weights, None), 0.0)):
            numbers = self.flat[part]
            numbers.grad = self.grad[part]
            groups.append({"params": [numbers], "weight_decay": decay})
        self.optimiser = torch.optim.AdamW(groups, fused=True)
        self.skips = Skips()

    def _standard(self, rows: np.ndarray) -> np.ndarray:
        return ((rows - self.mean) / self.scale).astype(self.dtype)

    def _vector(self, arrays: Any) -> Any:
        return torch.cat([torch.tensor(np.asarray(arrays[name], self.dtype)).ravel() for name in self.order])

    def _parts(self, vector: Any) -> dict[str, Any]:
        """Views of a vector by the parameters' names."""
        parts = vector.split([math.prod(self.shapes[name]) for name in self.order])
        return {name: part.view(self.shapes[name]) for name, part in zip(self.order, parts, strict=True)}

    def _layers(self, params: dict[str, Any]) -> list[list[Any]]:
        return [[params[name] for name in own] for own in self.nesting]

    def _log_prob(self, x: Any, layers: Sequence[Sequence[Any]]) -> Any:
        """Nats ``(N,)`` of standardised columns."""
        return lean.log_prob(functools.partial(self.layer, self.lib), self.lib, x, layers)

    def _negative_log_prob(self, x: Any, layers: Sequence[Sequence[Any]]) -> Any:
        return -self._log_prob(x, layers).mean()

    def around(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def _differentiate(self, step: int) -> Any:
        """The loss of a step's standardised rows; its gradient is left in ``grad``, zero outside the masks."""
        loss = self.objective(torch.tensor(self.batches[step].T.copy()), self._layers(self.leaves))
        grads = torch.autograd.grad(loss, list(self.leaves.values()))
        torch.cat([grad.reshape(-1) for grad in grads], out=self.grad)
        self.grad.mul_(self.mask)
        return loss.detach()

    def gradient(self, step: int) -> tuple[float, np.ndarray]:
        loss = self._differentiate(step).item() + float(np.sum(np.log(self.scale)))
        parts = self._parts(self.grad)
        return loss, np.concatenate([parts[name].numpy().ravel() for name in self.shapes])

    def step(self, step: int) -> None:
        loss = self._differentiate(step)
        norm = torch.linalg.vector_norm(self.grad).item()
        if not self.skips.is_good(step, loss.item(), norm):
            return
        if norm > self.plan.clip:
            self.grad.mul_(self.plan.clip / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate(step)
        self.optimiser.step()
        self.steps += 1
        # as in refnaf.training.adam.Adam
        keep = min(self.plan.averaging, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
        self.average.lerp_(self.flat, 1 - keep)

    def score(self, rows: np.ndarray) -> float:
        columns = torch.tensor(np.ascontiguousarray(self._standard(rows).T))
        layers = self._layers(self._parts(self.average))
        with torch.no_grad():
            nats = torch.cat([self._log_prob(part, layers) for part in columns.split(CHUNK, dim=1)])
        return float(nats.double().mean()) - float(np.sum(np.log(self.scale)))


def _layer(weights: int, bound: float, lib: lean.Library, x: Any, numbers: Sequence[Any]) -> tuple[Any, Any]:
    return lean.flow_layer(lib, CHANNELLED, x, numbers, weights, bound)
