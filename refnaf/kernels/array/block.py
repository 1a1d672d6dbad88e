"""Block neural autoregressive flow (reference: :mod:`refnaf.reference.block`) with its analytic VJP.

The derivative by the one x_i of its dimension is a vector of units, so that the product of the diagonal blocks is taken
from the right: the tangent ``t <- tanh'(z) (W_ii t)`` of b positive numbers, sums without cancellation. What all units
of a dimension lose to the saturation of tanh, ``exp(-2 min|z|)``, is kept apart as a logarithm: tangents do not
underflow, and nothing but ``e = exp(-2 |z|)`` needs an exponential.

With h = a(z), s = a'(z), t = s v, v = W_ii t_below, and the cotangents gh, gt of h and t:

    gz = s gh - 2 q t gt,    gv = s gt,    gW = gz h_below' (diagonal blocks: + gv t_below'),
    gh_below = W' gz,        gt_below = W_ii' gv,

where q = -s'/(2 s) is h itself for a = tanh, and ``tanh(z) tanh'(z) / s`` with a leak: ``a(z) = tanh(z) + leak z``. A
leak keeps the slopes up, and nothing is kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array.made import squash, squash_vjp
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference.block import SLOPE_LIMIT, Network, diagonal_blocks, masks, mixture, row_shift
from refnaf.reference.stable import sigmoid, softplus


class Weight(NamedTuple):
    """A layer's ``W`` ``(D r, D c)`` and the diagonal blocks ``(D, r, c)`` of the log-slopes; what the VJP of the two
    needs: rows of length one, and ``(D r, 1)`` each, ``exp(gain)``, what an epsilon leaves of it in ``W`` and in the
    blocks, ``|w| / (|w| + epsilon)`` and ``|w| / sqrt(|w|^2 + epsilon)``, and ``1 / |w|``."""

    full: np.ndarray
    blocks: np.ndarray
    unit: np.ndarray
    scale: np.ndarray
    kept: np.ndarray
    kept_blocks: np.ndarray
    inverse_norm: np.ndarray


class Mixed(NamedTuple):
    """``log F`` and ``log A`` as y has them, and as the log-slopes do: ``(D,)`` or ``(1,)``, or None."""

    f: np.ndarray | None
    a: np.ndarray | None
    slope_f: np.ndarray | None
    slope_a: np.ndarray | None


class Pass(NamedTuple):
    """What the layers of a pass leave: their inputs, the activation's slopes as they are and without what is kept
    apart, its q, and tangents; f, its tangent, and the share of f in the slope of y (None where it is all)."""

    hidden: list[np.ndarray]
    slopes: list[np.ndarray]
    scaled_slopes: list[np.ndarray]
    curves: list[np.ndarray]
    tangents: list[np.ndarray]
    f: np.ndarray
    last_tangent: np.ndarray
    share: np.ndarray | None


class Saved(NamedTuple):
    """What :func:`vjp` needs."""

    net: Network
    context: np.ndarray | None
    read: np.ndarray | None
    weights: list[Weight]
    run: Pass
    log_slope: np.ndarray


def weight(raw: np.ndarray, gain: np.ndarray, dim: int, epsilon: float, ws: Workspace) -> Weight:
    """``W`` from raw numbers that are zero above the diagonal blocks."""
    blocks = diagonal_blocks(raw, dim)
    top = row_shift(blocks)
    unit = ws.take(raw.shape, raw.dtype)
    np.multiply(raw, np.exp(-top), out=unit)
    blocks -= top.reshape(dim, -1, 1)
    np.exp(blocks, out=blocks)
    each = np.arange(dim)
    unit.reshape(dim, blocks.shape[1], dim, blocks.shape[2])[each, :, each, :] = blocks
    norm = np.sqrt(np.einsum("rc,rc->r", unit, unit))[:, None]
    unit /= norm
    inverse_norm = np.exp(-top) / norm
    kept, kept_blocks = 1 / (1 + epsilon * inverse_norm), 1 / np.sqrt(1 + epsilon * inverse_norm**2)
    scale = np.exp(gain)[:, None]
    full = ws.take(raw.shape, raw.dtype)
    np.multiply(unit, scale * kept, out=full)
    own = diagonal_blocks(unit, dim) * (scale * kept_blocks).reshape(dim, -1, 1)
    return Weight(full, own, unit, scale, kept, kept_blocks, inverse_norm)


def weight_vjp(w: Weight, grad: np.ndarray, grad_blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of ``W``, overwritten, and of the diagonal blocks to those of the raw numbers and the gains."""
    dim, rows, columns = grad_blocks.shape
    each = np.arange(dim)
    by_block, unit_blocks = grad.reshape(dim, rows, dim, columns), diagonal_blocks(w.unit, dim)
    inside = by_block[each, :, each, :]
    grad *= masks(dim, rows, columns, grad.dtype)[1]
    by_block[each, :, each, :] = inside
    grad *= w.scale * w.kept
    along = np.einsum("rc,rc->r", grad, w.unit)[:, None]
    grad_blocks = grad_blocks * (w.scale * w.kept_blocks).reshape(dim, rows, 1)
    along_blocks = np.einsum("irc,irc->ir", grad_blocks, unit_blocks).reshape(-1, 1)
    by_block[each, :, each, :] += grad_blocks
    # longer rows change the two the less the more an epsilon takes of them
    grad -= w.unit * (w.kept * along + w.kept_blocks**2 * along_blocks)
    # d exp(raw) / d raw is the entry itself
    inside = by_block[each, :, each, :] * unit_blocks
    grad *= w.inverse_norm
    by_block[each, :, each, :] = inside
    return grad, (along + along_blocks)[:, 0]


