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


def _of_all(x: Any, number: float) -> Any:
    """The same number for each sample of x ``(D, N)``: ``(N,)`` float64."""
    return np.full_like(value(x)[0], number, dtype=np.float64)


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

    def context(self, context: Any, ops: Any = None) -> Any:
        """The context as the other layers read it, standardised too; on a device with its operations."""
        mean, scale = self.buffers["context_mean"], self.buffers["context_scale"]
        if ops is not None:
            mean, scale = ops.constant(mean), ops.constant(scale)
        scaled = (context - mean[:, None]) / scale[:, None]
        return scaled if self.dtype == np.float64 else scaled.astype(self.dtype)

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y = (x - ops.constant(self.buffers["mean"])[:, None]) / ops.constant(self.buffers["scale"])[:, None]
        logdet = _of_all(x, -float(np.sum(np.log(self.buffers["scale"]))))
        with np.errstate(over="ignore"):
            return (y if self.dtype == np.float64 else y.astype(self.dtype)), logdet, None

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return grad_y / ops.constant(self.buffers["scale"])[:, None], None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return wanted * ops.constant(self.buffers["scale"])[:, None]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        wide = y if value(y).dtype == np.float64 else y.astype(np.float64)
        x = wide * ops.constant(self.buffers["scale"])[:, None] + ops.constant(self.buffers["mean"])[:, None]
        return x, _of_all(y, float(np.sum(np.log(self.buffers["scale"])))), _of_all(y, 0.0)


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
        return x[ops.constant(self.order)], _of_all(x, 0.0), None

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return grad_y[ops.constant(self.back)], None

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return wanted[ops.constant(self.order)]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        return y[ops.constant(self.back)], _of_all(y, 0.0), _of_all(y, 0.0)


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
        self._below, self._eye = np.tril(np.ones((dim, dim)), -1), np.eye(dim)

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

    def _numbers(self, ops: Ops, params: Params, dtype: np.dtype) -> Params:
        if not self.fixed:
            return params
        return {name: ops.constant(array).astype(dtype) for name, array in self.buffers.items()}

    def masks(self) -> dict[str, np.ndarray]:
        return {} if self.fixed else {"lower": self._below}

    def _mask(self, ops: Ops, dtype: np.dtype) -> Any:
        return ops.constant(self._below).astype(dtype)

    def _matrix(self, ops: Ops, lower: Any, dtype: np.dtype) -> Any:
        return ops.constant(self._eye).astype(dtype) + lower * self._mask(ops, dtype)

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {name: np.zeros(shape) for name, shape in self.shapes().items()}

    def _linear(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        params = self._numbers(ops, params, value(x).dtype)
        centred = x + traced_np.dot(params["lower"] * self._mask(ops, value(x).dtype), x)
        shift = params["shift"][:, None]
        if self.context_dim:
            shift = shift + traced_np.dot(params["context"], context)
        return centred, traced_np.exp(params["log_diagonal"])[:, None], shift

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        centred, scale, shift = self._linear(ops, params, x, context)
        logdet = traced_np.sum(traced_np.log(scale)) * _of_all(x, 1.0)
        return scale * centred + shift, logdet, (x, centred, context)

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        x, centred, context = saved
        numbers = self._numbers(ops, params, x.dtype)
        mask = self._mask(ops, x.dtype)
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
        numbers = self._numbers(ops, params, wanted.dtype)
        matrix = self._matrix(ops, numbers["lower"], wanted.dtype)
        return np.linalg.solve(matrix.T, wanted) / np.exp(numbers["log_diagonal"])[:, None]

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        _, scale, shift = self._linear(ops, params, 0 * y, context)
        dtype = value(y).dtype
        matrix = self._matrix(ops, self._numbers(ops, params, dtype)["lower"], dtype)
        x = traced_np.linalg.solve(matrix, (y - shift) / scale)
        return x, -traced_np.sum(traced_np.log(scale)) * _of_all(y, 1.0), _of_all(y, 0.0)
