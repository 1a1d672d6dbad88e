"""Block neural autoregressive layers (De Cao, Titov and Aziz 2019): the network itself is the monotone map.

    y_i = F f_i(x_1, ..., x_i; c) + A_i x_i

Mathematics: :mod:`refnaf.reference.block`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from refnaf.flows.layer import Layer, Params, total
from refnaf.ops import Ops
from refnaf.reference import block
from refnaf.reference._numpy import value

#: What is read of the context passes through ``c / (1 + |c| / 10)``, as in the other layers, unless told otherwise.
CONTEXT_BOUND = 10.0
#: A new layer is close to the identity for x within +-NEAR; the thresholds of its first units spread over +-SPREAD.
NEAR, SPREAD = 3.5, 4.0
#: Weights of earlier dimensions and of the context, at the start, beside those within a dimension.
MIXING = 0.05
#: Raw slope of the linear path at the start. f carries the rest: it learns better from there than beside a slope of 1.
SLOPE = -2.0


class Block(Layer):
    """A masked network that is monotone in each input: y from x in one pass, x from y dimension after dimension.

    ``hidden``: units a dimension in each hidden layer; ``residual``: how x itself enters y,

    - "linear": ``y = f(x) + a x`` with a slope for each dimension, learnt, within ``exp(-2)`` and ``exp(2)``;
    - "gated": ``y = g f(x) + (1 - g) x`` with one gate g in (0, 1), learnt; "normal": ``y = f(x) + x``;
    - "none": ``y = f(x)``, which is all there is in the published model's last flow.

    tanh is bounded, and with it f. The first three forms map the line onto the line. The image of "none" is a bounded
    box: the base density outside is lost, densities integrate to less than 1, and noise drawn there has no inverse
    (ValueError). It is here for the authors' weights. A context enters every layer, added to its biases.

    ``leak``: of the activation ``tanh(z) + leak z``. Any above 0 makes every form map the line onto the line, "none"
    too, as in flowjax (Ward 2023), whose leak is 0.01. ``bound``: the context c is read as ``c / (1 + |c| / bound)``,
    or as it is where None. ``epsilon``: added to the norms of the weights' rows, in the log-determinant to their
    squares and to the gate's shares, as in Pyro (Bingham et al. 2019), whose epsilon is 1e-8; the log-determinant then
    differs from that of the map by as little. Raises ValueError for what is out of these ranges.
    """

    kind = "block"

    def __init__(
        self,
        dim: int,
        context_dim: int = 0,
        *,
        hidden: Sequence[int] = (16, 16),
        residual: str = "linear",
        leak: float = 0.0,
        bound: float | None = CONTEXT_BOUND,
        epsilon: float = 0.0,
    ) -> None:
        super().__init__(dim, context_dim)
        self.hidden, self.residual = [int(h) for h in hidden], residual
        if not self.hidden or any(h < 1 for h in self.hidden):
            raise ValueError(f"hidden must be one or more positive numbers of units a dimension, got {self.hidden}")
        if residual not in block.RESIDUALS:
            raise ValueError(f"residual must be one of {', '.join(block.RESIDUALS)}, not {residual!r}")
        for name, number in (("leak", leak), ("epsilon", epsilon)):
            if not 0 <= number <= 1:
                raise ValueError(f"{name} must be a number from 0 to 1, got {number!r}")
        if bound is not None and not 0 < bound < math.inf:
            raise ValueError(f"bound must be a positive number, or None for no bound, got {bound!r}")
        self.leak, self.epsilon = float(leak), float(epsilon)
        self.bound = None if bound is None else float(bound)
        #: Units a dimension below and above each layer.
        self.sizes = list(itertools.pairwise([1, *self.hidden, 1]))

    def config(self) -> dict[str, Any]:
        special = {name: number for name in ("leak", "epsilon") if (number := getattr(self, name))}
        if self.bound != CONTEXT_BOUND:
            special["bound"] = self.bound
        return {"hidden": self.hidden, "residual": self.residual, **special}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        out: dict[str, tuple[int, ...]] = {}
        for k, (below, here) in enumerate(self.sizes):
            out[f"weight.{k}"] = (self.dim * here, self.dim * below)
            out[f"gain.{k}"] = (self.dim * here,)
            out[f"bias.{k}"] = (self.dim * here,)
            if self.context_dim:
                out[f"context.{k}"] = (self.dim * here, self.context_dim)
        if self.residual == "linear":
            out["slope"] = (self.dim,)
        if self.residual == "gated":
            out["gate"] = (1,)
        return out

    def masks(self) -> dict[str, np.ndarray]:
        sizes = enumerate(self.sizes)
        return {f"weight.{k}": np.add(*block.masks(self.dim, here, below)) for k, (below, here) in sizes}

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        out = {name: np.zeros(shape) for name, shape in self.shapes().items()}
        last = len(self.sizes) - 1
        for k, (below, here) in enumerate(self.sizes):
            inside, before = block.masks(self.dim, here, below)
            fan_in = np.maximum(before.sum(axis=1, keepdims=True) / below, 1)
            noise = rng.normal(size=inside.shape)
            out[f"weight.{k}"] = 0.1 * noise * inside + MIXING * noise * before / np.sqrt(fan_in)
            if k < last:
                # units differ in their thresholds, spread over what they read: their sum is nearly linear there
                grid = (SPREAD if k == 0 else 1.0) * np.linspace(-1, 1, 2 * here + 1)[1::2]
                out[f"bias.{k}"] = np.concatenate([rng.permutation(grid) for _ in range(self.dim)])
                out[f"gain.{k}"][:] = -0.5 * np.log(below)
            if self.context_dim:
                noise = rng.normal(size=(self.dim * here, self.context_dim))
                reach = 1 if k == 0 else SPREAD  # thresholds of later layers are as much closer
                out[f"context.{k}"] = MIXING / reach * noise / np.sqrt(self.context_dim)
        if self.residual == "linear":
            out["slope"][:] = SLOPE
        scale, shift = self._fitted(out)
        out[f"gain.{last}"] = np.log(scale)
        out[f"bias.{last}"] = shift
        return out

    def _fitted(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of the last weights' rows, and biases, with which ``F f + A x`` is nearest to x, each dimension by
        itself. Where A is 1 (residual "normal"), f begins at MIXING x."""
        points = np.linspace(-NEAR, NEAR, 31)
        net = self.network(params)
        inside = [block.masks(self.dim, here, below)[0] for below, here in self.sizes]
        alone = net._replace(weights=[w * mask for w, mask in zip(net.weights, inside, strict=True)], contexts=[])
        f, _ = block.monotone(np.tile(points, (self.dim, 1)), None, alone)
        log_f, log_a = block.mixture(self.residual, net.mix)
        share = np.maximum(1 - (0 if log_a is None else np.exp(log_a)), MIXING) / (
            1 if log_f is None else np.exp(log_f)
        )
        scale = share * (points @ points) / (f @ points)
        return scale, -scale * f.mean(axis=1)

    def network(self, params: Params) -> block.Network:
        """The layer's numbers as the operations take them."""
        layers = range(len(self.sizes))
        weights, gains, biases = ([params[f"{name}.{k}"] for k in layers] for name in ("weight", "gain", "bias"))
        contexts = [params[f"context.{k}"] for k in layers] if self.context_dim else []
        mix = params.get({"linear": "slope", "gated": "gate"}.get(self.residual, ""))
        return block.Network(weights, gains, biases, contexts, self.residual, mix, self.bound, self.leak, self.epsilon)

    def forward(self, ops: Ops, params: Params, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y, log_slope, saved = ops.block(x, context, self.network(params))
        return y, total(log_slope, ops.traced), saved

    def vjp(
        self, ops: Any, params: Params, saved: Any, grad_y: np.ndarray, grad_logdet: np.ndarray, grads: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        below = ops.block_vjp(saved, grad_y, grad_logdet.astype(grad_y.dtype)[None])
        for k in range(len(self.sizes)):
            grads[f"weight.{k}"] = below["weights"][k]
            grads[f"gain.{k}"] = below["gains"][k]
            grads[f"bias.{k}"] = below["biases"][k]
            if self.context_dim:
                grads[f"context.{k}"] = below["contexts"][k]
        if below["mix"] is not None:
            grads["slope" if self.residual == "linear" else "gate"] = below["mix"]
        return below["x"], below["context"]

    def solve_transposed(self, ops: Any, params: Params, saved: Any, wanted: np.ndarray) -> np.ndarray:
        return ops.block_inverse_vjp(saved, wanted)

    def inverse(self, ops: Ops, params: Params, y: Any, context: Any) -> tuple[Any, Any, Any]:
        x, log_slope, residual = ops.block_inverse(y, context, self.network(params))
        return x, total(log_slope, ops.traced), np.max(np.abs(value(residual)), axis=0)
