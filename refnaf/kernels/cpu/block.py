"""Block neural autoregressive flow (reference: :mod:`refnaf.reference.block`): forward and VJP, compiled.

The equations are those of :mod:`refnaf.kernels.array.block`. The products with weights are NumPy's; what is between
them is one pass over each array. The tangent is carried as it is, and the two paths of a residual are added before the
logarithm is taken,

    log dy/dx = log(F v + A),

so that only where that sum is too small, or something has overflowed, a column has to be done in the careful way: by
the array twin, in float64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from refnaf.kernels.array import block as array
from refnaf.kernels.array.rare import SMALLEST
from refnaf.kernels.array.workspace import Workspace
from refnaf.kernels.cpu import made
from refnaf.kernels.cpu.arrays import plain
from refnaf.kernels.cpu.block_steps import activate, activate_vjp, finish, finish_vjp
from refnaf.kernels.cpu.block_weights import Weight, outer, product, transposed, weight, weight_vjp
from refnaf.reference.block import SLOPE_LIMIT, Network

#: Without a VJP to follow, samples go through the layers so many at a time: values of a layer, and fewest samples.
TOGETHER, FEWEST = 1 << 16, 128


class Pass(NamedTuple):
    """What the layers leave, as :class:`refnaf.kernels.array.block.Pass` names it; the first tangents, which are 1, are
    left out."""

    hidden: list[np.ndarray]
    slopes: list[np.ndarray]
    curves: list[np.ndarray]
    tangents: list[np.ndarray]
    f: np.ndarray
    last_tangent: np.ndarray


class Saved(NamedTuple):
    """What :func:`vjp` needs; of columns that are done by the array twin (``rare``), also what that one needs."""

    net: Network
    context: np.ndarray | None
    read: np.ndarray | None
    weights: list[Weight]
    run: Pass
    paths: np.ndarray
    log_slope: np.ndarray
    rare: np.ndarray
    careful: array.Saved | None


def paths(net: Network, dim: int) -> np.ndarray:
    """F and A of y, and of its slope, ``(4, D)`` in float64."""
    out = np.empty((4, dim))
    for row, log_path, without in zip(out, array.mixture_of(net, np.float64), (1, 0, 1, 0), strict=True):
        row[:] = without if log_path is None else np.exp(log_path)
    return out


def least_slope(weights: list[Weight], dtype: np.dtype) -> float:
    """Below this a slope has lost digits to the underflow of tangents, which later layers may have stretched."""
    reach = 1.0
    for w in weights:
        # so that NaN stays
        reach *= 1.0 if w.reach < 1 else w.reach
    return SMALLEST[dtype] * reach


def forward(
    x: np.ndarray, context: np.ndarray | None, net: Network, *, ws: Workspace, keep: bool = True
) -> tuple[np.ndarray, np.ndarray, Saved | None]:
    """``y`` and ``log dy_i/dx_i``, both ``(D, N)``, and what :func:`vjp` needs, or None without ``keep``; x ``(D, N)``,
    context ``(C, N)`` or None."""
    x = plain(x)
    dim, n = x.shape
    weights = [weight(raw, gain, dim, net.epsilon, ws) for raw, gain in zip(net.weights, net.gains, strict=True)]
    mixed, least = paths(net, dim), least_slope(weights, x.dtype)
    read = None if context is None else made.squash(context, net.bound)
    y, log_slope, bad = np.empty_like(x), np.empty_like(x), np.zeros(n, np.bool_)
    everywhere = not math.isfinite(least)
    with np.errstate(over="ignore", invalid="ignore"):
        if everywhere:
            bad[:] = True
            run = Pass([x], [], [], [], y, y)
        elif keep:
            run = _layers(x, read, net, weights, mixed, least, y, log_slope, bad, ws, True)
        else:
            run = _by_parts(x, read, net, weights, mixed, least, y, log_slope, bad, ws)
    rare = np.flatnonzero(bad)
    careful = _carefully(x, context, net, rare, y, log_slope) if len(rare) or everywhere else None
    if not keep:
        return y, log_slope, None
    if 0 < len(rare) < n:
        for arrays in (run.hidden[1:], run.slopes, run.curves, run.tangents, [run.f]):
            for a in arrays:
                a[..., rare] = 0
        run.last_tangent[:, rare] = 1
    return y, log_slope, Saved(net, context, read, weights, run, mixed, log_slope, rare, careful)


def _by_parts(
    x: np.ndarray,
    read: np.ndarray | None,
    net: Network,
    weights: list[Weight],
    mixed: np.ndarray,
    least: float,
    y: np.ndarray,
    log_slope: np.ndarray,
    bad: np.ndarray,
    ws: Workspace,
) -> Pass:
    """:func:`_layers` a part of the samples after the other, of which nothing is kept: buffers stay in the caches."""
    dim, n = x.shape
    step = max(TOGETHER // max(len(w.full) for w in weights), FEWEST)
    mark = ws.mark()
    for start in range(0, n, step):
        ws.release(mark)
        some = slice(start, start + step)
        few = ws.take((3, dim, len(bad[some])), x.dtype)
        few[0] = x[:, some]
        c = None if read is None else read[:, some]
        _layers(few[0], c, net, weights, mixed, least, few[1], few[2], bad[some], ws, False)
        y[:, some], log_slope[:, some] = few[1], few[2]
    return Pass([x], [], [], [], y, y)


def widened(net: Network) -> Network:
    """The network in float64."""
    weights, gains, biases, contexts = ([np.asarray(a, np.float64) for a in numbers] for numbers in net[:4])
    mix = None if net.mix is None else np.asarray(net.mix, np.float64)
    return net._replace(weights=weights, gains=gains, biases=biases, contexts=contexts, mix=mix)


def _carefully(
    x: np.ndarray, context: np.ndarray | None, net: Network, rare: np.ndarray, y: np.ndarray, log_slope: np.ndarray
) -> array.Saved:
    """Overwrite some columns of y and its log-slope by the array twin's in float64; what its VJP needs."""
    few = None if context is None else context[:, rare].astype(np.float64)
    with np.errstate(all="ignore"):
        value, slope, saved = array.forward(x[:, rare].astype(np.float64), few, widened(net), ws=Workspace())
        y[:, rare], log_slope[:, rare] = value, slope
    return saved


