"""What the exporters to other libraries share: networks as those read them, and refusals."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.flow import Flow
from refnaf.flows.inverse import Inverse


class Network(NamedTuple):
    """A masked network, a list each over the layers, float64.

    ``weights`` and ``masks`` ``(out, in)``, ``biases`` ``(out,)``, ``contexts`` ``(out, C)`` (empty without a context),
    and ``gains``, pairs of ``(out, C)`` and ``(out,)`` (empty without gains). Its outputs are dimension-major.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    contexts: list[np.ndarray]
    gains: list[tuple[np.ndarray, np.ndarray]]
    masks: list[np.ndarray]


class Step(NamedTuple):
    """One layer of a flow: itself, or what is inside an Inverse, and its numbers by local name, float64."""

    layer: Any
    params: dict[str, np.ndarray]
    inverted: bool


def refuse(library: str, what: str, remedy: str) -> NoReturn:
    """Raises ValueError."""
    raise ValueError(f"{library} cannot represent {what}; {remedy}")


def steps(flow: Flow) -> list[Step]:
    """The layers behind the standardisation."""
    found = []
    for layer, params in zip(flow.layers[1:], flow.layer_params()[1:], strict=True):
        inverted = isinstance(layer, Inverse)
        wide = {name: np.asarray(array, np.float64) for name, array in params.items()}
        found.append(Step(layer.layer if isinstance(layer, Inverse) else layer, wide, inverted))
    return found


def network(library: str, flow: Flow, step: Step) -> Network:
    """The conditioner of a step whose layer is autoregressive, for contexts that are not standardised.

    Raises ValueError where it does not read x and the context as they are, or is a residual network.
    """
    layer: Autoregressive = step.layer
    if layer.bound is not None:
        refuse(library, f"networks that read x / (1 + |x| / {layer.bound:g})", "fit with the option bound=None")
    if layer.skips or layer.linear:
        refuse(library, "residual networks", "export a flow with plain ones")
    if not layer.hidden:
        refuse(library, "networks without hidden layers", "fit with the option hidden=64")
    weights, biases, contexts, gains = layer.network(step.params)
    if layer.context_dim:
        mean, scale = flow.buffers["0.context_mean"], flow.buffers["0.context_scale"]
        biases = [bias - weight @ (mean / scale) for weight, bias in zip(contexts, biases, strict=True)]
        contexts = [weight / scale for weight in contexts]
        gains = [(weight / scale, bias - weight @ (mean / scale)) for weight, bias in gains]
    return Network(weights, biases, contexts, gains, layer.layer_masks)


def folded(library: str, net: Network, layer: Autoregressive, params: dict[str, Any]) -> Network:
    """The network with its channels spread: the last layer gives the pseudo-parameters themselves."""
    if layer.channels is None:
        return net
    if net.gains:
        refuse(
            library, "channels whose gains depend on the context", "fit with the option gains=False or channels=None"
        )
    spread, dim, channels = params["spread.weight"], layer.dim, layer.channels

    def spread_rows(array: np.ndarray) -> np.ndarray:
        return (spread @ array.reshape(dim, channels, -1)).reshape(dim * len(spread), -1)

    bias = spread_rows(net.biases[-1])[:, 0] + np.tile(params["spread.bias"], dim)
    mask = np.repeat(net.masks[-1][::channels], len(spread), axis=0)
    return net._replace(
        weights=[*net.weights[:-1], spread_rows(net.weights[-1])],
        biases=[*net.biases[:-1], bias],
        contexts=[*net.contexts[:-1], spread_rows(net.contexts[-1])] if net.contexts else [],
        masks=[*net.masks[:-1], mask],
    )
