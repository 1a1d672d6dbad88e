"""Recurrences of Transformation Autoregressive Networks (Oliva et al. 2018, "TAN", sections 2.1 and 2.2).

A state runs along the dimensions and has read, before dimension i, those before it:

    h_i = g(x_{i-1}, h_{i-1}, c),    h_0 = 0

It gives the recurrent transformations (z is y here) their shift, and the recurrent autoregressive model its
pseudo-parameters:

    RNN     z_i = r_alpha(s_i x_i + w_i'h_i + b_i),    r_alpha the leaky ReLU, s_i > 0
    SRNN    z_i = s_i x_i + w_i'h_i + b_i
    RAM     theta_i = f(h_i)

The paper has one s, w, b and alpha for all dimensions; here each has its own. Its index of h is one less, and its first
h is 0: here a context may already have moved that.

Arrays are feature-major: x ``(D, N)``, context ``(C, N)`` or None, states ``(H, D, N)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from refnaf.reference._numpy import np, value
from refnaf.reference.affine import bend
from refnaf.reference.made import read
from refnaf.reference.stable import log_sigmoid, sigmoid

#: The functions g: two simple recurrences and a gated one.
CELLS = ("tanh", "relu", "gru")


class Cell(NamedTuple):
    """The numbers of g: G rows, which are H, or 3 H for a "gru" (reset gate, update gate, new state)."""

    inputs: Any  # (G,)
    state: Any  # (G, H)
    bias: Any  # (D * G,)
    context: Any  # (G, C), or None


class Output(NamedTuple):
    """The numbers of a recurrent transformation; SRNN has no ``leak``."""

    weight: Any  # (D, H)
    bias: Any  # (D,)
    log_scale: Any  # (D,), raw: s = exp(bend(log_scale))
    leak: Any  # (D,), raw, or None: alpha = sigmoid(bend(leak))


def rows(name: str, size: int) -> int:
    """G for a state of H numbers."""
    return 3 * size if name == "gru" else size


def step(name: str, p: Any, h: Any, weight: Any) -> Any:
    """g: what was read p ``(G, N)`` and the state h ``(H, N)`` to the next state.

    "tanh" and "relu": ``act(p + W h)``, the paper's form. "gru", with ``q = W h``, a row of three each:

        r = sigmoid(p_r + q_r),    u = sigmoid(p_u + q_u),    n = tanh(p_n + r q_n),    u h + (1 - u) n,

    the gated recurrent unit of Cho et al. 2014 with the reset gate behind the product.
    """
    q = np.dot(weight, h)
    if name == "tanh":
        return np.tanh(p + q)
    if name == "relu":
        return (p + q) * (value(p + q) > 0).astype(value(p).dtype)
    size = value(h).shape[0]
    reset = sigmoid(p[:size] + q[:size])
    update = sigmoid(p[size : 2 * size] + q[size : 2 * size])
    new = np.tanh(p[2 * size :] + reset * q[2 * size :])
    return update * h + (1 - update) * new


def reading(i: int, before: Any, context: Any, cell: Cell) -> Any:
    """What step i reads, ``(G, N)`` or ``(G, 1)``: ``u x_{i-1} + a_i + V c``, of x and c as they are read."""
    size = value(cell.inputs).shape[0]
    p = cell.bias[i * size : (i + 1) * size][:, None]
    if i:
        p = p + cell.inputs[:, None] * before
    return p if context is None else p + np.dot(cell.context, context)


def states(x: Any, context: Any, cell: Cell, name: str, bound: float | None) -> Any:
    """h_1 to h_D ``(H, D, N)``; x and the context are read within the bound (:func:`.made.read`)."""
    before, c = read(x, bound), None if context is None else read(context, bound)
    h = np.zeros((value(cell.state).shape[1], value(x).shape[1]), value(x).dtype)
    found = []
    for i in range(value(x).shape[0]):
        h = step(name, reading(i, before[i - 1], c, cell), h, cell.state)
        found.append(h)
    return np.stack(found, axis=1)


def scales(log_scale: Any) -> tuple[Any, Any]:
    """s and its logarithm."""
    bent = bend(log_scale)
    return np.exp(bent), bent


def leaky(t: Any, leak: Any) -> tuple[Any, Any]:
    """``r_alpha(t) = max(t, 0) + alpha min(t, 0)`` with ``0 < alpha < 1``, and the logarithm of its derivative."""
    negative = (value(t) < 0).astype(value(t).dtype)
    bent = bend(leak)
    return t * (1 - negative) + np.exp(log_sigmoid(bent)) * (t * negative), log_sigmoid(bent) * negative


def unleaky(z: Any, leak: Any) -> tuple[Any, Any]:
    """The t with ``r_alpha(t) = z``, and ``log dt/dz``."""
    negative = (value(z) < 0).astype(value(z).dtype)
    log_alpha = log_sigmoid(bend(leak))
    return z * (1 - negative) + np.exp(-log_alpha) * (z * negative), -log_alpha * negative


def transformation(x: Any, context: Any, cell: Cell, out: Output, name: str, bound: float | None) -> tuple[Any, Any]:
    """RNN, or SRNN without a leak: y and ``log dy_i/dx_i``, ``(D, N)``."""
    h = states(x, context, cell, name, bound)
    scale, log_scale = scales(out.log_scale)
    y = scale[:, None] * x + np.sum(np.transpose(out.weight)[:, :, None] * h, axis=0) + out.bias[:, None]
    log_slope = log_scale[:, None] + 0 * y
    if out.leak is None:
        return y, log_slope
    y, bent = leaky(y, out.leak[:, None])
    return y, log_slope + bent


def inverse(y: Any, context: Any, cell: Cell, out: Output, name: str, bound: float | None) -> tuple[Any, Any]:
    """The x of :func:`transformation`, one dimension after the other, and ``log dx_i/dy_i``."""
    t, log_slope = (y, 0 * y) if out.leak is None else unleaky(y, out.leak[:, None])
    c = None if context is None else read(context, bound)
    scale, log_scale = scales(out.log_scale)
    h = np.zeros((value(cell.state).shape[1], value(y).shape[1]), value(y).dtype)
    found: list[Any] = []
    for i in range(value(y).shape[0]):
        before = read(found[-1], bound) if i else None
        h = step(name, reading(i, before, c, cell), h, cell.state)
        found.append((t[i] - np.dot(out.weight[i], h) - out.bias[i]) * (1 / scale[i]))
    return np.stack(found), log_slope - log_scale[:, None]


def by_dimension(out: Any, bias: Any, dim: int) -> Any:
    """``(P, D * N)`` and a bias ``(D * P,)`` to pseudo-parameters ``(D, P, N)``."""
    count = value(out).shape[0]
    theta = np.transpose(np.reshape(out, (count, dim, -1)), (1, 0, 2))
    return theta + np.reshape(bias, (dim, count))[:, :, None]
