"""The recurrence of :mod:`refnaf.reference.tan` with its analytic VJP: a matrix product and a few passes a step.

With g the cotangent of h_i, its own and what h_{i+1} hands down, that of a step's sum ``p + W h_{i-1}`` is, of "tanh"
and "relu", g times the activation's derivative at its value; of "gru" (h for h_{i-1}, s for its reset product)

    dn = g (1 - u) (1 - n^2),    du = g (h - n) u (1 - u),    dr = dn s r (1 - r),

where the product's share of the third is ``r dn``; and ``W'`` of these, with ``g u``, is handed down to h_{i-1}.
The gradient of W is one product over all steps.

What surrounds the products is elementwise (:func:`simple`, :func:`gated` and their VJPs), and may be another module's
with the same functions. States are ``(H, D, N)``, gates ``(D, 3 H, N)``, the reset gate's products ``(D, H, N)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.made import squash, squash_vjp
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.tan import Cell

# A step is put into a slot of the states, and follows the one in the slot ``last``, or, where that is negative, none.
# ``before (N,)``, ``inputs`` and ``bias (G,)`` and ``moved``, ``(G, N)`` or empty, make what is read; q is the product.


def simple(
    name: str, slot: int, last: int, inputs: Any, before: Any, bias: Any, moved: Any, q: Any, states: np.ndarray
) -> None:
    """A step of "tanh" or "relu"."""
    p = inputs[:, None] * before
    p += bias[:, None]
    if len(moved):
        p += moved
    if last >= 0:
        p += q
    if name == "tanh":
        np.tanh(p, out=states[:, slot])
    else:
        np.maximum(p, 0, out=states[:, slot])


def simple_vjp(name: str, i: int, grad: np.ndarray, states: np.ndarray, sums: np.ndarray) -> None:
    """Cotangent of h_i ``(H, N)`` to that of the step's sum, put into the slot i of ``sums (H, D, N)``."""
    h = states[:, i]
    np.multiply(grad, 1 - h * h if name == "tanh" else h > 0, out=sums[:, i])


def gated(
    slot: int,
    last: int,
    inputs: Any,
    before: Any,
    bias: Any,
    moved: Any,
    q: Any,
    states: np.ndarray,
    gates: np.ndarray,
    resets: np.ndarray,
) -> None:
    """A step of "gru", which also fills its slots of the gates and, where there is a state before, the resets."""
    size, p = len(states), gates[slot]
    np.multiply(inputs[:, None], before, out=p)
    p += bias[:, None]
    if len(moved):
        p += moved
    both, new = p[: 2 * size], p[2 * size :]
    if last >= 0:
        both += q[: 2 * size]
    # a sigmoid by the hyperbolic tangent: its absolute error is what counts here
    both *= 0.5
    np.tanh(both, out=both)
    both += 1
    both *= 0.5
    if last >= 0:
        resets[slot] = q[2 * size :]
        new += both[:size] * resets[slot]
    np.tanh(new, out=new)
    away = states[:, last] - new if last >= 0 else -new
    away *= both[size:]
    np.add(new, away, out=states[:, slot])


def gated_vjp(
    i: int,
    grad: np.ndarray,
    states: np.ndarray,
    gates: np.ndarray,
    resets: np.ndarray,
    sums: np.ndarray,
    products: np.ndarray,
) -> None:
    """Cotangent of h_i ``(H, N)`` to those of the step's sum and product, put into their slots i of ``sums (3 H, D,
    N)`` and, of the third row of three, ``products (H, D, N)``; ``grad`` is left as ``g u``."""
    size = len(grad)
    reset, update, new = (gates[i, k * size : (k + 1) * size] for k in range(3))
    on_reset, on_update, on_new = (sums[k * size : (k + 1) * size, i] for k in range(3))
    rest = (1 - update) * grad
    np.multiply(rest, update, out=on_update)
    on_update *= states[:, i - 1] - new if i else -new
    np.multiply(new, new, out=on_new)
    np.subtract(1, on_new, out=on_new)
    on_new *= rest
    np.multiply(on_new, reset, out=products[:, i])
    if i:
        np.subtract(1, reset, out=on_reset)
        on_reset *= products[:, i]
        on_reset *= resets[i]
    else:
        on_reset.fill(0)
    grad *= update


class Steps:
    """The states one after the other, each given the x before it: of :func:`forward`, and of an inverse.

    ``context (C, N)`` or None is read within the bound. ``pieces``: this module, or one with other functions of the
    names above. ``room``: where states, gates and resets are put; without it the latest alone are kept.
    """

    def __init__(
        self, context: np.ndarray | None, cell: Cell, name: str, n: int, ws: Workspace, pieces: Any, room: Any = None
    ) -> None:
        self.cell, self.name, self.pieces, self.kept = cell, name, pieces, room is not None
        count, dtype = len(cell.state), cell.state.dtype
        self.bias = cell.bias.reshape(-1, count)
        self.moved = np.empty((0, n), dtype) if context is None else np.dot(cell.context, context)
        self.nothing = np.zeros(n, dtype)
        self.product = ws.take((count, n), dtype)
        states, self.gates, self.resets = room if self.kept else _room(1, cell, name, n, ws)
        self.states: np.ndarray = states

    def __call__(self, i: int, before: np.ndarray | None) -> np.ndarray:
        """The state that has read x_1 to x_i ``(H, N)``, for i = 0, 1, ... in turn; ``before`` is x_i as it is read,
        None where i = 0."""
        slot = i if self.kept else 0
        last = -1 if i == 0 else slot - 1 if self.kept else 0
        if last >= 0:
            np.matmul(self.cell.state, self.states[:, last], out=self.product)
        read = self.nothing if before is None else before
        what = slot, last, self.cell.inputs, read, self.bias[i], self.moved, self.product, self.states
        if self.name == "gru":
            self.pieces.gated(*what, self.gates, self.resets)
        else:
            self.pieces.simple(self.name, *what)
        return self.states[:, slot]