def _layers(
    x: np.ndarray,
    read: np.ndarray | None,
    net: Network,
    weights: list[Weight],
    mixed: np.ndarray,
    least: float,
    y: np.ndarray,
    log_slope: np.ndarray,
    bad: np.ndarray,
    ws: Workspace,
    keep: bool,
) -> Pass:
    dim, n = x.shape
    kept = Pass([x], [], [], [], y, y)
    hidden, tangents = kept.hidden, kept.tangents
    nothing = np.empty((1, 1), x.dtype)
    for k, w in enumerate(weights):
        last = k == len(weights) - 1
        kinds = 2 if last or not keep else 4 if net.leak else 3
        # one buffer for all: handing it out takes a while
        rows = ws.take((kinds, len(w.full), n), x.dtype)
        z, v = rows[0], rows[1]
        product(w, hidden[k], z)
        if read is not None:
            z += np.dot(net.contexts[k], read, out=ws.take(z.shape, x.dtype))
        if k > 0:
            outs, ins = w.blocks.shape[1:]
            np.matmul(w.blocks, tangents[k - 1].reshape(dim, ins, n), out=v.reshape(dim, outs, n))
        if last:
            break
        slope, curve = rows[2] if kinds > 2 else nothing, rows[3] if kinds > 3 else nothing
        first = w.blocks.reshape(-1) if k == 0 else nothing[0]
        activate(z, plain(net.biases[k]), v, first, net.leak, slope, curve, k == 0, keep)
        hidden.append(z)
        tangents.append(v)
        kept.slopes.append(slope)
        kept.curves.append(curve if kinds > 3 else z)
    finish(x, z, plain(net.biases[-1]), v, mixed, least, y, log_slope, bad)
    return kept._replace(f=z, last_tangent=v)


def vjp(saved: Saved, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace) -> dict[str, Any]:
    """Cotangents of y ``(D, N)`` and its log-slopes ``(1 or D, N)`` to those of ``x``, ``context`` (or None), ``mix``
    (or None) and, lists over the layers, ``weights``, ``gains``, ``biases`` and ``contexts``."""
    grad_y, grad_log_slope = plain(grad_y), plain(grad_log_slope)
    with np.errstate(over="ignore", invalid="ignore"):
        careful = saved.careful
        if careful is None:
            out = _vjp(saved, grad_y, grad_log_slope, ws)
            if _finite(out):
                return out
            # products of large weights overflow earlier backwards than forwards
            x, everything = saved.run.hidden[0], np.arange(grad_y.shape[1])
            careful = _carefully(x, saved.context, saved.net, everything, np.empty_like(x), np.empty_like(x))
            saved = saved._replace(rare=everything)
        few = [g[:, saved.rare].astype(np.float64) for g in (grad_y, grad_log_slope)]
        rest = array.vjp(careful, few[0], few[1], Workspace())
        if len(saved.rare) == grad_y.shape[1]:
            return {name: _cast(each, grad_y.dtype) for name, each in rest.items()}
        grad_y, grad_log_slope = grad_y.copy(), grad_log_slope.copy()
        grad_y[:, saved.rare], grad_log_slope[:, saved.rare] = 0, 0
        return _together(_vjp(saved, grad_y, grad_log_slope, ws), rest, saved.rare)


