"""The NAF authors' algebra in torch, from their equations 8 and 9: log-space Jacobians as matrices, and clipping.

A layer of a DDSF has a Jacobian of (N, D, out, in) logarithms, each a logsumexp over the d units in between: tensors of
(N, D, d, d, d). The chain of layers is a product of these matrices in log-space. delta = 1e-6 goes where they put it.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

from cases import Inputs
from lean import OFFSET
from timing import Candidate

from refnaf.reference.ddsf import pairs, split

torch, F = (importlib.import_module(name) for name in ("torch", "torch.nn.functional"))

NAME = "authors' algebra in torch"
DELTA = 1e-6


def _softplus(x: Any) -> Any:
    return F.softplus(x) + DELTA


def _log_sigmoid(x: Any) -> Any:
    return -_softplus(-x)


def _clipped_logit(s: Any) -> tuple[Any, Any]:
    """The logit of a clipped probability, and the logarithm of its derivative."""
    inside = s * (1 - DELTA) + 0.5 * DELTA
    log_inside, log_rest = torch.log(inside), torch.log(1 - inside)
    return log_inside - log_rest, math.log(1 - DELTA) - log_inside - log_rest


def dsf(x: Any, theta: Any) -> tuple[Any, Any]:
    """x ``(N, D)``, theta ``(N, D, 3 d)`` to y and log dy/dx ``(N, D)``."""
    a, b, w = theta.chunk(3, -1)
    a = _softplus(a + OFFSET)
    p = a * x[..., None] + b
    y, link = _clipped_logit((torch.softmax(w, -1) * torch.sigmoid(p)).sum(-1))
    inner = torch.log_softmax(w, -1) + _log_sigmoid(p) + _log_sigmoid(-p) + torch.log(a)
    return y, torch.logsumexp(inner, -1) + link


def _layer(h: Any, a: Any, b: Any, log_w: Any, log_u: Any) -> tuple[Any, Any]:
    """h ``(N, D, in)`` to the next ``(N, D, out)`` and the log-Jacobian ``(N, D, out, in)``."""
    p = a * (torch.exp(log_u) * h[..., None, :]).sum(-1) + b
    y, link = _clipped_logit((torch.exp(log_w) * torch.sigmoid(p)[..., None, :]).sum(-1))
    outer = log_w + (_log_sigmoid(p) + _log_sigmoid(-p) + torch.log(a))[..., None, :]
    jacobian = torch.logsumexp(outer[..., :, :, None] + log_u[..., None, :, :], -2)
    return y, jacobian + link[..., None]


def ddsf(x: Any, theta: Any, *matrices: Any) -> tuple[Any, Any]:
    """x ``(N, D)``, theta ``(N, D, P)`` to y and log dy/dx ``(N, D)``."""
    layers = pairs(matrices)
    parts = split(theta.movedim(-1, 0), layers[0][1].shape[1], len(layers))
    h, chain = x[..., None], None
    for (a, b, w, u), (shared_u, shared_w) in zip(parts, layers, strict=True):
        a, b, w = (part.movedim(0, -1) for part in (a, b, w))
        if u is None:
            log_u = torch.zeros_like(a)[..., None]
        else:
            log_u = torch.log_softmax(shared_u + u.movedim(0, -1)[..., None, :], -1)
        h, jacobian = _layer(h, _softplus(a + OFFSET), b, torch.log_softmax(shared_w + w[..., None, :], -1), log_u)
        if chain is None:
            chain = jacobian
        else:
            chain = torch.logsumexp(jacobian[..., :, :, None] + chain[..., None, :, :], -2)
    assert chain is not None
    return h[..., 0], chain[..., 0, 0]


TRANSFORMERS = {"dsf": dsf, "ddsf": ddsf}


def clipping(inputs: Inputs) -> Inputs:
    """The same inputs for a transformer that clips as the authors do, for the comparison with the reference."""
    return dataclasses.replace(inputs, options={**inputs.options, "clip": DELTA})


def kernel(inputs: Inputs, backward: bool) -> Candidate:
    """As lean_torch.kernel; sample-major inside, transposed before the clock runs."""
    function = TRANSFORMERS[inputs.name]
    arrays = inputs.x.T, inputs.theta.transpose(2, 0, 1), *inputs.shared
    x, theta, *shared = (torch.tensor(a).contiguous().requires_grad_(backward) for a in arrays)
    cotangents = torch.tensor(inputs.grad_y.T), torch.tensor(inputs.grad_log_slope.T)

    def run() -> list[Any]:
        if not backward:
            with torch.no_grad():
                return [a.T for a in function(x, theta, *shared)]
        y, log_slope = function(x, theta, *shared)
        grad_x, grad_theta, *grads = torch.autograd.grad((y, log_slope), (x, theta, *shared), cotangents)
        return [y.T, log_slope.T, grad_x.T, grad_theta.permute(1, 2, 0), *grads]

    return Candidate(NAME, run)
