"""Autoregressive layers: a masked network as the conditioner of a transformer (:mod:`refnaf.flows.conditioned`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf.flows.conditioned import LAST_SCALE, Conditioned, Stepwise
from refnaf.flows.incremental import Incremental
from refnaf.flows.layer import Params
from refnaf.kernels.array.staircase import Staircase
from refnaf.ops import Ops
from refnaf.reference import made
from refnaf.reference._numpy import np as traced_np
from refnaf.reference._numpy import value


class Network(NamedTuple):
    """The numbers of a masked network, a list each."""

    weights: list[Any]
    biases: list[Any]
    context_weights: list[Any]
    gains: list[tuple[Any, Any]]


class Autoregressive(Conditioned):
    """A MADE conditioner and a transformer, reading x (MAF's direction).

    ``hidden``: widths of the hidden layers; ``order``: see :func:`refnaf.reference.made.input_ranks` (ranks);
    ``channels``: None for pseudo-parameters straight from the network, or C for the authors' narrow form, C channels a
    dimension and one linear map shared by the dimensions; ``bound``: the network reads ``x / (1 + |x| / bound)``, or x
    itself where it is None; ``degrees``: those of the hidden units, sorted within each layer, or None for evenly spread
    ones; ``gains``: whether the context also scales every unit, as in the cMADE of Huang et al. 2018; ``skips`` and
    ``linear``: for a residual network, see :func:`refnaf.reference.made.network`.
    """

    kind = "autoregressive"

    def __init__(
        self,
        dim: int,
        context_dim: int = 0,
        *,
        transformer_config: dict[str, Any],
        hidden: Sequence[int] = (64, 64),
        activation: str = "elu",
        order: str | Sequence[int] = "natural",
        channels: int | None = None,
        bound: float | None = 10.0,
        degrees: Sequence[Sequence[int]] | None = None,
        gains: bool = False,
        skips: Sequence[Sequence[int]] = (),
        linear: Sequence[int] = (),
    ) -> None:
        super().__init__(dim, context_dim, transformer_config)
        hidden = [int(h) for h in hidden]
        if any(h < 1 for h in hidden):
            raise ValueError(f"hidden widths must be positive, got {hidden}")
        if activation not in made.ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(made.ACTIVATIONS)}, not {activation!r}")
        self.hidden, self.activation, self.channels, self.bound = hidden, activation, channels, bound
        self.ranks = made.input_ranks(dim, order)
        self.degrees = made.degrees(dim, hidden, context_dim > 0)
        self.given_degrees = degrees is not None
        if degrees is not None:
            self.degrees = [made.checked_degrees(d, dim, width) for d, width in zip(degrees, hidden, strict=True)]
        if gains and not context_dim:
            raise ValueError("gains are functions of the context: this layer has none")
        self.gains = gains
        self.skips = made.checked_skips(skips, self.degrees, linear)
        self.linear = tuple(int(k) for k in linear)
        self.outputs = self.transformer.count if channels is None else channels
        # a byte each: of a wide network these are as many as its weights
        self.layer_masks = [mask != 0 for mask in made.masks(self.ranks, self.degrees, self.outputs)]
        self._stairs_of: dict[Any, list[Staircase]] = {}

    def config(self) -> dict[str, Any]:
        special: dict[str, Any] = {"degrees": [d.tolist() for d in self.degrees]} if self.given_degrees else {}
        if self.gains:
            special["gains"] = True
        if self.skips:
            special["skips"] = [list(pair) for pair in self.skips]
        if self.linear:
            special["linear"] = list(self.linear)
        return {
            **special,
            "transformer_config": self.transformer.config(),
            "hidden": self.hidden,
            "activation": self.activation,
            "order": self.ranks.tolist(),
            "channels": self.channels,
            "bound": self.bound,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {}
        for k, mask in enumerate(self.layer_masks):
            out[f"weight.{k}"] = mask.shape
            out[f"bias.{k}"] = (mask.shape[0],)
            if self.context_dim:
                out[f"context.{k}"] = (mask.shape[0], self.context_dim)
            if self.gains:
                out[f"gain.{k}"] = (mask.shape[0], self.context_dim)
                out[f"gain_bias.{k}"] = (mask.shape[0],)
        if self.channels is not None:
            out["spread.weight"] = (self.transformer.count, self.channels)
            out["spread.bias"] = (self.transformer.count,)
        return out | self.shared_shapes()

    def masks(self) -> dict[str, np.ndarray]:
        return {f"weight.{k}": mask for k, mask in enumerate(self.layer_masks)}

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        last = len(self.layer_masks) - 1
        for k, mask in enumerate(self.layer_masks):
            fan_in = np.maximum(mask.sum(axis=1, keepdims=True) + self.context_dim, 1)
            scale = 1 / np.sqrt(fan_in) * (LAST_SCALE if k == last and self.channels is None else 1)
            out[f"weight.{k}"] = rng.normal(size=mask.shape) * scale * mask
            out[f"bias.{k}"] = np.zeros(mask.shape[0])
            if self.context_dim:
                out[f"context.{k}"] = rng.normal(size=(mask.shape[0], self.context_dim)) * scale
            if self.gains:
                out[f"gain.{k}"] = np.zeros((mask.shape[0], self.context_dim))
                out[f"gain_bias.{k}"] = np.ones(mask.shape[0])
        if self.channels is None:
            out[f"bias.{last}"] = self.transformer.initial(self.dim, rng).reshape(-1)
        else:
            # biases differ between dimensions, so that they need not start alike
            out[f"bias.{last}"] = rng.normal(scale=0.1, size=self.dim * self.channels)
            size = (self.transformer.count, self.channels)
            out["spread.weight"] = rng.normal(size=size) * LAST_SCALE / np.sqrt(self.channels)
            out["spread.bias"] = self.transformer.initial(1, rng)[0]
        out |= self.initial_shared(rng)
        return {name: out[name] for name in self.shapes()}

    def network(self, params: Params) -> Network:
        """The conditioner's own parameters."""
        layers = range(len(self.layer_masks))
        return Network(
            [params[f"weight.{k}"] for k in layers],
            [params[f"bias.{k}"] for k in layers],
            [params[f"context.{k}"] for k in layers] if self.context_dim else [],
            [(params[f"gain.{k}"], params[f"gain_bias.{k}"]) for k in layers] if self.gains else [],
        )

    def _stairs(self, dtype: Any) -> list[Staircase]:
        if dtype not in self._stairs_of:
            self._stairs_of[dtype] = [Staircase(mask, dtype) for mask in self.layer_masks]
        return self._stairs_of[dtype]

    def packings(self, ops: Any, dtype: np.dtype) -> dict[str, Any]:
        found = {f"weight.{k}": ops.packing(step) for k, step in enumerate(self._stairs(dtype))}
        return {name: packing for name, packing in found.items() if packing is not None}

    def pseudo_parameters(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any]:
        weights, biases, contexts, gains = self.network(params)
        stairs = self._stairs(value(x).dtype)
        wiring = (self.activation, self.bound, gains, self.skips, self.linear)
        out, saved = ops.network(x, context, weights, biases, contexts, stairs, *wiring)
        if self.channels is None:
            return traced_np.reshape(out, (self.dim, self.outputs, value(x).shape[1])), (saved, None)
        theta, spread = ops.spread(out, params["spread.weight"], params["spread.bias"], self.dim)
        return theta, (saved, spread)

    def pseudo_parameters_vjp(
        self, ops: Any, params: Params, saved: Any, grad_theta: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        network, spread = saved
        if spread is None:
            grad_out = grad_theta.reshape(-1, grad_theta.shape[2])
        else:
            grad_out, grads["spread.weight"], grads["spread.bias"] = ops.spread_vjp(spread, grad_theta)
        layers = range(len(self.layer_masks))
        into = {
            "weights": [grads.get(f"weight.{k}") for k in layers],
            "biases": [grads.get(f"bias.{k}") for k in layers],
        }
        below = ops.network_vjp(network, grad_out, into)
        for k in layers:
            grads[f"weight.{k}"] = below["weights"][k]
            grads[f"bias.{k}"] = below["biases"][k]
            if self.context_dim:
                grads[f"context.{k}"] = below["context_weights"][k]
            if self.gains:
                grads[f"gain.{k}"], grads[f"gain_bias.{k}"] = below["gains"][k]
        return below["x"], below["context"]

    def stepwise(self, ops: Any, params: Params, y: np.ndarray, context: Any) -> Stepwise:
        return Incremental(self, params, y, context)
