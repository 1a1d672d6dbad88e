"""Layers without a network: standardisation, permutation, soft clipping, and the full-covariance Gaussian's map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnaf.flows.layer import Layer, Params, total
from refnaf.ops import Ops
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value
from refnaf.reference.stable import squash


class Standardise(Layer):
    """``y = (x - mean) / scale``, the numbers fitted on the training rows; computed in float64, counted in the density.

    Its output is cast to the dtype of the flow; it reads float64.
    """

    kind = "standardise"

    def __init__(self, dim: int, context_dim: int = 0, *, dtype: str = "float64") -> None:
        super().__init__(dim, context_dim)
        self.dtype = np.dtype(dtype)
        self.buffers = {"mean": np.zeros(dim), "scale": np.ones(dim)}
        if context_dim:
            self.buffers |= {"context_mean": np.zeros(context_dim), "context_scale": np.ones(context_dim)}

    def config(self) -> dict[str, Any]:
        return {"dtype": self.dtype.name}

    def astype(self, dtype: DTypeLike) -> Standardise:
        """The same layer with its output cast to another dtype."""
        if np.dtype(dtype) == self.dtype:
            return self
        other = Standardise(self.dim, self.context_dim, dtype=np.dtype(dtype).name)
        other.buffers = self.buffers
        return other

    def context(self, context: Any) -> Any:
        """The context as the other layers read it, standardised too."""
        scaled = (context - self.buffers["context_mean"][:, None]) / self.buffers["context_scale"][:, None]
        return scaled if self.dtype == np.float64 else scaled.astype(self.dtype)

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y = (x - self.buffers["mean"][:, None]) / self.buffers["scale"][:, None]
        logdet = np.full(value(x).shape[1], -np.sum(np.log(self.buffers["scale"])))
        with np.errstate(over="ignore"):
            return (y if self.dtype == np.float64 else y.astype(self.dtype)), logdet, None

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return grad_y / self.buffers["scale"][:, None], None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return wanted * self.buffers["scale"][:, None]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        n = value(y).shape[1]
        wide = y if value(y).dtype == np.float64 else y.astype(np.float64)
        x = wide * self.buffers["scale"][:, None] + self.buffers["mean"][:, None]
        return x, np.full(n, np.sum(np.log(self.buffers["scale"]))), np.zeros(n)


class Permutation(Layer):
    """``y_i = x_{p(i)}``. ``order`` is the list p, or "reversed"."""

    kind = "permutation"

    def __init__(self, dim: int, context_dim: int = 0, *, order: str | Sequence[int] = "reversed") -> None:
        super().__init__(dim, context_dim)
        self.order = np.arange(dim)[::-1].copy() if isinstance(order, str) else np.asarray(order, dtype=int)
        if sorted(self.order.tolist()) != list(range(dim)):
            raise ValueError(f"a permutation must hold each of 0..{dim - 1} once, got {self.order.tolist()}")
        self.back = np.argsort(self.order)

    def config(self) -> dict[str, Any]:
        return {"order": self.order.tolist()}

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        return x[self.order], np.zeros(value(x).shape[1]), None

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return grad_y[self.back], None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return wanted[self.order]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        n = value(y).shape[1]
        return y[self.back], np.zeros(n), np.zeros(n)


class Softclip(Layer):
    """``y = x / (1 + |x| / bound)``, of every dimension by itself; zuko has it between the layers of a NAF.

    The image is the box within ``bound``, without its faces: of a base point outside, :meth:`inverse` answers with a
    point far out whose image is on the face, and the distance is in the residual.
    """

    kind = "softclip"

    def __init__(self, dim: int, context_dim: int = 0, *, bound: float) -> None:
        super().__init__(dim, context_dim)
        if not bound > 0:
            raise ValueError(f"a soft clip needs a positive bound, got {bound}")
        self.bound = float(bound)

    def config(self) -> dict[str, Any]:
        return {"bound": self.bound}

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        log_slope = -2 * traced_np.log1p(traced_np.abs(x) * (1 / self.bound))
        return squash(x, self.bound), total(log_slope, ops.traced), x

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        inside = 1 / (1 + np.abs(saved) * (1 / self.bound))
        bend = inside * np.sign(saved) * (2 / self.bound)
        return grad_y * inside**2 - bend * grad_logdet.astype(saved.dtype), None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return wanted * (1 + np.abs(saved) * (1 / self.bound)) ** 2

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        plain, furthest = value(y), self.bound * (1 - np.finfo(value(y).dtype).eps)
        outside = (np.abs(plain) > furthest).astype(plain.dtype)
        y = y * (1 - outside) + np.sign(plain) * plain.dtype.type(furthest) * outside
        x = y * (self.bound / (self.bound - traced_np.abs(y)))
        residual = np.max(np.abs(value(y) - plain), axis=0)
        return x, -self.forward(ops, params, x, context)[1], residual


class Triangular(Layer):
    """``y = exp(d) * (x + L x) + V c + b`` with L strictly lower triangular: a Gaussian of any covariance.

    With ``fixed`` the numbers are buffers, set from the rows like a standardisation's, and not trained.
    """

    kind = "triangular"

    def __init__(self, dim: int, context_dim: int = 0, *, fixed: bool = False) -> None:
        super().__init__(dim, context_dim)
        self.fixed = fixed
        if fixed:
            self.buffers = {name: np.zeros(shape) for name, shape in self._shapes().items()}

    def config(self) -> dict[str, Any]:
        return {"fixed": True} if self.fixed else {}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            "lower": (self.dim, self.dim),
            "log_diagonal": (self.dim,),
            "shift": (self.dim,),
        }
        if self.context_dim:
            shapes["context"] = (self.dim, self.context_dim)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {} if self.fixed else self._shapes()

    def _numbers(self, params: Params, dtype: np.dtype) -> Params:
        return {name: array.astype(dtype) for name, array in self.buffers.items()} if self.fixed else params

    def masks(self) -> dict[str, np.ndarray]:
        return {} if self.fixed else {"lower": self._mask(np.dtype(float))}

    def _mask(self, dtype: np.dtype) -> np.ndarray:
        return np.tril(np.ones((self.dim, self.dim), dtype), -1)

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {name: np.zeros(shape) for name, shape in self.shapes().items()}

    def _linear(self, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        params = self._numbers(params, value(x).dtype)
        centred = x + traced_np.dot(params["lower"] * self._mask(value(x).dtype), x)
        shift = params["shift"][:, None]
        if self.context_dim:
            shift = shift + traced_np.dot(params["context"], context)
        return centred, traced_np.exp(params["log_diagonal"])[:, None], shift

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        centred, scale, shift = self._linear(params, x, context)
        logdet = traced_np.sum(traced_np.log(scale)) * np.ones(value(x).shape[1])
        return scale * centred + shift, logdet, (x, centred, context)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        x, centred, context = saved
        numbers = self._numbers(params, x.dtype)
        mask = self._mask(x.dtype)
        scaled = np.exp(numbers["log_diagonal"])[:, None] * grad_y
        if not self.fixed:
            grads["lower"] = (scaled @ x.T) * mask
            grads["log_diagonal"] = np.sum(scaled * centred, axis=1) + np.sum(grad_logdet).astype(x.dtype)
            grads["shift"] = np.sum(grad_y, axis=1)
            if self.context_dim:
                grads["context"] = grad_y @ context.T
        below = scaled + (numbers["lower"] * mask).T @ scaled
        return below, numbers["context"].T @ grad_y if self.context_dim else None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        numbers = self._numbers(params, wanted.dtype)
        matrix = np.eye(self.dim, dtype=wanted.dtype) + numbers["lower"] * self._mask(wanted.dtype)
        return np.linalg.solve(matrix.T, wanted) / np.exp(numbers["log_diagonal"])[:, None]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        _, scale, shift = self._linear(params, 0 * y, context)
        dtype = value(y).dtype
        matrix = np.eye(self.dim, dtype=dtype) + self._numbers(params, dtype)["lower"] * self._mask(dtype)
        x = traced_np.linalg.solve(matrix, (y - shift) / scale)
        n = value(y).shape[1]
        return x, -traced_np.sum(traced_np.log(scale)) * np.ones(n), np.zeros(n)
