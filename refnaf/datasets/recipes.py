"""How each row of the published density-estimation tables is fitted here: model, options and training settings.

The architectures are the authors':

- ``made-mog``, ``maf-5``, ``maf-10``, ``maf-mog-5``: Papamakarios et al. 2017, section 4 and their code: two hidden
  layers (they try one and two, and keep what scores the validation rows better), ReLU, tanh for GAS, 10 components.
  They normalise batches between layers, which refnaf does not.
- ``maf-ddsf-5``, ``maf-ddsf-10``: Huang et al. 2018 and their code: ELU, two DDSF layers of 16 units, pseudo-parameters
  from ``3 (H // D) 2`` channels a dimension. :func:`naf_parameters` makes their published count of such a flow.
- ``bnaf``: De Cao et al. 2019: five flows of two hidden layers, gated but for the last, tanh.
- ``tan``: Oliva et al. 2018 and their code: four recurrent shifts with reversals and linear maps, then a RAM, of 256
  gated units each; two ReLU layers of 120, 40 components. Their leaky ReLUs between the shifts are left out.

The training is refnaf's (Adam with a warm-up and half a cosine, averaged parameters, the best by the validation rows),
with fewer epochs than the hundreds of theirs at a small constant step. What a command or call gives beside a recipe
takes the place of the recipe's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refnaf.datasets.published import PUBLISHED
from refnaf.flows.autoregressive import Autoregressive
from refnaf.flows.flow import Flow

#: Hidden layers of the conditioners, by data set.
HIDDEN: dict[str, tuple[int, ...]] = {
    "power": (100, 100),
    "gas": (100, 100),
    "hepmass": (512, 512),
    "miniboone": (512,),
    "bsds300": (1024, 1024),
}

#: Units a dimension in each of the two hidden layers of a B-NAF, by data set.
BLOCK_UNITS = {"power": 40, "gas": 40, "hepmass": 20, "miniboone": 5, "bsds300": 20}

#: Layers and sigmoids of a DDSF transformer.
DDSF_LAYERS, DDSF_UNITS = 2, 16

#: Training settings, by data set: passes over the training rows, rows a step, Adam's step size at its highest.
TRAINING: dict[str, dict[str, Any]] = {
    "power": {"epochs": 50, "batch_size": 512, "learning_rate": 5e-3},
    "gas": {"epochs": 100, "batch_size": 512, "learning_rate": 5e-3},
    "hepmass": {"epochs": 60, "batch_size": 512, "learning_rate": 1e-3},
    "miniboone": {"epochs": 150, "batch_size": 256, "learning_rate": 1e-3},
    "bsds300": {"epochs": 30, "batch_size": 512, "learning_rate": 1e-3},
}

#: Decay of the averaged parameters (De Cao et al. 2019, appendix), for runs of tens of thousands of steps.
AVERAGING = 0.998

RECIPES = ("made-mog", "maf-5", "maf-10", "maf-mog-5", "tan", "maf-ddsf-5", "maf-ddsf-10", "bnaf")


@dataclass(frozen=True)
class Recipe:
    """A model's name, the options to build it with, and settings of :func:`refnaf.fit`."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def recipe(name: str, data: str) -> Recipe:
    """The recipe of a row of the table for a data set.

    Raises ValueError for an unknown name, and for a data set without recipes, such as one of bits.
    """
    if name not in RECIPES:
        raise ValueError(f"expected the name of a recipe, got {name!r}; take one of {', '.join(RECIPES)}")
    if data not in HIDDEN:
        raise ValueError(
            f"recipes are for published data sets, got {data!r}; take one of {', '.join(HIDDEN)}, or give --model and "
            "--option"
        )
    model, _, flows = name.rpartition("-") if name[-1].isdigit() else (name, "", "")
    options: dict[str, Any] = {"flows": int(flows)} if flows else {}
    if model == "bnaf":
        options = {"flows": 5, "hidden": [BLOCK_UNITS[data]] * 2, "residual": "published"}
    elif model == "maf-ddsf":
        hidden = list(HIDDEN[data])
        options |= {"hidden": hidden, "activation": "elu", "units": DDSF_UNITS, "layers": DDSF_LAYERS}
        options["channels"] = 3 * (hidden[-1] // PUBLISHED[data].dim) * DDSF_LAYERS
    elif model == "tan":
        options = {"conditional": "ram", "transformation": "L SRNN", "flows": 4, "state": 256}
        options |= {"hidden": [120, 120], "components": 40, "activation": "relu"}
    else:
        options |= {"hidden": [HIDDEN[data][0]] * 2, "activation": "tanh" if data == "gas" else "relu"}
        options |= {"components": 10} if model.endswith("mog") else {}
    return Recipe(model, options, {**TRAINING[data], "averaging": AVERAGING})


def naf_parameters(flow: Flow) -> int:
    """How many parameters the NAF authors' program has for the layers of this ``maf-ddsf`` flow.

    The published counts are of all numbers that their program stores, which are more than those that act:

    - every weight of a conditioner, also where its mask is 0;
    - three more a unit: conditioners read a context of one number, always 0 there, which moves (a weight) and scales
      (a weight and a bias) every unit;
    - in every DDSF, a u for its one input, which is 1 whatever the number: one pseudo-parameter from ``channels``
      channels (a weight each, and a bias), and one shared number a unit;
    - at the end a linear flow whose mean and scale are each a residual network of the context, two layers and a path
      past them, with a direction, a scale and a bias for each of the D outputs: ``2 (D^2 + 8 D)``.

    Raises ValueError for layers of other kinds, or without channels.
    """
    total = 2 * (flow.dim**2 + 8 * flow.dim)
    layers = [layer for layer in flow.layers if isinstance(layer, Autoregressive)]
    for layer in layers:
        if layer.transformer.name != "ddsf" or layer.channels is None:
            raise ValueError(
                f"expected a maf-ddsf flow with channels, got a {flow.model} without; build it by its recipe"
            )
        shapes = layer.shapes()
        units = sum(shape[0] for name, shape in shapes.items() if name.startswith("bias."))
        first_u = layer.channels + 1 + layer.transformer.config()["units"]
        total += sum(int(np.prod(shape)) for shape in shapes.values()) + 3 * units + first_u
    return total
