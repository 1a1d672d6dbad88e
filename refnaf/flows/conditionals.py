"""The conditional models of TAN (Oliva et al. 2018, section 2.1): h_i from the dimensions before, and theta_i = f(h_i).

RAM has h_i from a recurrence (:mod:`refnaf.reference.tan`), LAM from a linear map. The network f is the same for all
dimensions, but for the biases of its last layer, so that columns of different kinds may begin differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.flows.conditioned import LAST_SCALE, Conditioned, Stepwise
from refnaf.flows.layer import Params
from refnaf.flows.recurrent import Recurrence
from refnaf.kernels.array.made import squash
from refnaf.kernels.array.staircase import Staircase
from refnaf.kernels.array.states import Steps
from refnaf.ops import Ops
from refnaf.reference import made
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value


class Conditional(Conditioned):
    """What the two have in common: ``state`` numbers h_i a dimension, and the network f of widths ``hidden``.

    With ``hidden`` empty f is linear. What h is made of is read within ``bound``, or as it is where that is None.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int = 0,
        *,
        transformer_config: dict[str, Any],
        state: int = 32,
        hidden: Sequence[int] = (64,),
        activation: str = "elu",
        bound: float | None = 10.0,
    ) -> None:
        super().__init__(dim, context_dim, transformer_config)
        if activation not in made.ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(made.ACTIVATIONS)}, not {activation!r}")
        self.state, self.hidden, self.activation, self.bound = int(state), [int(h) for h in hidden], activation, bound
        if min([self.state, *self.hidden]) < 1:
            raise ValueError(f"a state and hidden widths must be positive, got {self.state} and {self.hidden}")
        self.ranks = made.input_ranks(dim)
        self.sizes = [self.state, *self.hidden, self.transformer.count]
        self._stairs_of: dict[Any, list[Staircase]] = {}

    def config(self) -> dict[str, Any]:
        return {
            "transformer_config": self.transformer.config(),
            "state": self.state,
            "hidden": self.hidden,
            "activation": self.activation,
            "bound": self.bound,
        }

    # h

    def _h_shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def _h_initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _h(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        """h ``(H, D * N)`` of all dimensions."""
        raise NotImplementedError

    def _h_vjp(
        self, ops: Any, saved: Any, grad: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        raise NotImplementedError

    # f

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out = self._h_shapes()
        for k, (below, above) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            out[f"weight.{k}"] = (above, below)
            out[f"bias.{k}"] = (above,) if k < len(self.hidden) else (self.dim * above,)
        return out | self.shared_shapes()

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        out = self._h_initial(rng)
        last = len(self.hidden)
        for k, (below, above) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            scale = (LAST_SCALE if k == last else 1) / np.sqrt(below)
            out[f"weight.{k}"] = rng.normal(size=(above, below)) * scale
            out[f"bias.{k}"] = np.zeros(above)
        out[f"bias.{last}"] = self.transformer.initial(self.dim, rng).reshape(-1)
        return out | self.initial_shared(rng)

    def _masks(self) -> list[np.ndarray]:
        return [np.ones((above, below), bool) for below, above in zip(self.sizes[:-1], self.sizes[1:], strict=True)]

    def _stairs(self, dtype: Any) -> list[Staircase]:
        if dtype not in self._stairs_of:
            self._stairs_of[dtype] = [Staircase(mask, dtype) for mask in self._masks()]
        return self._stairs_of[dtype]

    def _network(self, params: Params, dtype: Any) -> tuple[list[Any], list[Any], list[Staircase]]:
        """Weights, biases and masks of f; the last layer's biases come later, a set a dimension."""
        layers = range(len(self.hidden) + 1)
        weights = [params[f"weight.{k}"] for k in layers]
        biases = [params[f"bias.{k}"] for k in layers[:-1]] + [np.zeros(self.transformer.count, dtype)]
        return weights, biases, self._stairs(dtype)[: len(weights)]

    def pseudo_parameters(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        h, below = self._h(ops, params, x, context)
        weights, biases, stairs = self._network(params, value(x).dtype)
        out, network = ops.network(h, None, weights, biases, [], stairs, self.activation, None)
        return ops.by_dimension(out, params[f"bias.{len(self.hidden)}"], self.dim), (below, network)

    def pseudo_parameters_vjp(
        self, ops: Any, params: Params, saved: Any, grad_theta: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        below, network = saved
        last = len(self.hidden)
        grad, on_bias = ops.by_dimension_vjp(grad_theta)
        layers = range(last + 1)
        into = {
            "weights": [grads.get(f"weight.{k}") for k in layers],
            "biases": [grads.get(f"bias.{k}") for k in layers[:-1]] + [None],
        }
        found = ops.network_vjp(network, grad, into)
        for k in layers:
            grads[f"weight.{k}"] = found["weights"][k]
            grads[f"bias.{k}"] = found["biases"][k] if k < last else on_bias
        return self._h_vjp(ops, below, found["x"], grads)

    def _f(self, params: Params, i: int, h: np.ndarray) -> np.ndarray:
        """theta_i ``(P, N)``."""
        weights, biases, stairs = self._network(params, h.dtype)
        count = self.transformer.count
        biases[-1] = params[f"bias.{len(self.hidden)}"][i * count : (i + 1) * count]
        return made.network(h, None, weights, biases, [], [step.mask for step in stairs], self.activation, None)


class RAM(Conditional):
    """The recurrent autoregressive model: h_i is the state of a recurrence that has read the dimensions before i.

    ``cell``: "gru", as in the authors' code, "tanh" or "relu".
    """

    kind = "ram"

    def __init__(self, dim: int, context_dim: int = 0, *, cell: str = "gru", **options: Any) -> None:
        super().__init__(dim, context_dim, **options)
        self.recurrence = Recurrence(dim, context_dim, self.state, cell)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "cell": self.recurrence.cell}

    def _h_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.recurrence.shapes()

    def _h_initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.recurrence.initial(rng)

    def _h(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        numbers = self.recurrence.numbers(params)
        states, saved = ops.states(x, context, numbers, self.recurrence.cell, self.bound)
        return traced_np.reshape(states, (self.state, -1)), saved

    def _h_vjp(
        self, ops: Any, saved: Any, grad: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        below = ops.states_vjp(saved, grad.reshape(self.state, self.dim, -1))
        self.recurrence.keep(below, grads)
        return below["x"], below["context"]

    def stepwise(self, ops: Any, params: Params, y: np.ndarray, context: Any) -> Stepwise:
        c = None if context is None else squash(context, self.bound)
        step = Steps(c, self.recurrence.numbers(params), self.recurrence.cell, y.shape[1], ops.workspace, ops.cells)

        def pseudo(i: int, columns: list[Any]) -> np.ndarray:
            return self._f(params, i, step(i, squash(columns[i - 1], self.bound) if i else None))

        return pseudo


class LAM(Conditional):
    """The linear autoregressive model: ``h_i = W_i x_{<i} + b_i + V_i c``.

    Row ``k D + i`` of ``linear.weight``, and of the others, is of the k-th number of h_i.
    """

    kind = "lam"

    def __init__(self, dim: int, context_dim: int = 0, **options: Any) -> None:
        super().__init__(dim, context_dim, **options)
        below = made.masks(self.ranks, [], 1)[0]
        self.mask = np.tile(below, (self.state, 1)) != 0

    def masks(self) -> dict[str, np.ndarray]:
        return {"linear.weight": self.mask}

    def _masks(self) -> list[np.ndarray]:
        return [*super()._masks(), self.mask]

    def _h_shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {"linear.weight": self.mask.shape, "linear.bias": (len(self.mask),)}
        return {**out, "linear.context": (len(self.mask), self.context_dim)} if self.context_dim else out

    def _h_initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        scale = 1 / np.sqrt(np.maximum(self.mask.sum(axis=1, keepdims=True) + self.context_dim, 1))
        out = {
            "linear.weight": rng.normal(size=self.mask.shape) * scale * self.mask,
            # biases differ between dimensions, so that they need not start alike
            "linear.bias": rng.normal(scale=0.5, size=len(self.mask)),
        }
        if self.context_dim:
            out["linear.context"] = rng.normal(size=(len(self.mask), self.context_dim)) * scale
        return out

    def _h(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        contexts = [params["linear.context"]] if self.context_dim else []
        stairs = self._stairs(value(x).dtype)[-1:]
        numbers = [params["linear.weight"]], [params["linear.bias"]], contexts, stairs
        h, saved = ops.network(x, context, *numbers, self.activation, self.bound)
        return traced_np.reshape(h, (self.state, -1)), saved

    def _h_vjp(
        self, ops: Any, saved: Any, grad: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        into = {"weights": [grads.get("linear.weight")], "biases": [grads.get("linear.bias")]}
        below = ops.network_vjp(saved, grad.reshape(len(self.mask), -1), into)
        grads["linear.weight"], grads["linear.bias"] = below["weights"][0], below["biases"][0]
        if self.context_dim:
            grads["linear.context"] = below["context_weights"][0]
        return below["x"], below["context"]

    def stepwise(self, ops: Any, params: Params, y: np.ndarray, context: Any) -> Stepwise:
        c = None if context is None else squash(context, self.bound)
        known = np.zeros_like(y)

        def pseudo(i: int, columns: list[Any]) -> np.ndarray:
            if i:
                known[i - 1] = squash(columns[i - 1], self.bound)
            rows = slice(i, None, self.dim)
            h = params["linear.weight"][rows, :i] @ known[:i] + params["linear.bias"][rows][:, None]
            if c is not None:
                h += params["linear.context"][rows] @ c
            return self._f(params, i, h)

        return pseudo
