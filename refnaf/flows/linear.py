"""The linear transformation of TAN (Oliva et al. 2018, section 2.2.1): any covariance, and a determinant at no cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.flows.fixed import Triangular
from refnaf.flows.layer import Layer, Params
from refnaf.ops import Ops
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value


class LU(Layer):
    """``y = L U x + V c + b``, L unit lower and U upper triangular with a positive diagonal, hence invertible.

    It is kept as ``exp(d) * (I + lower)(I + upper)``, a :class:`~refnaf.flows.fixed.Triangular` map behind a unit upper
    one, which is the same family: ``L = exp(d) (I + lower) exp(-d)`` and ``U = exp(d) (I + upper)``. The
    log-determinant is ``sum d``.
    """

    kind = "lu"

    def __init__(self, dim: int, context_dim: int = 0) -> None:
        super().__init__(dim, context_dim)
        self.lower = Triangular(dim, context_dim)
        self._above = np.triu(np.ones((dim, dim)), 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"upper": (self.dim, self.dim), **self.lower.shapes()}

    def masks(self) -> dict[str, np.ndarray]:
        return {"upper": self._mask(np.dtype(float)), **self.lower.masks()}

    def _mask(self, dtype: np.dtype) -> np.ndarray:
        return self._above.astype(dtype)

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"upper": np.zeros((self.dim, self.dim)), **self.lower.initial(rng)}

    def _upper(self, params: Params, dtype: np.dtype) -> Any:
        return np.eye(self.dim, dtype=dtype) + params["upper"] * self._mask(dtype)

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        inner = traced_np.dot(self._upper(params, value(x).dtype), x)
        y, logdet, saved = self.lower.forward(ops, params, inner, context)
        return y, logdet, (x, saved)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        x, below = saved
        grad_inner, grad_context = self.lower.vjp(ops, params, below, grad_y, grad_logdet, grads)
        grads["upper"] = (grad_inner @ x.T) * self._mask(x.dtype)
        return self._upper(params, x.dtype).T @ grad_inner, grad_context

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        inner = np.linalg.solve(self._upper(params, wanted.dtype).T, wanted)
        return self.lower.solve_transposed(ops, params, saved[1], inner)

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        inner, logdet, residual = self.lower.inverse(ops, params, y, context)
        return traced_np.linalg.solve(self._upper(params, value(y).dtype), inner), logdet, residual
