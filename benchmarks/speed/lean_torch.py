"""The lean algebra in torch: run eagerly and by torch.compile, with torch's own gradients and its fused Adam."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lean
import numpy as np
from cases import Inputs, Network
from timing import Candidate

torch, F = (importlib.import_module(name) for name in ("torch", "torch.nn.functional"))


def _two_sigmoids(p: Any) -> tuple[Any, Any]:
    return torch.sigmoid(p), torch.sigmoid(-p)


def _one_exponential(p: Any) -> tuple[Any, Any]:
    e = torch.exp(-p)
    plus = 1 / (1 + e)
    return plus, e * plus


def _library(sigmoid_pair: Callable[[Any], tuple[Any, Any]]) -> lean.Library:
    return lean.Library(
        exp=torch.exp,
        log=torch.log,
        tanh=torch.tanh,
        abs=torch.abs,
        softplus=F.softplus,
        sigmoid_pair=sigmoid_pair,
        elu=F.elu,
        ndtr=torch.special.ndtr,
        ndtri=torch.special.ndtri,
        where=torch.where,
        sum=functools.partial(torch.sum, dim=1),
        top=lambda x: torch.amax(x, dim=1, keepdim=True),
        softmax=functools.partial(torch.softmax, dim=1),
        mix=lambda e, parts: [torch.einsum("od,kdn->kon", e, part) for part in parts],
        linear=lambda weight, bias, h: torch.addmm(bias[:, None], weight, h),
        reverse=lambda x: torch.flip(x, (0,)),
    )


EAGER, COMPILED = "torch eager", "torch.compile"


@functools.cache
def library(peer: str, backward: bool) -> lean.Library:
    """torch's functions. One exponential for both sigmoids is quicker only compiled and without gradients."""
    return _library(_one_exponential if peer == COMPILED and not backward else _two_sigmoids)


def settle(threads: int) -> None:
    """Threads, and no silent fall-back from compiled code to eager."""
    torch.set_num_threads(threads)
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    warnings.filterwarnings("ignore", module="torch")


def _compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
    return torch.compile(function, dynamic=dynamic, fullgraph=True)


def forget() -> None:
    """Drop all compiled code."""
    torch._dynamo.reset()


def kernel(peer: str, inputs: Inputs, backward: bool, dynamic: bool = False) -> Candidate:
    """A transformer on given inputs: what it returns is y and log dy/dx, with ``backward`` and the gradients."""
    function: Callable[..., Any] = functools.partial(lean.TRANSFORMERS[inputs.name], library(peer, backward))
    if peer == COMPILED:
        function = _compiled(function, dynamic)
    arrays = inputs.x, inputs.theta, *inputs.shared
    x, theta, *shared = (torch.tensor(array, requires_grad=backward) for array in arrays)
    fresh = theta.detach().clone()
    cotangents = (torch.tensor(inputs.grad_y), torch.tensor(inputs.grad_log_slope))

    def prepare() -> None:
        with torch.no_grad():
            theta.copy_(fresh)

    def run() -> list[Any]:
        if not backward:
            with torch.no_grad():
                return list(function(x, theta, *shared))
        out = function(x, theta, *shared)
        return [*out, *torch.autograd.grad(out, (x, theta, *shared), cotangents)]

    return Candidate(peer, run, prepare)


class Flow:
    """A flow's numbers as torch parameters, its density, and steps of Adam."""

    def __init__(self, peer: str, network: Network, backward: bool) -> None:
        self.lib = library(peer, backward)
        self.layers = [[torch.tensor(a, requires_grad=True) for a in numbers] for numbers in network.layers]
        self.parameters = [a for numbers in self.layers for a in numbers]
        self.masks = [torch.tensor(mask) for mask in network.masks]
        self.masked = [numbers[2 * k] for numbers in self.layers for k in range(network.weights)]
        # the layers have the same shapes: one compiled function serves them all
        layer = functools.partial(_layer, self.lib, network.name, network.weights, network.bound)
        self.layer = _compiled(layer, False) if peer == COMPILED else layer
        self.optimiser = torch.optim.Adam(self.parameters, lr=1e-4, fused=True)

    def log_prob(self, x: Any) -> Any:
        return lean.log_prob(self.layer, self.lib, x, self.layers)

    def loss_and_gradient(self, x: Any) -> Any:
        """The mean of ``-log p``, its gradient kept in the parameters."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = -self.log_prob(x).mean()
        loss.backward()
        torch._foreach_mul_([weight.grad for weight in self.masked], self.masks)
        return loss

    def gradient(self) -> np.ndarray:
        return np.concatenate([a.grad.numpy().ravel() for a in self.parameters])


def _layer(lib: Any, name: str, weights: int, bound: float, x: Any, numbers: Sequence[Any]) -> tuple[Any, Any]:
    return lean.flow_layer(lib, name, x, numbers, weights, bound)


def training(peer: str, network: Network, rows: np.ndarray) -> Candidate:
    """A training step on rows ``(N, D)``: gradient and Adam."""
    flow, x = Flow(peer, network, True), torch.tensor(np.ascontiguousarray(rows.T))

    def run() -> list[Any]:
        loss = flow.loss_and_gradient(x)
        flow.optimiser.step()
        return [loss]

    return Candidate(f"{peer} + Adam", run)


def scoring(peer: str, network: Network, rows: np.ndarray, chunk: int) -> Candidate:
    """Densities of rows ``(N, D)``, by chunks."""
    flow = Flow(peer, network, False)
    chunks = [torch.tensor(np.ascontiguousarray(part.T)) for part in np.split(rows, len(rows) // chunk)]

    def run() -> list[Any]:
        with torch.no_grad():
            return [torch.cat([flow.log_prob(x) for x in chunks])]

    return Candidate(peer, run)


def step_values(peer: str, network: Network, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient, for the comparison with the reference."""
    flow = Flow(peer, network, True)
    loss = flow.loss_and_gradient(torch.tensor(np.ascontiguousarray(rows.T)))
    return loss.item(), flow.gradient()
