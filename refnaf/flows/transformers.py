"""The transformers an autoregressive layer can use: how many pseudo-parameters, and where the identity is.

Their mathematics is in :mod:`refnaf.reference` and is reached through :mod:`refnaf.ops` by name.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from refnaf.reference import ddsf
from refnaf.reference.affine import BENDS, FORMS


class Transformer:
    """Name, sizes and initial values of an elementwise monotone map."""

    name: str
    #: Pseudo-parameters a dimension.
    count: int
    #: Keyword arguments of the reference function.
    options: dict[str, Any]

    def shared_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parameters that all samples and dimensions share."""
        return []

    def initial_shared(self, rng: np.random.Generator) -> list[np.ndarray]:
        return []

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        """Pseudo-parameters ``(D, P)`` near the identity."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        raise NotImplementedError


class Affine(Transformer):
    """``y = scale x + shift`` in one of the forms of :mod:`refnaf.reference.affine`, with its function's options."""

    name = "affine"
    count = 2
    OPTIONS: ClassVar[dict[str, set[str]]] = {
        "exp": {"how", "limit"},
        "softplus": {"floor"},
        "sigmoid": {"floor"},
        "gated": {"how", "limit", "clip"},
    }

    def __init__(self, form: str = "exp", **options: Any) -> None:
        if form not in FORMS:
            raise ValueError(f"the form of an affine transformer must be one of {', '.join(FORMS)}, not {form!r}")
        unknown = set(options) - self.OPTIONS[form]
        if unknown or options.get("how", "tanh") not in BENDS:
            raise ValueError(f"an affine transformer of form {form} has no option {options}")
        self.options = {"form": form, **options}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        # a sigmoid opens to sigmoid(4) = 0.98; a raw scale of 0 is the identity of the others
        return np.tile([0.0, 4.0 if self.options["form"] in ("gated", "sigmoid") else 0.0], (dim, 1))


def _check_units(units: int, layers: int = 1) -> None:
    if units < 1 or layers < 1:
        raise ValueError(f"a sigmoidal transformer needs at least 1 unit and 1 layer, got {units} and {layers}")


#: Spread of the units' offsets at the start: wide enough to tell them apart, narrow enough to stay near the identity.
OFFSET_SPREAD = 0.5


class DSF(Transformer):
    """Deep sigmoidal flow with ``units`` sigmoids."""

    name = "dsf"

    def __init__(self, units: int = 16, clip: float = 0.0) -> None:
        _check_units(units)
        self.units = units
        self.count = 3 * units
        self.options = {"clip": clip} if clip else {}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        theta = np.zeros((dim, 3, self.units))
        theta[:, 1] = _offsets(dim, self.units, rng)
        return theta.reshape(dim, -1)


class DDSF(Transformer):
    """Deep dense sigmoidal flow of ``layers`` layers of ``units`` sigmoids."""

    name = "ddsf"

    def __init__(self, units: int = 16, layers: int = 2, clip: float = 0.0) -> None:
        _check_units(units, layers)
        self.units, self.layers = units, layers
        self.count = ddsf.parameter_count(units, layers)
        self.options = {"clip": clip} if clip else {}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units, "layers": self.layers, **self.options}

    def shared_shapes(self) -> list[tuple[int, ...]]:
        sizes = ddsf.layer_sizes(self.units, self.layers)
        return [shape for k, (n, d, out) in enumerate(sizes) for shape in ([(d, n)] if k else []) + [(out, d)]]

    def initial_shared(self, rng: np.random.Generator) -> list[np.ndarray]:
        return [rng.normal(scale=0.5, size=shape) for shape in self.shared_shapes()]

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        theta = np.zeros((dim, self.count))
        for _, b, _, _ in ddsf.split(np.arange(self.count), self.units, self.layers):
            theta[:, b] = _offsets(dim, self.units, rng)
        return theta


def _offsets(dim: int, units: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets b ``(D, units)`` evenly spread about zero, in an order drawn for each dimension."""
    grid = np.linspace(-1, 1, units) if units > 1 else np.zeros(1)
    return OFFSET_SPREAD * np.stack([rng.permutation(grid) for _ in range(dim)])


TRANSFORMERS: dict[str, type[Transformer]] = {"affine": Affine, "dsf": DSF, "ddsf": DDSF}


def transformer(config: dict[str, Any]) -> Transformer:
    """The transformer of a configuration ``{"name": ..., **options}``. Raises ValueError for an unknown name."""
    options = dict(config)
    name = options.pop("name")
    if name not in TRANSFORMERS:
        raise ValueError(f"the transformer must be one of {', '.join(TRANSFORMERS)}, not {name!r}")
    return TRANSFORMERS[name](**options)
