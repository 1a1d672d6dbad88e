"""Golden vectors of small flows, in memory."""

import autograd.numpy as anp
import numpy as np
from autograd import grad

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.inverse import Inverse
from refnaf.ops import ArrayOps
from tests.cases import Case, make


def small(model, dim, context_dim=0, seed=1, **options):
    """A float64 flow away from the identity."""
    sizes = {
        option: value for name, option, value in (("sf", "units", 5), ("mog", "components", 4)) if model.endswith(name)
    }
    if model not in ("gaussian", "planar"):
        sizes = {"flows": 2, "hidden": (9, 7), **sizes}
    return make(Case(model, dim, context_dim, tuple({**sizes, **options}.items())), seed=seed)


def vectors(flow, n=40, seed=2, tails=6, gradients=True):
    """Tensors and header of the layout; the last ``tails`` rows are far out."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.normal(size=(n, flow.dim))
    x[n - tails :] *= 1e4
    context = rng.normal(size=(n, flow.context_dim)) if flow.context_dim else None
    kind = (np.arange(n) >= n - tails).astype(np.int64)
    tensors = {"inputs/x": x, "inputs/kind": kind}
    if context is not None:
        tensors["inputs/context"] = context
    z, logdet = flow.forward(x, context)
    tensors |= {"outputs/z": z, "outputs/logdet": logdet, "outputs/log_prob": flow.log_prob(x, context)}
    c = None if context is None else flow.standard_context(context.T)
    y = x.T
    for k, (layer, params) in enumerate(zip(flow.layers, flow.layer_params(), strict=True)):
        below = y
        y, part, _ = layer.forward(ArrayOps(), params, below, c)
        tensors |= {f"layers/{k}/y": y.T, f"layers/{k}/logdet": part}
        inner, at = (layer.layer, y) if isinstance(layer, Inverse) else (layer, below)
        if isinstance(inner, Autoregressive):
            theta = inner.pseudo_parameters(ArrayOps(), params, at, c)[0]
            tensors[f"layers/{k}/theta"] = theta.transpose(2, 0, 1)
    base = rng.normal(size=(11, flow.dim))
    back, back_logdet = flow.inverse(base, None if context is None else context[:11])
    tensors |= {"inverse/z": base, "inverse/x": back, "inverse/logdet": back_logdet}

    tensors |= {f"params/{name}": a for name, a in flow.params.items()}
    tensors |= {f"buffers/{name}": a for name, a in flow.buffers.items()}
    if gradients:
        tensors |= _gradients(flow, x, context, kind)
    return {name: np.array(a) for name, a in tensors.items()}, {"kind": "vectors", "config": flow.config}


def _gradients(flow, x, context, kind):
    def objective(x, params):
        z, logdet = flow.forward(x, None if context is None else context[kind == 0], params)
        return 0.7 * anp.sum(z) + 1.3 * anp.sum(logdet)

    on_x = np.zeros_like(x)
    on_x[kind == 0] = grad(objective, 0)(x[kind == 0], dict(flow.params))
    on_params = grad(objective, 1)(x[kind == 0], dict(flow.params))
    return {"grads/x": on_x, **{f"grads/params/{name}": a for name, a in on_params.items()}}


def outputs_of(tensors, dtype="float64"):
    """What a right implementation gives back."""
    given = ("inputs/", "params/", "buffers/", "inverse/z")
    return {n.removeprefix("outputs/"): a.astype(dtype) for n, a in tensors.items() if not n.startswith(given)}