def shifts(net: Network, context: np.ndarray | None) -> tuple[list[np.ndarray], np.ndarray | None]:
    """What is added in each layer, ``(units, N or 1)``, and what was read of the context."""
    biases = [bias[:, None] for bias in net.biases]
    if context is None:
        return biases, None
    read = squash(context, net.bound)
    return [bias + np.dot(v, read) for v, bias in zip(net.contexts, biases, strict=True)], read


def run(
    x: np.ndarray,
    weights: Sequence[tuple[np.ndarray, np.ndarray]],
    added: Sequence[np.ndarray],
    mixed: Mixed,
    leak: float,
    ws: Workspace,
) -> tuple[np.ndarray, np.ndarray, Pass]:
    """``y`` and its log-slope ``(D, N)`` from each layer's ``W`` and diagonal blocks, what is added, ``log F`` and
    ``log A``, and the activation's leak."""
    dim, n = x.shape
    hidden, slopes, scaled_slopes, curves, tangents = [x], [], [], [], [np.ones((dim, 1, n), x.dtype)]
    log_lost = np.zeros((dim, n), x.dtype)
    for k, (full, blocks) in enumerate(weights):
        z = ws.take((len(full), n), x.dtype)
        np.dot(full, hidden[k], out=z)
        z += added[k]
        v = ws.take((dim, blocks.shape[1], n), x.dtype)
        np.matmul(blocks, tangents[k], out=v)
        if k < len(weights) - 1:
            lost, slope, scaled, curve = _leaky(z, dim, leak, ws) if leak else _tanh(z, dim, ws)
            log_lost -= lost
            v *= scaled
            hidden.append(z)
            slopes.append(slope)
            scaled_slopes.append(scaled)
            curves.append(curve)
            tangents.append(v)
    log_slope = np.log(v[:, 0]) + log_lost
    y, share = z, None
    if mixed.f is not None and mixed.slope_f is not None:
        y, log_slope = np.exp(mixed.f)[:, None] * z, log_slope + mixed.slope_f[:, None]
    if mixed.a is not None and mixed.slope_a is not None:
        over = log_slope - mixed.slope_a[:, None]
        y, log_slope = y + np.exp(mixed.a)[:, None] * x, mixed.slope_a[:, None] + softplus(over)
        share = sigmoid(over)
    return y, log_slope, Pass(hidden, slopes, scaled_slopes, curves, tangents, z, v[:, 0], share)


