"""What every layer of a flow is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refnaf.ops import Ops

Params = Mapping[str, Any]


class Layer:
    """One invertible step. Arrays are feature-major: x ``(D, N)``, context ``(C, N)`` or None.

    A layer holds its configuration and its buffers (fixed numbers); its parameters are passed in by local name. It is
    written once, in terms of the operations of a backend.
    """

    #: The name under which the layer is saved.
    kind: str
    #: Fixed numbers, by local name.
    buffers: dict[str, np.ndarray]

    def __init__(self, dim: int, context_dim: int = 0) -> None:
        self.dim = dim
        self.context_dim = context_dim
        self.buffers = {}

    def config(self) -> dict[str, Any]:
        """The keyword arguments, besides ``dim`` and ``context_dim``, that make the layer again; JSON-able."""
        return {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters, by local name, in their fixed order."""
        return {}

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Parameters, float64, with which the layer is close to the identity."""
        return {}

    def masks(self) -> dict[str, np.ndarray]:
        """0/1 masks of the parameters that have one: numbers outside stay zero."""
        return {}

    def packings(self, ops: Any, dtype: np.dtype) -> dict[str, Any]:
        """Parameters that :meth:`forward` and :meth:`vjp` also take as vectors, and what packs and unpacks them."""
        return {}

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        """``(y, log|det dy/dx| (N,), saved)``."""
        raise NotImplementedError

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Cotangents of y ``(D, N)`` and of the log-determinant ``(N,)`` to those of x and the context.

        The parameters' cotangents are put into ``grads`` by local name; arrays that it already holds may be written to
        (those of masked parameters are zero outside the mask). Only for operations that save (not traced).
        """
        raise NotImplementedError

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        """``(x, log|det dx/dy| (N,), residual (N,))``, the residual being the largest ``|f(x) - y|`` of the solves."""
        raise NotImplementedError

    def inverse_saved(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any, Any]:
        """:meth:`inverse`, and what of it spares :meth:`inverse_vjp` and :meth:`inverse_score` some work, or None."""
        return *self.inverse(ops, params, y, context), None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        """The ``v (D, N)`` with ``J^T v = wanted``, J the Jacobian of :meth:`forward` at the saved point."""
        raise NotImplementedError

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
        """:meth:`vjp` for :meth:`inverse`, by the implicit function, at the x it returned.

        ``kept`` is what :meth:`inverse_saved` gave beside it. With ``x = f^-1(y)``:
        ``dx = J^-1 (dy - df/dtheta dtheta)``, and the inverse's log-determinant is that of f at x with the other sign.
        """
        saved = self.forward(ops, params, x, context)[2]
        through_logdet, _ = self.vjp(ops, params, saved, np.zeros_like(grad_x), -grad_logdet, {})
        grad_y = self.solve_transposed(ops, params, saved, grad_x + through_logdet)
        _, grad_context = self.vjp(ops, params, saved, -grad_y, -grad_logdet, grads)
        return grad_y, grad_context

    def inverse_score(
        self, ops: Any, params: Params, x: np.ndarray, context: Any, score_y: np.ndarray, kept: Any = None
    ) -> np.ndarray:
        """The gradient ``(D, N)`` of a log-density at x for that at y, the parameters held: one :meth:`vjp`."""
        saved = self.forward(ops, params, x, context)[2]
        return self.vjp(ops, params, saved, score_y, np.ones_like(score_y[0]), {})[0]


def total(log_slopes: Any, traced: bool) -> Any:
    """Sum of log-derivatives over dimensions ``(D, N) -> (N,)``, in float64."""
    if traced:
        from refnaf.reference._numpy import np as namespace

        return namespace.sum(log_slopes, axis=0)
    return np.sum(log_slopes, axis=0, dtype=np.float64)


def is_final(array: Any, dtype: np.dtype, mask: np.ndarray | None) -> bool:
    """Whether flows may share this array as it is: nothing writes to it, and it is zero outside the mask."""
    if not (isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.c_contiguous):
        return False
    alone = array.flags.owndata and not array.flags.writeable
    return alone and (mask is None or not array[mask == 0].any())