def _together(out: dict[str, Any], rest: dict[str, Any], rare: np.ndarray) -> dict[str, Any]:
    """The cotangents of all columns from those of the others and of the rare."""
    for name, few in rest.items():
        if name in ("x", "context") and few is not None:
            out[name][:, rare] = few
        elif isinstance(few, list):
            for mine, other in zip(out[name], few, strict=True):
                if mine is not None:
                    mine += other.astype(mine.dtype)
        elif few is not None:
            out[name] += few.astype(out[name].dtype)
    return out


def as_the_arrays(saved: Saved) -> Any:
    """What :func:`refnaf.kernels.array.block_inverse.solve_transposed` reads of the array twin's."""
    if saved.careful is None:
        dim, n = saved.run.last_tangent.shape
        slopes = [s.reshape(dim, len(s) // dim, n) for s in saved.run.slopes]
        return saved._replace(run=saved.run._replace(slopes=slopes))
    return array.forward(saved.run.hidden[0], saved.context, saved.net, ws=Workspace())[2]


def _finite(grads: dict[str, Any]) -> bool:
    """Whether a VJP overflowed nowhere: the gains' cotangents are sums over all others but that of x."""
    return all(np.isfinite(a).all() for a in (grads["x"], *grads["gains"]))


def _cast(array_or_list: Any, dtype: Any) -> Any:
    if isinstance(array_or_list, list):
        return [_cast(a, dtype) for a in array_or_list]
    return None if array_or_list is None else array_or_list.astype(dtype)


def _vjp(saved: Saved, grad_y: np.ndarray, grad_log_slope: np.ndarray, ws: Workspace) -> dict[str, Any]:
    net, kept, weights = saved.net, saved.run, saved.weights
    dtype, dim, count = grad_y.dtype, len(grad_y), len(saved.weights)
    out: dict[str, Any] = {name: [None] * count for name in ("weights", "gains", "biases", "contexts")}
    n = grad_y.shape[1]
    gz, gv, grad_x = ws.take((3, dim, n), dtype)
    sums = np.zeros((5, dim))
    finish_vjp(kept.hidden[0], kept.f, kept.last_tangent, grad_y, grad_log_slope, saved.paths, gz, gv, grad_x, sums)
    out["mix"], out["context"] = _mix_vjp(net, saved.paths, sums, dtype), None
    sum_z, sum_v, grad_read = sums[0], np.zeros(0), None
    for k in range(count - 1, -1, -1):
        w = weights[k]
        gw, grad_blocks = ws.take(w.full.shape, dtype), ws.take(w.blocks.shape, dtype)
        outer(w, gz, kept.hidden[k], gw)
        outs, ins = w.blocks.shape[1:]
        if k > 0:
            t = kept.tangents[k - 1].reshape(dim, ins, n)
            np.matmul(gv.reshape(dim, outs, n), t.transpose(0, 2, 1), out=grad_blocks)
        else:
            grad_blocks[...] = sum_v.reshape(w.blocks.shape)
        out["weights"][k], out["gains"][k] = weight_vjp(w, gw, grad_blocks)
        out["biases"][k] = sum_z.astype(dtype)
        if saved.read is not None:
            out["contexts"][k] = np.dot(gz, saved.read.T)
            below = np.dot(net.contexts[k].T, gz)
            grad_read = below if grad_read is None else grad_read + below
        gh, gt = ws.take((2, *kept.hidden[k].shape), dtype)
        transposed(w, gz, gh)
        if k > 0:
            np.matmul(w.blocks.transpose(0, 2, 1), gv.reshape(dim, outs, n), out=gt.reshape(dim, ins, n))
            sum_z, sum_v = np.zeros((2, len(gh)))
            activate_vjp(gh, gt, kept.slopes[k - 1], kept.curves[k - 1], kept.tangents[k - 1], sum_z, sum_v)
        gz, gv = gh, gt
    grad_x += gz
    out["x"] = grad_x
    if grad_read is not None:
        out["context"] = made.squash_vjp(saved.context, net.bound, grad_read)  # type: ignore[arg-type]
    return out


def _mix_vjp(net: Network, mixed: np.ndarray, sums: np.ndarray, dtype: Any) -> np.ndarray | None:
    """The cotangent of ``mix``: sums over n of :func:`.block_steps.finish_vjp`."""
    if net.residual == "linear":
        log_a = np.log(mixed[1])
        return (mixed[1] * (sums[2] + sums[4]) * (1 - (log_a / SLOPE_LIMIT) ** 2)).astype(dtype)
    if net.residual != "gated":
        return None
    # sigmoid(g) rises by sigmoid(g) sigmoid(-g), and so falls sigmoid(-g)
    rise = mixed[0] * mixed[1]
    each = rise * (sums[1] - sums[2] + sums[3] - sums[4])
    return np.sum(each, keepdims=True).astype(dtype)