def _tanh(z: np.ndarray, dim: int, ws: Workspace) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """tanh in place of z; ``2 min|z|`` over each dimension's units ``(D, N)``; the slope, the slope without its factor
    ``exp(-2 min|z|)``, and q, each ``(D, b, N)``."""
    shape = (dim, len(z) // dim, z.shape[1])
    e, scaled = ws.take(shape, z.dtype), ws.take(shape, z.dtype)
    np.abs(z.reshape(shape), out=e)
    least = np.min(e, axis=1)
    np.subtract(least[:, None], e, out=e)
    e *= 2
    np.exp(e, out=e)
    lost = 2 * least
    factor = np.exp(-lost)[:, None]
    # 4 e / (1 + e)^2 with e = exp(-2 |z|), of which e holds what exceeds the factor
    np.multiply(e, factor, out=scaled)
    scaled += 1
    np.square(scaled, out=scaled)
    np.divide(e, scaled, out=scaled)
    scaled *= 4
    np.multiply(scaled, factor, out=e)
    np.tanh(z, out=z)
    return lost, e, scaled, z.reshape(shape)


def _leaky(z: np.ndarray, dim: int, leak: float, ws: Workspace) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`_tanh` for ``tanh(z) + leak z``, of whose slope nothing is kept apart."""
    straight = ws.take(z.shape, z.dtype)
    np.multiply(z, leak, out=straight)
    _, slope, curve, tanh = _tanh(z, dim, ws)
    np.multiply(tanh, slope, out=curve)
    slope += leak
    curve /= slope
    z += straight
    return 0, slope, slope, curve


def mixture_of(net: Network, dtype: Any) -> Mixed:
    """What enters y and its log-slope, in a dtype."""
    parts = (*mixture(net.residual, net.mix), *mixture(net.residual, net.mix, net.epsilon))
    return Mixed(*(None if part is None else part.astype(dtype) for part in parts))


def forward(x: np.ndarray, context: np.ndarray | None, net: Network, *, ws: Workspace) -> tuple[Any, Any, Saved]:
    """``y`` and ``log dy_i/dx_i``, both ``(D, N)``, and what :func:`vjp` needs; context ``(C, N)`` or None."""
    weights = [weight(raw, gain, len(x), net.epsilon, ws) for raw, gain in zip(net.weights, net.gains, strict=True)]
    added, read = shifts(net, context)
    y, log_slope, kept = run(x, [w[:2] for w in weights], added, mixture_of(net, x.dtype), net.leak, ws)
    return y, log_slope, Saved(net, context, read, weights, kept, log_slope)


def _mixed_vjp(saved: Saved, grad_y: np.ndarray, grad_log_slope: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Cotangents of y and its log-slope to those of x (None for 0), f, the logarithm of f's slope, and ``mix``."""
    net, kept = saved.net, saved.run
    if kept.share is None:
        return None, grad_y, np.broadcast_to(grad_log_slope, grad_y.shape), None
    log_f, log_a, slope_f, slope_a = mixture_of(net, grad_y.dtype)
    assert log_a is not None
    grad_x = np.exp(log_a)[:, None] * grad_y
    grad_inner = grad_log_slope * kept.share
    if net.residual == "normal":
        return grad_x, grad_y, grad_inner, None
    grad_a, grad_slope_a = grad_x * kept.hidden[0], grad_log_slope * (1 - kept.share)
    if log_f is None:
        return grad_x, grad_y, grad_inner, np.sum(grad_a + grad_slope_a, axis=1) * (1 - (log_a / SLOPE_LIMIT) ** 2)
    grad_f = np.exp(log_f)[:, None] * grad_y
    # sigmoid(g) rises by sigmoid(g) sigmoid(-g), and so falls sigmoid(-g)
    rise = log_f + log_a
    grad_mix = np.sum(grad_f * kept.f) * np.exp(log_a) - np.sum(grad_a) * np.exp(log_f)
    grad_mix += np.sum(grad_inner) * np.exp(rise - slope_f) - np.sum(grad_slope_a) * np.exp(rise - slope_a)
    return grad_x, grad_f, grad_inner, grad_mix


def vjp(saved: Saved, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace) -> dict[str, Any]:
    """Cotangents of y ``(D, N)`` and its log-slopes ``(1 or D, N)`` to those of ``x``, ``context`` (or None), ``mix``
    (or None) and, lists over the layers, ``weights``, ``gains``, ``biases`` and ``contexts``."""
    net, kept, count = saved.net, saved.run, len(saved.weights)
    out: dict[str, Any] = {name: [None] * count for name in ("weights", "gains", "biases", "contexts")}
    out["context"] = None
    grad_x, gz, grad_inner, out["mix"] = _mixed_vjp(saved, grad_y, grad_log_slope)
    gv = (grad_inner / kept.last_tangent)[:, None]
    grad_read: np.ndarray | None = None
    for k in range(count - 1, -1, -1):
        w = saved.weights[k]
        gw = ws.take(w.full.shape, gz.dtype)
        np.dot(gz, kept.hidden[k].T, out=gw)
        grad_blocks = np.matmul(gv, kept.tangents[k].transpose(0, 2, 1))
        out["weights"][k], out["gains"][k] = weight_vjp(w, gw, grad_blocks)
        out["biases"][k] = np.sum(gz, axis=1)
        if saved.read is not None:
            out["contexts"][k] = np.dot(gz, saved.read.T)
            part = np.dot(net.contexts[k].T, gz)
            grad_read = part if grad_read is None else grad_read + part
        gh = ws.take(kept.hidden[k].shape, gz.dtype)
        np.dot(w.full.T, gz, out=gh)
        if k > 0:
            gt = ws.take(kept.tangents[k].shape, gz.dtype)
            np.matmul(w.blocks.transpose(0, 2, 1), gv, out=gt)
            twice = ws.take(gt.shape, gz.dtype)
            np.multiply(gt, kept.tangents[k], out=twice)
            twice *= kept.curves[k - 1]
            twice *= 2
            by_unit = gh.reshape(gt.shape)
            by_unit *= kept.slopes[k - 1]
            by_unit -= twice
            gt *= kept.scaled_slopes[k - 1]
            gv = gt
        gz = gh
    out["x"] = gz if grad_x is None else grad_x + gz
    if grad_read is not None:
        out["context"] = squash_vjp(saved.context, net.bound, grad_read)  # type: ignore[arg-type]
    return out
