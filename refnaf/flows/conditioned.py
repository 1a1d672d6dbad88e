"""Layers of a conditioner, which gives a transformer its pseudo-parameters, and that transformer.

    y_i = tau(x_i; theta_i),      theta_i = conditioner_i(x_1, ..., x_{i-1}, c)

All y come from one pass; x is recovered from y one dimension after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refnaf.flows.layer import Layer, Params, total
from refnaf.flows.transformers import Transformer, transformer
from refnaf.ops import Ops
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value

#: Scale of the last layer's initial weights: small, so that a new layer is near the identity.
LAST_SCALE = 0.01

#: Pseudo-parameters ``(P, N)`` of dimension i, called with i in the order of the ranks and the x known by then.
Stepwise = Callable[[int, list[Any]], Any]


class Conditioned(Layer):
    """A transformer, reading x (MAF's direction); subclasses are its conditioners.

    They hold the rank 1..D of each dimension in ``ranks``, the parameters' shapes, initial values and masks (those of
    the transformer by :meth:`shared_shapes` and :meth:`initial_shared`), and define the three methods that raise here.
    """

    #: Rank 1..D of each dimension: theta of one may depend on those of lower ranks.
    ranks: np.ndarray

    def __init__(self, dim: int, context_dim: int, transformer_config: dict[str, Any]) -> None:
        super().__init__(dim, context_dim)
        self.transformer: Transformer = transformer(transformer_config)

    def pseudo_parameters(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        """Theta ``(D, P, N)`` for x ``(D, N)``, and what :meth:`pseudo_parameters_vjp` needs."""
        raise NotImplementedError

    def pseudo_parameters_vjp(
        self, ops: Any, params: Params, saved: Any, grad_theta: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Cotangent of theta to those of x and the context, and into ``grads`` (see :meth:`.Layer.vjp`)."""
        raise NotImplementedError

    def stepwise(self, ops: Any, params: Params, y: np.ndarray, context: Any) -> Stepwise:
        """The conditioner along the order, for inversion of y ``(D, N)``: the D steps together cost about one pass."""
        raise NotImplementedError

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of :meth:`shared`, by name."""
        each = (self.dim,) if self.transformer.stacked else ()
        return {f"shared.{k}": (*each, *shape) for k, shape in enumerate(self.transformer.shared_shapes())}

    def initial_shared(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial values of :meth:`shared`, by name."""
        arrays = self.transformer.initial_shared(rng)
        stacked = self.transformer.stacked
        return {f"shared.{k}": np.stack([array] * self.dim) if stacked else array for k, array in enumerate(arrays)}

    def shared(self, params: Params) -> list[Any]:
        """The transformer's parameters that all samples share (see :meth:`.Transformer.shared_shapes`)."""
        return [params[f"shared.{k}"] for k in range(len(self.transformer.shared_shapes()))]

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        theta, conditioner = self.pseudo_parameters(ops, params, x, context)
        name, options = self.transformer.name, self.transformer.options
        y, log_slope, saved = ops.transform(name, x, theta, self.shared(params), options, overwrite=True)
        return y, total(log_slope, ops.traced), (conditioner, saved, log_slope)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        conditioner, transform, _ = saved
        grad_x, grad_theta, grad_shared = ops.transform_vjp(transform, grad_y, grad_logdet.astype(grad_y.dtype)[None])
        below, grad_context = self.pseudo_parameters_vjp(ops, params, conditioner, grad_theta, grads)
        for k, grad in enumerate(grad_shared):
            grads[f"shared.{k}"] = grad
        return grad_x + below, grad_context

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        # J is triangular in the order of the ranks: back substitution, one VJP a dimension
        diagonal = np.exp(saved[2])
        found = np.zeros_like(wanted)
        mark = ops.workspace.mark()
        none = np.zeros_like(wanted[0])
        for i in np.argsort(-self.ranks):
            ops.workspace.release(mark)
            found[i] = (wanted[i] - self.vjp(ops, params, saved, found, none, {})[0][i]) / diagonal[i]
        ops.workspace.release(mark)
        return found

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        pseudo = (self._every_pass if ops.by_passes else self.stepwise)(ops, params, y, context)
        shared = self.shared(params)
        name, options = self.transformer.name, self.transformer.options
        columns: list[Any] = [None] * self.dim
        slopes: list[Any] = [None] * self.dim
        worst = np.zeros_like(value(y)[0], dtype=np.float64)
        for i in np.argsort(self.ranks):
            theta = pseudo(i, columns)
            own = [array[i] for array in shared] if self.transformer.stacked else shared
            columns[i], slopes[i], residual = ops.invert(name, y[i], theta, own, options)
            worst = np.maximum(worst, np.abs(residual))
        stack = traced_np.stack if ops.traced else np.stack
        return stack(columns), total(stack(slopes), ops.traced), worst

    def _every_pass(self, ops: Any, params: Params, y: Any, context: Any) -> Stepwise:
        """Pseudo-parameters of dimension i by a whole pass over the dimensions before it.

        So that autograd can trace it, and for a device, on which a pass of large products costs less than many calls.
        """
        mark = None if ops.traced else ops.workspace.mark()

        def pseudo(i: int, columns: list[Any]) -> Any:
            if mark is not None:
                ops.workspace.release(mark)
            zero = 0 * value(y)[0]
            stack = traced_np.stack if ops.traced else np.stack
            x = stack([zero if column is None else column for column in columns])
            return self.pseudo_parameters(ops, params, x, context)[0][i]

        return pseudo
