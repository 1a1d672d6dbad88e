"""A layer run backwards: with an autoregressive layer inside, the direction of IAF."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.layer import Layer, Params
from refnaf.ops import Ops


class Inverse(Layer):
    """The inverse of a layer, its parameters and all.

    Around an autoregressive layer this is IAF: the network reads the base noise, sampling takes one pass, and a density
    is found dimension after dimension.
    """

    kind = "inverse"

    def __init__(self, dim: int, context_dim: int = 0, *, layer: Layer) -> None:
        super().__init__(dim, context_dim)
        self.layer = layer
        self.buffers = layer.buffers

    def config(self) -> dict[str, Any]:
        return {"layer": {"kind": self.layer.kind, **self.layer.config()}}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.shapes()

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.layer.initial(rng)

    def masks(self) -> dict[str, np.ndarray]:
        return self.layer.masks()

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y, logdet, _ = self.layer.inverse(ops, params, x, context)
        return y, logdet, (y, context)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        y, context = saved
        return self.layer.inverse_vjp(ops, params, y, context, grad_y, grad_logdet, grads)

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        return self.inverse_saved(ops, params, y, context)[:3]

    def inverse_saved(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any, Any]:
        x, logdet, saved = self.layer.forward(ops, params, y, context)
        return x, logdet, np.zeros_like(y[0], dtype=np.float64), saved

    def inverse_vjp(
        self,
        ops: Any,
        params: Params,
        x: np.ndarray,
        context: Any,
        grad_x: np.ndarray,
        grad_logdet: np.ndarray,
        grads: dict[str, Any],
        kept: Any = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        saved = self._forward_at(ops, params, x, context) if kept is None else kept
        return self.layer.vjp(ops, params, saved, grad_x, grad_logdet, grads)

    def inverse_score(
        self, ops: Any, params: Params, x: np.ndarray, context: Any, score_y: np.ndarray, kept: Any = None
    ) -> np.ndarray:
        saved = self._forward_at(ops, params, x, context) if kept is None else kept
        minus = -np.ones_like(score_y[0])
        through_logdet, _ = self.layer.vjp(ops, params, saved, np.zeros_like(score_y), minus, {})
        return self.layer.solve_transposed(ops, params, saved, score_y + through_logdet)

    def _forward_at(self, ops: Any, params: Params, x: np.ndarray, context: Any) -> Any:
        """What the layer inside saves where its image is x."""
        y = self.layer.inverse(ops, params, x, context)[0]
        return self.layer.forward(ops, params, y, context)[2]