def _room(dim: int, cell: Cell, name: str, n: int, ws: Workspace) -> tuple[np.ndarray, Any, Any]:
    """Arrays for states and, of "gru", gates and resets."""
    (count, size), dtype = cell.state.shape, cell.state.dtype
    states = ws.take((size, dim, n), dtype)
    if name != "gru":
        return states, None, None
    return states, ws.take((dim, count, n), dtype), ws.take((dim, size, n), dtype)


class Back:
    """The steps back, from the last to the first, each given the cotangent of its state. Then :meth:`totals`."""

    def __init__(self, saved: Any, ws: Workspace) -> None:
        x, self.before, context, c, room, self.cell, self.name, self.bound, self.pieces = saved
        self.x, self.context, self.c = x, context, c
        self.states, self.gates, self.resets = room
        (count, size), (dim, n), dtype = self.cell.state.shape, x.shape, x.dtype
        self.sums = ws.take((count, dim, n), dtype)
        # of the gated cell the third row of three differs between the sum and the product
        self.products = ws.take((size, dim, n), dtype) if self.name == "gru" else self.sums
        self.carry, self.spare = ws.take((size, n), dtype), ws.take((size, n), dtype)
        self.same = count - size if self.name == "gru" else 0

    def __call__(self, i: int, grad: np.ndarray) -> None:
        """Step i, with the cotangent ``(H, N)`` of its state, which is overwritten."""
        if i + 1 < len(self.x):
            grad += self.carry
        if self.name == "gru":
            self.pieces.gated_vjp(i, grad, self.states, self.gates, self.resets, self.sums, self.products)
        else:
            self.pieces.simple_vjp(self.name, i, grad, self.states, self.sums)
        if i:
            np.matmul(self.cell.state[self.same :].T, self.products[:, i], out=self.carry)
            if self.name == "gru":
                self.carry += np.matmul(self.cell.state[: self.same].T, self.sums[: self.same, i], out=self.spare)
                self.carry += grad

    def on_input(self, i: int) -> np.ndarray:
        """Cotangent of x_i ``(N,)`` through the states, after step i + 1."""
        return squash_vjp(self.x[i], self.bound, np.matmul(self.cell.inputs, self.sums[:, i + 1]))

    def totals(self) -> dict[str, Any]:
        """Cotangents of ``x``, ``context``, the cell's ``inputs``, ``state`` and ``bias``, and its context weights,
        "on_context", after the first step."""
        dim, n = self.x.shape
        # columns of a step and its rows: from the second on, and the states before them
        flat, products, states = (a.reshape(len(a), dim * n) for a in (self.sums, self.products, self.states))
        later, earlier = flat[:, n:], states[:, : (dim - 1) * n].T
        out: dict[str, Any] = {"x": np.zeros_like(self.x), "context": None, "on_context": None}
        out["x"][:-1] = squash_vjp(self.x[:-1], self.bound, np.matmul(self.cell.inputs, later).reshape(dim - 1, n))
        out["inputs"] = np.matmul(later, self.before[:-1].reshape(-1))
        out["state"] = np.empty_like(self.cell.state)
        np.matmul(later[: self.same], earlier, out=out["state"][: self.same])
        np.matmul(products[:, n:], earlier, out=out["state"][self.same :])
        out["bias"] = np.sum(self.sums, axis=2).T.reshape(-1)
        if self.c is not None:
            moved = np.sum(self.sums, axis=1)
            out["on_context"] = np.dot(moved, self.c.T)
            out["context"] = squash_vjp(self.context, self.bound, np.dot(self.cell.context.T, moved))
        return out


def forward(
    x: np.ndarray,
    context: np.ndarray | None,
    cell: Cell,
    name: str,
    bound: float | None,
    ws: Workspace,
    pieces: Any,
) -> tuple[np.ndarray, Any]:
    """x ``(D, N)`` and context ``(C, N)`` to the states ``(H, D, N)``, and what :class:`Back` needs."""
    before, c = squash(x, bound), None if context is None else squash(context, bound)
    room = _room(len(x), cell, name, x.shape[1], ws)
    step = Steps(c, cell, name, x.shape[1], ws, pieces, room)
    for i in range(len(x)):
        step(i, before[i - 1] if i else None)
    return room[0], (x, before, context, c, room, cell, name, bound, pieces)


def vjp(saved: Any, grad: np.ndarray, ws: Workspace) -> dict[str, Any]:
    """Cotangent of the states ``(H, D, N)`` to those of :meth:`Back.totals`."""
    back = Back(saved, ws)
    own = ws.take(back.carry.shape, grad.dtype)
    for i in range(grad.shape[1] - 1, -1, -1):
        own[...] = grad[:, i]
        back(i, own)
    return back.totals()


def by_dimension(out: np.ndarray, bias: np.ndarray, dim: int, ws: Workspace) -> np.ndarray:
    """``(P, D * N)`` and a bias ``(D * P,)`` to pseudo-parameters ``(D, P, N)``."""
    count = len(out)
    columns = out.reshape(count, dim, -1).transpose(1, 0, 2)
    theta = ws.take(columns.shape, out.dtype)
    return np.add(columns, bias.reshape(dim, count, 1), out=theta)


def by_dimension_vjp(grad: np.ndarray, ws: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """Cotangent of theta to those of ``out`` and the bias."""
    dim, count, n = grad.shape
    out = ws.take((count, dim, n), grad.dtype)
    out[...] = grad.transpose(1, 0, 2)
    return out.reshape(count, -1), np.sum(grad, axis=2).reshape(-1)
