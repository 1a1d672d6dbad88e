"""Sampling of one affine MAF: the flows of zuko and nflows, the same numbers read into refnaf, and naive passes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ours
from timing import Candidate, Row, agree, interleaved, row

from refnaf import interop
from refnaf import ops as operations
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.flow import Flow

torch = importlib.import_module("torch")

DIM, HIDDEN, DRAWN = 43, 512, 1024
#: Root mean square of the difference in nats, of float32 numbers, over that of the nats.
TOLERANCE = 1e-4


def _zuko(hidden: int) -> Any:
    flow = importlib.import_module("zuko").flows.MAF(DIM, transforms=1, hidden_features=(hidden, hidden))
    return flow, lambda: flow().sample((DRAWN,)), lambda x: flow().log_prob(x), interop.from_zuko


def _nflows(hidden: int) -> Any:
    flows, transforms = importlib.import_module("nflows.flows"), importlib.import_module("nflows.transforms")
    normal = importlib.import_module("nflows.distributions").StandardNormal([DIM])
    layer = transforms.MaskedAffineAutoregressiveTransform(
        DIM, hidden_features=hidden, num_blocks=2, use_residual_blocks=False
    )
    flow = flows.Flow(layer, normal).eval()
    return flow, lambda: flow.sample(DRAWN), flow.log_prob, interop.from_nflows


PEERS: dict[str, Callable[[int], Any]] = {"zuko": _zuko, "nflows": _nflows}


def naive(flow: Flow, z: np.ndarray) -> np.ndarray:
    """The inverse of a flow of one autoregressive layer by a whole pass of the network for each dimension."""
    ops, params = operations.make(flow.backend), flow.layer_params()
    ((place, layer),) = ((k, layer) for k, layer in enumerate(flow.layers) if isinstance(layer, Autoregressive))
    y = np.ascontiguousarray(z.T, dtype=flow.dtype)
    x = np.zeros_like(y)
    for i in np.argsort(layer.ranks):
        ops.workspace.reset()  # type: ignore[union-attr]
        theta, _ = layer.pseudo_parameters(ops, params[place], x, None)
        x[i], _, _ = ops.invert(layer.transformer.name, y[i], theta[i], [], layer.transformer.options)
    return x.T


def measure(backend: str, threads: int, seconds: float, quick: bool) -> Iterator[Row]:
    """A row for each library."""
    torch.manual_seed(0)
    hidden = 64 if quick else HIDDEN
    for name, make in PEERS.items():
        peer, sample, log_prob, read = make(hidden)
        flow = read(peer.state_dict(), dtype="float32").replace({}, backend=backend)

        def drawn(sample: Any = sample) -> list[Any]:
            with torch.no_grad():
                return [sample()]

        x = flow.sample(DRAWN)
        with torch.no_grad():
            theirs = log_prob(torch.tensor(x, dtype=torch.float32)).numpy()
        agree(f"densities of the flow of {name}", [flow.log_prob(x)], [theirs], TOLERANCE)
        z = np.random.default_rng(0).normal(size=(DRAWN, DIM))
        agree("naive passes", [naive(flow, z)], [flow.inverse(z)[0]], TOLERANCE)
        found = [
            Candidate(ours.NAME, lambda flow=flow: [flow.sample(DRAWN)]),  # type: ignore[misc]
            Candidate(name, drawn),
            Candidate("naive D passes", lambda flow=flow, z=z: [naive(flow, z)]),  # type: ignore[misc]
        ]
        yield row(
            interleaved(found, seconds),
            section="sampling",
            work=f"sampling, 1 affine MAF of {name}",
            dim=DIM,
            rows=DRAWN,
            hidden=hidden,
            dtype="float32",
            threads=threads,
            count=DRAWN,
        )
