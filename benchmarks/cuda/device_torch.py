"""The lean algebra in torch on the card: a flow run eagerly, by torch.compile, and by it with CUDA graphs.

The layers are modules of one class, and each is compiled by itself: the code of one serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lean
import lean_torch
import numpy as np
from cases import Network
from lean_torch import COMPILED, EAGER, torch
from timing import Candidate

from refnaf.kernels.cuda.compiler import SIMULATED

GRAPHS = 'torch.compile, mode="reduce-overhead"'
PEERS = (EAGER, COMPILED, GRAPHS)


def settle() -> None:
    """Everything on the card, float32 products in float32, and no silent fall-back from compiled code to eager."""
    lean_torch.settle(1 if SIMULATED else torch.get_num_threads())
    torch.set_default_device("cpu" if SIMULATED else "cuda")
    torch.set_float32_matmul_precision("highest")


def wait() -> None:
    """Until the card has done what it was asked for."""
    if not SIMULATED:
        torch.cuda.synchronize()


def release() -> None:
    """Drop compiled code, and give memory back to the card."""
    lean_torch.forget()
    if not SIMULATED:
        torch.cuda.empty_cache()


class Layer(torch.nn.Module):  # type: ignore[misc, name-defined]
    """An autoregressive layer with its numbers as parameters."""

    def __init__(self, lib: lean.Library, network: Network, numbers: list[np.ndarray]) -> None:
        super().__init__()
        self.lib, self.name, self.weights, self.bound = lib, network.name, network.weights, network.bound
        self.numbers = torch.nn.ParameterList(torch.tensor(a) for a in numbers)

    def forward(self, x: Any) -> tuple[Any, Any]:
        return lean.flow_layer(self.lib, self.name, x, list(self.numbers), self.weights, self.bound)


class Flow:
    """A flow's density, and steps of Adam, by one of :data:`PEERS`."""

    def __init__(self, peer: str, network: Network, backward: bool) -> None:
        self.lib = lean_torch.library(EAGER if peer == EAGER else COMPILED, backward)
        layers = [Layer(self.lib, network, numbers) for numbers in network.layers]
        self.parameters = [parameter for layer in layers for parameter in layer.numbers]
        self.masks = [torch.tensor(mask) for mask in network.masks]
        self.masked = [layer.numbers[2 * k] for layer in layers for k in range(network.weights)]
        options = {"mode": "reduce-overhead"} if peer == GRAPHS else {}
        self.layers: list[Any] = [layer if peer == EAGER else _compiled(layer, options) for layer in layers]
        self.optimiser = torch.optim.Adam(self.parameters, lr=1e-4, fused=True)

    def log_prob(self, x: Any) -> Any:
        """Of the columns of x ``(D, N)``."""
        return lean.log_prob(_call, self.lib, x, self.layers)

    def loss_and_gradient(self, x: Any) -> Any:
        """The mean of ``-log p``, its gradient kept in the parameters."""
        self.optimiser.zero_grad(set_to_none=True)
        torch.compiler.cudagraph_mark_step_begin()
        loss = -self.log_prob(x).mean()
        loss.backward()
        torch._foreach_mul_([weight.grad for weight in self.masked], self.masks)
        return loss

    def step(self, x: Any) -> None:
        self.loss_and_gradient(x)
        self.optimiser.step()


def _compiled(layer: Any, options: dict[str, str]) -> Callable[..., Any]:
    return torch.compile(layer, dynamic=False, fullgraph=True, **options)


def _call(x: Any, layer: Callable[..., Any]) -> Any:
    return layer(x)


def training(peer: str, network: Network, rows: np.ndarray, steps: int) -> tuple[Candidate, list[np.ndarray]]:
    """So many training steps on rows ``(N, D)``; loss and gradient before the first."""
    flow, x = Flow(peer, network, True), torch.tensor(np.ascontiguousarray(rows.T))
    loss = flow.loss_and_gradient(x)
    gradient = np.concatenate([a.grad.cpu().numpy().ravel() for a in flow.parameters])
    values = [np.array([loss.item()]), gradient]
    del loss

    def run() -> list[Any]:
        for _ in range(steps):
            flow.step(x)
        wait()
        return []

    return Candidate(peer, run), values


def scoring(peer: str, network: Network, rows: np.ndarray, chunk: int) -> tuple[Candidate, list[np.ndarray]]:
    """Densities of rows ``(N, D)`` of the host, by chunks of a size that divides them; and what they are."""
    flow = Flow(peer, network, False)
    chunks = np.split(rows, len(rows) // chunk)

    def run() -> list[Any]:
        found = []
        with torch.no_grad():
            for part in chunks:
                torch.compiler.cudagraph_mark_step_begin()
                found.append(flow.log_prob(torch.tensor(part).T.contiguous()))
            return [torch.cat(found).cpu().numpy()]

    return Candidate(peer, run), run()
