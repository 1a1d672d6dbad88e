"""A flow as steps that can be exchanged one by one, and what it then gives, in float64 and by the reference.

This is what mistakes are planted into: the hypothesis "the permutation is missing" is the same list of steps with the
identity in the permutation's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnaf.flows import Flow, chain
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.inverse import Inverse
from refnaf.flows.layer import Layer
from refnaf.flows.registry import layer_from_config, layer_to_config
from refnaf.ops import ReferenceOps

#: Arrays by the names of the golden vectors, rows first.
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """A layer, its parameters by local name, and the operations that run it."""

    layer: Layer
    params: Mapping[str, Any]
    ops: ReferenceOps

    @property
    def network(self) -> Autoregressive | None:
        """The layer with a conditioner, where this is one, or one run backwards."""
        layer = self.layer.layer if isinstance(self.layer, Inverse) else self.layer
        return layer if isinstance(layer, Autoregressive) else None

    def configured(self, **changes: Any) -> Step:
        """The same step with other options of its (inner) layer."""
        config = layer_to_config(self.layer)
        inner = config["layer"] if isinstance(self.layer, Inverse) else config
        inner.update(changes)
        layer = layer_from_config(config, self.layer.dim, self.layer.context_dim)
        layer.buffers = dict(self.layer.buffers)
        return Step(layer, self.params, self.ops)


@dataclass(frozen=True)
class Inputs:
    """Rows that a flow is run on: x ``(N, D)``, and base points z ``(M, D)`` for its inverse, each with its context."""

    x: np.ndarray
    context: np.ndarray | None = None
    z: np.ndarray | None = None
    z_context: np.ndarray | None = None


def steps_of(flow: Flow) -> list[Step]:
    """The steps of a flow in float64, data first."""
    ops = ReferenceOps()
    flow = flow.astype(np.float64)
    return [Step(layer, own, ops) for layer, own in zip(flow.layers, flow.layer_params(), strict=True)]


def _standard(steps: Sequence[Step], context: np.ndarray | None) -> Any:
    first: Any = steps[0].layer
    return None if context is None else first.context(context.T)


class Run(Mapping[str, np.ndarray]):
    """The outputs of steps by the names of the golden vectors, computed as far as they are asked for.

    From data to base layers/{k}/theta, y and logdet, z, logdet and log_prob; from base to data inverse/x and
    inverse/logdet. Nothing is warned of: a mistaken flow may overflow where the right one does not. The first ``same``
    steps are those of ``right``, whose outputs are taken over.
    """

    def __init__(self, steps: Sequence[Step], inputs: Inputs, right: Outputs | None = None, same: int = 0) -> None:
        self._steps, self._inputs = steps, inputs
        self._right, self._same = right or {}, same
        self._found: dict[str, np.ndarray] = {}
        self._forward, self._inverse = self._to_base(), self._to_data()

    def _standard(self, context: np.ndarray | None) -> Any:
        first: Any = self._steps[0].layer
        return None if context is None else first.context(context.T)

    def _to_base(self) -> Iterator[dict[str, np.ndarray]]:
        y, total = self._inputs.x.T, np.zeros(len(self._inputs.x))
        c = self._standard(self._inputs.context)
        for k, step in enumerate(self._steps):
            if k < self._same:
                taken = {name: a for name, a in self._right.items() if name.startswith(f"layers/{k}/")}
                yield taken
                y, total = taken[f"layers/{k}/y"].T, total + taken[f"layers/{k}/logdet"]
                continue
            below = y
            y, logdet, _ = step.layer.forward(step.ops, step.params, below, c)
            yield {f"layers/{k}/y": np.transpose(y), f"layers/{k}/logdet": logdet}
            if step.network is not None:
                read = y if isinstance(step.layer, Inverse) else below
                theta = step.network.pseudo_parameters(step.ops, step.params, read, c)[0]
                yield {f"layers/{k}/theta": np.transpose(theta, (2, 0, 1))}
            total = total + logdet
        yield {"z": np.transpose(y), "logdet": total, "log_prob": chain.base_log_prob(y) + total}

    def _to_data(self) -> Iterator[dict[str, np.ndarray]]:
        if self._inputs.z is not None:
            x, total = self._inputs.z.T, np.zeros(len(self._inputs.z))
            c = self._standard(self._inputs.z_context)
            for step in reversed(self._steps):
                x, logdet, _ = step.layer.inverse(step.ops, step.params, x, c)
                total = total + logdet
            yield {"inverse/x": np.transpose(x), "inverse/logdet": total}

    def __getitem__(self, name: str) -> np.ndarray:
        direction = self._inverse if name.startswith("inverse/") else self._forward
        while name not in self._found:
            with np.errstate(all="ignore"):
                more = next(direction, None)
            if more is None:
                raise KeyError(name)
            self._found |= more
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        for direction in (self._forward, self._inverse):
            with np.errstate(all="ignore"):
                for more in direction:
                    self._found |= more
        return iter(self._found)

    def __len__(self) -> int:
        return len(list(iter(self)))


def summed(outputs: Outputs, logdets: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs with other log-determinants for the numbered layers, and the sums that follow from them."""
    change: Any = sum(new - outputs[f"layers/{k}/logdet"] for k, new in logdets.items())
    layers = {f"layers/{k}/logdet": new for k, new in logdets.items()}
    sums = {name: outputs[name] + change for name in ("logdet", "log_prob")}
    return {**outputs, **layers, **sums}
