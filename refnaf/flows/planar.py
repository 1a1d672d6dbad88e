"""The planar layer of Rezende and Mohamed 2015 (mathematics: :mod:`refnaf.reference.planar`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.layer import Layer, Params
from refnaf.kernels.array.staircase import Staircase
from refnaf.ops import Ops
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value

#: Scale of the initial u: small, so that a new layer is near the identity, and not 0, where w and b have no gradient.
FIRST_SCALE = 0.05


class Planar(Layer):
    """``y = x + u^ tanh(w'x + b)``, one pass; its inverse is one guaranteed root a sample.

    A context moves u, w and b (the rows of ``context``, in this order) by a linear map of ``c / (1 + |c| / bound)``, or
    of c itself where ``bound`` is None.
    """

    kind = "planar"

    def __init__(self, dim: int, context_dim: int = 0, *, bound: float | None = 10.0) -> None:
        super().__init__(dim, context_dim)
        self.bound = bound

    def config(self) -> dict[str, Any]:
        return {"bound": self.bound}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"u": (self.dim,), "w": (self.dim,), "b": (1,)}
        return {**shapes, "context": (2 * self.dim + 1, self.context_dim)} if self.context_dim else shapes

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        out = {
            "u": rng.normal(scale=FIRST_SCALE, size=self.dim),
            "w": rng.normal(size=self.dim) / np.sqrt(self.dim),
            "b": rng.normal(size=1),
        }
        return {**out, "context": np.zeros(self.shapes()["context"])} if self.context_dim else out

    def _pseudo_parameters(self, ops: Ops, params: Params, context: Any) -> tuple[tuple[Any, Any, Any], Any]:
        """u and w ``(D, N)`` and b ``(N,)``, with 1 for N where there is no context; and what the VJP needs."""
        theta, saved = traced_np.concatenate([params["u"], params["w"], params["b"]]), None
        if self.context_dim:
            # a network of one layer that reads the context
            weights = [params["context"]]
            theta, saved = ops.network(context, None, weights, [theta], [], self._stairs(context), "elu", self.bound)
        else:
            theta = theta[:, None]
        return (theta[: self.dim], theta[self.dim : -1], theta[-1]), saved

    def _stairs(self, context: Any) -> list[Staircase]:
        return [Staircase(np.ones(self.shapes()["context"]), value(context).dtype)]

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        theta, network = self._pseudo_parameters(ops, params, context)
        y, logdet, saved = ops.planar(x, *theta)
        return y, logdet, (saved, network)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        kept, network = saved
        grad_x, grad_u, grad_w, grad_b = ops.planar_vjp(kept, grad_y, grad_logdet.astype(grad_y.dtype))
        grad, grad_context = np.concatenate([grad_u, grad_w, grad_b[None]]), None
        if self.context_dim:
            below = ops.network_vjp(network, grad)
            grads["context"], grad_context = below["weights"][0], below["x"]
        whole = np.sum(grad, axis=1)
        grads["u"], grads["w"], grads["b"] = whole[: self.dim], whole[self.dim : -1], whole[-1:]
        return grad_x, grad_context

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return ops.planar_inverse_vjp(saved[0], wanted)

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        x, logdet, residual = ops.planar_inverse(y, *self._pseudo_parameters(ops, params, context)[0])
        return x, logdet, np.abs(value(residual))
