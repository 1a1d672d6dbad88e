"""Block neural autoregressive flow run backwards: its inverse, and linear systems with its Jacobian.

Both go along the dimensions and extend every layer by one block a step: all D steps together cost about one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refnaf.kernels.array import block
from refnaf.kernels.array.root import monotone_root
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.block import Network, diagonal_blocks

#: How far a bounded network is searched for a root.
FARTHEST = 1e30

Function = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def inverse(
    y: np.ndarray, context: np.ndarray | None, net: Network, *, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The x with ``block(x) = y``, ``log dx_i/dy_i`` and the residual ``f(x) - y``, each ``(D, N)``.

    :func:`_bracket` holds the root. Without a linear path (residual "none" and no leak) a bracket is found by doubling;
    ValueError where y is outside the image.
    """
    dim, n = y.shape
    pairs_of = zip(net.weights, net.gains, strict=True)
    weights = [block.weight(raw, gain, dim, net.epsilon, ws) for raw, gain in pairs_of]
    added = block.shifts(net, context)[0]
    mixtures = [None if part is None else np.broadcast_to(part, dim) for part in block.mixture_of(net, y.dtype)]
    hidden = [np.zeros((w.full.shape[1], n), y.dtype) for w in weights]
    x, log_slope, residual = np.empty_like(y), np.empty_like(y), np.empty_like(y)
    mark = ws.mark()
    for i in range(dim):
        pairs, known = [], []
        for w, below, plus in zip(weights, hidden, added, strict=True):
            rows, columns = w.blocks.shape[1:]
            own = slice(i * rows, (i + 1) * rows)
            known.append(w.full[own, : i * columns] @ below[: i * columns] + plus[own])
            pairs.append((w.full[own, i * columns : (i + 1) * columns], w.blocks[i : i + 1]))
        mixed = block.Mixed(*(None if part is None else part[i : i + 1] for part in mixtures))

        def function(
            at: np.ndarray, index: np.ndarray, pairs: Any = pairs, known: Any = known, mixed: Any = mixed
        ) -> tuple[np.ndarray, np.ndarray]:
            ws.release(mark)
            parts = known if len(index) == n else [k[:, index] for k in known]
            value, slope, _ = block.run(at[None], pairs, parts, mixed, net.leak, ws)
            return value[0], slope[0]

        low, high = _bracket(y[i], [own for own, _ in pairs], known, mixed, net.leak) or _enclosed(function, y[i])
        x[i], log_slope[i], residual[i] = monotone_root(function, y[i], low, high)
        ws.release(mark)
        at_root = block.run(x[i : i + 1], pairs, known, mixed, net.leak, ws)[2]
        for below, units in zip(hidden, at_root.hidden, strict=True):
            below[i * len(units) : (i + 1) * len(units)] = units
    ws.release(mark)
    return x, -log_slope, residual


def _bracket(
    y: np.ndarray, own: list[np.ndarray], known: list[np.ndarray], mixed: block.Mixed, leak: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the root of ``F f(x) + A x = y`` of one dimension lies; None where F f is bounded, and A is 0.

    tanh is within (-1, 1), and the weights ``own`` are positive: if what a layer reads is within ``P x + Q -+ R``, the
    next reads what is within ``W (leak P x + leak Q -+ (leak R + 1)) + known``. By induction so is f, from ``P = W_1``,
    ``Q = known``, ``R = 0``, and the root within ``(y - F (Q +- R)) / (F P + A)``.
    """
    steep, middle, size, reach = own[0], known[0], np.abs(known[0]), np.zeros_like(own[0])
    for w, plus in zip(own[1:], known[1:], strict=True):
        reach = w @ (1 + leak * reach)
        if leak:
            steep, middle, size = leak * (w @ steep), leak * (w @ middle) + plus, leak * (w @ size) + np.abs(plus)
        else:
            steep, middle, size = np.zeros_like(reach), plus, np.abs(plus)
    scale = 1 if mixed.f is None else np.exp(mixed.f)
    steep = scale * steep[0] + (0 if mixed.a is None else np.exp(mixed.a))
    if mixed.a is None and steep[0] < np.finfo(y.dtype).tiny:
        return None
    # far out the root is at an end of the bracket: room for the rounding of all these sums
    terms = 16 + 4 * sum(sum(w.shape) for w in own)
    reach = scale * reach[0] + terms * np.finfo(y.dtype).eps * (np.abs(y) + scale * (size[0] + reach[0]))
    rest = y - scale * middle[0]
    return (rest - reach) / steep, (rest + reach) / steep


def _enclosed(function: Function, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bracket of the root found by doubling; ValueError where there is none up to FARTHEST."""
    ends = []
    for sign in (-1.0, 1.0):
        end = np.full_like(y, sign)
        short = np.arange(len(y))
        while len(short) and abs(end[short[0]]) < FARTHEST:
            short = short[sign * (function(end[short], short)[0] - y[short]) < 0]
            end[short] *= 2
        if len(short):
            raise ValueError(
                f"{len(short)} rows lie outside the image of a B-NAF layer with residual 'none', which is bounded: "
                "they have no inverse; residual 'linear' has one for every row"
            )
        ends.append(end)
    return ends[0], ends[1]


def _log_diagonal(saved: block.Saved) -> np.ndarray:
    """Logarithms of the Jacobian's diagonal ``(D, N)``: the log-slopes, but for what an epsilon does to them."""
    net, x = saved.net, saved.run.hidden[0]
    if not net.epsilon:
        return saved.log_slope
    weights = [(w.full, diagonal_blocks(w.full, len(x))) for w in saved.weights]
    mixed = block.mixture_of(net._replace(epsilon=0.0), x.dtype)
    return block.run(x, weights, block.shifts(net, saved.context)[0], mixed, net.leak, Workspace())[1]


def solve_transposed(saved: block.Saved, wanted: np.ndarray) -> np.ndarray:
    """The v ``(D, N)`` with ``J' v = wanted``, J the Jacobian at the saved point.

    From the last dimension to the first: what later outputs pass back to x_i is known, the rest is ``J_ii v_i``.
    """
    dim, n = wanted.shape
    log_f = block.mixture_of(saved.net, wanted.dtype).f
    scale = np.ones(1, wanted.dtype) if log_f is None else np.exp(log_f)
    diagonal = np.exp(_log_diagonal(saved))
    grads = [np.zeros((len(w.full), n), wanted.dtype) for w in saved.weights]
    found = np.zeros_like(wanted)

    def back(i: int) -> np.ndarray:
        """What outputs i and later pass back to x_i through f."""
        below = scale * found[i : i + 1]
        for k in range(len(grads) - 1, -1, -1):
            rows, columns = saved.weights[k].blocks.shape[1:]
            if k < len(grads) - 1:
                below = saved.run.slopes[k][i] * below
            grads[k][i * rows : (i + 1) * rows] = below
            below = saved.weights[k].full[i * rows :, i * columns : (i + 1) * columns].T @ grads[k][i * rows :]
        return below[0]

    for i in range(dim - 1, -1, -1):
        found[i] = (wanted[i] - back(i)) / diagonal[i]
        back(i)
    return found
