"""torchkit's formulas in plain NumPy, with every quirk, as another implementation to hold the importer against.

Names and shapes are those of its states; masks are drawn here by the same rule.
"""

from __future__ import annotations

import numpy as np

DELTA = 1e-6


def softplus(x):
    return np.logaddexp(0, x) + DELTA


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def clipped_logit(m):
    m = m * (1 - DELTA) + DELTA / 2
    return np.log(m) - np.log(1 - m), np.log(m) + np.log(1 - m)


def log_softmax(x, axis):
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def made_state(rng, dim, hidden, context, channels, fixed_order):
    """A cMADE's state, its degrees and order drawn at random."""
    ranks = np.arange(dim) if fixed_order else rng.permutation(dim)
    degrees = [ranks, *(rng.integers(0, max(dim - 1, 1), size=h) for h in hidden)]
    state = {}
    for k in range(len(hidden) + 1):
        last = k == len(hidden)
        above = np.repeat(ranks - 1, channels) if last else degrees[k + 1]
        mask = (above[:, None] >= degrees[k][None, :]) & (dim > 1)
        name = "mdl.hidden_to_output" if last else f"mdl.input_to_hidden.{2 * k}"
        state |= {
            f"{name}.direction": rng.normal(size=mask.shape),
            f"{name}.mask": mask.astype(np.float32),
            f"{name}.cscale.weight": 0.3 * rng.normal(size=(len(mask), context)),
            f"{name}.cscale.bias": 1 + 0.1 * rng.normal(size=len(mask)),
            f"{name}.cbias.weight": 0.3 * rng.normal(size=(len(mask), context)),
            f"{name}.cbias.bias": 0.3 * rng.normal(size=len(mask)),
        }
    return state


def made(state, x, c):
    """x ``(N, D)`` and c ``(N, C)`` to ``(N, D, channels)``."""
    inner = sum(name.endswith(".mask") for name in state) - 1
    h = x
    for name in [*(f"mdl.input_to_hidden.{2 * k}" for k in range(inner)), "mdl.hidden_to_output"]:
        weight = state[f"{name}.direction"]
        if name == "mdl.hidden_to_output":
            weight = weight / np.sqrt((weight**2).sum(1))[:, None]
        scale = c @ state[f"{name}.cscale.weight"].T + state[f"{name}.cscale.bias"]
        shift = c @ state[f"{name}.cbias.weight"].T + state[f"{name}.cbias.bias"]
        h = scale * (h @ (weight * state[f"{name}.mask"]).T) + shift
        if name != "mdl.hidden_to_output":
            h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
    return h.reshape(len(x), x.shape[1], -1)


def iaf(state, x, c, realify):
    out = made(state, x, c)
    mean, raw = out[:, :, 0], out[:, :, 1]
    if realify == "softplus":
        std = softplus(raw)
        return mean + std * x, np.log(std).sum(1)
    std = sigmoid(raw) * (1 - DELTA) + DELTA / 2
    return (1 - std) * mean + std * x, np.log(std).sum(1)


def pseudo(state, x, c):
    return made(state, x, c) @ state["out_to_dsparams.weight"][:, :, 0].T + state["out_to_dsparams.bias"]


def iaf_dsf(state, x, c):
    raw_a, b, raw_w = np.split(pseudo(state, x, c), 3, axis=2)
    a = softplus(raw_a)
    p = a * x[:, :, None] + b
    y, both = clipped_logit((np.exp(log_softmax(raw_w, 2)) * sigmoid(p)).sum(2))
    terms = log_softmax(raw_w, 2) - softplus(-p) - softplus(p) + np.log(a)
    return y, (np.log(np.exp(terms).sum(2)) + np.log(1 - DELTA) - both).sum(1)


def iaf_ddsf(state, x, c):
    raw, h, start = pseudo(state, x, c), x[:, :, None], 0
    jacobian = np.ones((*x.shape, 1, 1))
    for k in range(sum(name.endswith(".w_") for name in state)):
        shared_u, shared_w = state[f"sf{k}.u_"], state[f"sf{k}.w_"]
        units, inputs = shared_u.shape
        part = raw[:, :, start : start + 3 * units + inputs]
        start += 3 * units + inputs
        a = softplus(part[..., :units] + np.log(np.exp(1 - DELTA) - 1))
        b = part[..., units : 2 * units]
        w = np.exp(log_softmax(shared_w + part[..., None, 2 * units : 3 * units], 3))
        u = np.exp(log_softmax(shared_u + part[..., None, 3 * units :], 3))
        p = a * (u @ h[..., None])[..., 0] + b
        h, both = clipped_logit((w @ sigmoid(p)[..., None])[..., 0])
        slope = np.exp(-softplus(-p) - softplus(p)) * a
        jacobian = (w * slope[..., None, :]) @ u @ jacobian * (1 - DELTA) / np.exp(both)[..., None]
    return h[..., 0], np.log(jacobian[..., 0, 0]).sum(1)


def linear_state(rng, dim, context):
    state = {}
    for net in ("mean", "lstd"):
        for part, inputs in (("dot_0h", context), ("dot_h1", dim), ("dot_01", context)):
            state[f"{net}.{part}.direction"] = rng.normal(size=(dim, inputs))
            state[f"{net}.{part}.scale"] = rng.normal(size=dim)
            state[f"{net}.{part}.bias"] = rng.normal(size=dim)
    return state


def linear_flow(state, x, c):
    def dot(name, value):
        direction = state[f"{name}.direction"]
        weight = state[f"{name}.scale"][:, None] * direction / np.sqrt((direction**2).sum(1))[:, None]
        return value @ weight.T + state[f"{name}.bias"]

    def net(name):
        return dot(f"{name}.dot_h1", np.maximum(dot(f"{name}.dot_0h", c), 0)) + dot(f"{name}.dot_01", c)

    std = softplus(net("lstd"))
    return net("mean") + std * x, np.log(std).sum(1)
