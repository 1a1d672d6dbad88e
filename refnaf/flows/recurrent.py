"""A state that runs along the dimensions, and the recurrent transformations of TAN (Oliva et al. 2018, section 2.2.2).

Mathematics: :mod:`refnaf.reference.tan`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from refnaf.flows.conditioned import LAST_SCALE
from refnaf.flows.layer import Layer, Params, total
from refnaf.ops import Ops
from refnaf.reference.affine import LOG_SCALE_BOUND
from refnaf.reference.tan import CELLS, Cell, Output, rows

#: The leaky ReLU's slope at the start, on its negative side, is sigmoid(5) = 0.993, as in the authors' code.
FIRST_LEAK = 5.0


class Recurrence:
    """The parameters of a recurrence, named ``cell.*``: the states of D dimensions, of ``size`` numbers each."""

    def __init__(self, dim: int, context_dim: int, size: int, cell: str) -> None:
        if cell not in CELLS:
            raise ValueError(f"the cell must be one of {', '.join(CELLS)}, not {cell!r}")
        if size < 1:
            raise ValueError(f"a state needs at least 1 number, got {size}")
        self.dim, self.context_dim, self.size, self.cell = dim, context_dim, int(size), cell
        self.rows = rows(cell, self.size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            "cell.inputs": (self.rows,),
            "cell.state": (self.rows, self.size),
            "cell.bias": (self.dim * self.rows,),
        }
        return {**shapes, "cell.context": (self.rows, self.context_dim)} if self.context_dim else shapes

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        # orthogonal, so that a state neither dies away nor grows
        blocks = [np.linalg.qr(rng.normal(size=(self.size, self.size)))[0] for _ in range(self.rows // self.size)]
        out = {
            "cell.inputs": rng.normal(size=self.rows),
            "cell.state": np.concatenate(blocks),
            # biases differ between dimensions, so that they need not start alike
            "cell.bias": rng.normal(scale=0.5, size=self.dim * self.rows),
        }
        if self.context_dim:
            out["cell.context"] = rng.normal(size=(self.rows, self.context_dim)) / np.sqrt(self.context_dim)
        return out

    def numbers(self, params: Params) -> Cell:
        return Cell(params["cell.inputs"], params["cell.state"], params["cell.bias"], params.get("cell.context"))

    def keep(self, below: dict[str, Any], grads: dict[str, Any]) -> None:
        """Cotangents as the recurrence's VJP names them, put into ``grads`` by the parameters' names."""
        for name in ("inputs", "state", "bias"):
            grads[f"cell.{name}"] = below[name]
        if self.context_dim:
            grads["cell.context"] = below["on_context"]


class Recurrent(Layer):
    """RNN, the recurrent transformation, or SRNN, the recurrent shift with a scale: the ``form`` "rnn" or "srnn".

    ``y_i = r_alpha(s_i x_i + w_i'h_i + b_i)``, without the leaky ReLU ``r_alpha`` in "srnn". The state h has ``state``
    numbers; ``cell``: "tanh", "relu" or "gru", by default "tanh" for "rnn" and "gru" for "srnn", as in the authors'
    code. The state reads x and the context within ``bound``, or as they are where it is None.
    """

    kind = "recurrent"
    #: The cell that each form has by default.
    FORMS: ClassVar[dict[str, str]] = {"rnn": "tanh", "srnn": "gru"}

    def __init__(
        self,
        dim: int,
        context_dim: int = 0,
        *,
        form: str = "rnn",
        state: int = 16,
        cell: str | None = None,
        bound: float | None = 10.0,
    ) -> None:
        super().__init__(dim, context_dim)
        if form not in self.FORMS:
            raise ValueError(f"the form of a recurrent layer must be one of {', '.join(self.FORMS)}, not {form!r}")
        self.form, self.bound = form, bound
        self.recurrence = Recurrence(dim, context_dim, state, cell or self.FORMS[form])

    def config(self) -> dict[str, Any]:
        own = self.recurrence
        return {"form": self.form, "state": own.size, "cell": own.cell, "bound": self.bound}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {"weight": (self.dim, self.recurrence.size), "bias": (self.dim,)}
        out |= {"log_scale": (self.dim,), **({"leak": (self.dim,)} if self.form == "rnn" else {})}
        return self.recurrence.shapes() | out

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        out = self.recurrence.initial(rng)
        size = self.recurrence.size
        out["weight"] = rng.normal(size=(self.dim, size)) * LAST_SCALE / np.sqrt(size)
        out["bias"], out["log_scale"] = np.zeros(self.dim), np.zeros(self.dim)
        if self.form == "rnn":
            out["leak"] = np.full(self.dim, LOG_SCALE_BOUND * np.arctanh(FIRST_LEAK / LOG_SCALE_BOUND))
        return out

    def _numbers(self, params: Params) -> tuple[Cell, Output, str, float | None]:
        out = Output(params["weight"], params["bias"], params["log_scale"], params.get("leak"))
        return self.recurrence.numbers(params), out, self.recurrence.cell, self.bound

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y, log_slope, saved = ops.recurrent(x, context, *self._numbers(params))
        return y, total(log_slope, ops.traced), saved

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        below = ops.recurrent_vjp(saved, grad_y, grad_logdet.astype(grad_y.dtype))
        self.recurrence.keep(below, grads)
        grads |= {name: grad for name, grad in below["out"]._asdict().items() if grad is not None}
        return below["x"], below["context"]

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return ops.recurrent_inverse_vjp(saved, wanted)

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        x, log_slope = ops.recurrent_inverse(y, context, *self._numbers(params))
        return x, total(log_slope, ops.traced), np.zeros(y.shape[1])
