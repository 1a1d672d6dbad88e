"""The transformers an autoregressive layer can use: how many pseudo-parameters, and where the identity is.

Their mathematics is in :mod:`refnaf.reference` and is reached through :mod:`refnaf.ops` by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from refnaf.reference import ddsf, mean, monotonic, stable
from refnaf.reference.affine import BENDS, FORMS, LOG_SCALE_BOUND
from refnaf.reference.stable import SLOPE_FLOOR


class Transformer:
    """Name, sizes and initial values of an elementwise monotone map."""

    name: str
    #: Pseudo-parameters a dimension.
    count: int
    #: Keyword arguments of the reference function.
    options: dict[str, Any]
    #: Whether the shared parameters differ from dimension to dimension, along a first axis of their own.
    stacked = False

    def shared_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parameters that all samples, and all dimensions or each for itself, share."""
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

    def __init__(
        self,
        form: str = "exp",
        *,
        how: str | None = None,
        limit: float | Sequence[float] | None = None,
        floor: float | None = None,
        clip: float | None = None,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"the form of an affine transformer must be one of {', '.join(FORMS)}, not {form!r}")
        options = {"how": how, "limit": limit, "floor": floor, "clip": clip}
        options = {name: option for name, option in options.items() if option is not None}
        unknown = set(options) - self.OPTIONS[form]
        if unknown or options.get("how", "tanh") not in BENDS:
            raise ValueError(f"an affine transformer of form {form} has no option {options}")
        if isinstance(limit, Sequence):
            if how != "clamp" or len(limit) != 2 or not limit[0] <= limit[1]:
                raise ValueError(
                    f"a pair of limits must be low and high, for how='clamp' alone, got {limit} for {how!r}"
                )
            options["limit"] = [float(edge) for edge in limit]
        self.options = {"form": form, **options}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        # a sigmoid opens to sigmoid(5) = 0.993; a raw scale of 0 is the identity of the others
        return np.tile([0.0, 5.0 if self.options["form"] in ("gated", "sigmoid") else 0.0], (dim, 1))


def _check_units(units: int, layers: int = 1) -> None:
    if units < 1 or layers < 1:
        raise ValueError(f"a sigmoidal transformer needs at least 1 unit and 1 layer, got {units} and {layers}")


def _check_slopes(floor: float, epsilon: float = 0.0) -> None:
    if not 0 <= floor < 1 or epsilon < 0:
        raise ValueError(f"a floor of slopes must be in [0, 1), and an epsilon not negative, got {floor} and {epsilon}")


#: Spread of the units' offsets at the start: wide enough to tell them apart, narrow enough to stay near the identity.
OFFSET_SPREAD = 0.5


class DSF(Transformer):
    """Deep sigmoidal flow with ``units`` sigmoids."""

    name = "dsf"

    def __init__(
        self,
        units: int = 16,
        clip: float = 0.0,
        floor: float = SLOPE_FLOOR,
        steepness: float = 1.0,
        epsilon: float = 0.0,
    ) -> None:
        _check_units(units)
        _check_slopes(floor, epsilon)
        if not steepness > 0:
            raise ValueError(f"the steepness of sigmoids must be positive, got {steepness}")
        self.units = units
        self.count = 3 * units
        options = {"clip": (clip, 0.0), "floor": (floor, SLOPE_FLOOR), "steepness": (steepness, 1.0)}
        options["epsilon"] = (epsilon, 0.0)
        self.options = {name: option for name, (option, usual) in options.items() if option != usual}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        theta = np.zeros((dim, 3, self.units))
        theta[:, 0], theta[:, 1] = _slope(self.units), _offsets(dim, self.units, rng)
        return theta.reshape(dim, -1)


class Mean(Transformer):
    """A mean of ``units`` lines, taken under an activation: see :mod:`refnaf.reference.mean`."""

    name = "mean"

    def __init__(
        self, units: int = 16, activation: str = "elu", floor: float = SLOPE_FLOOR, epsilon: float = 0.0
    ) -> None:
        _check_units(units)
        _check_slopes(floor, epsilon)
        if activation not in mean.ACTIVATIONS:
            raise ValueError(f"the activation must be one of {', '.join(mean.ACTIVATIONS)}, not {activation!r}")
        self.units = units
        self.count = 3 * units
        options = {"floor": (floor, SLOPE_FLOOR), "epsilon": (epsilon, 0.0)}
        self.options = {"activation": activation}
        self.options |= {name: option for name, (option, usual) in options.items() if option != usual}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        return np.concatenate(
            [np.zeros((dim, self.units)), _offsets(dim, self.units, rng), np.zeros((dim, self.units))], axis=1
        )


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
        for a, b, _, _ in ddsf.split(np.arange(self.count), self.units, self.layers):
            theta[:, a], theta[:, b] = _slope(self.units), _offsets(dim, self.units, rng)
        return theta


#: A mixture's means reach this far at the start (with many components), or several components stay on one mode.
MEAN_REACH = 2.5


class MixtureOfGaussians(Transformer):
    """The conditional's quantile under the standard normal, for a mixture of ``components`` Gaussians.

    ``floor``: that of the scales, where they are to be softplus functions (:func:`refnaf.reference.mixture.constrain`).
    """

    name = "mog"

    def __init__(self, components: int = 10, floor: float | None = None) -> None:
        if components < 1:
            raise ValueError(f"a mixture needs at least 1 component, got {components}")
        _check_slopes(floor or 0.0)
        self.components = components
        self.count = 3 * components
        self.options = {} if floor is None else {"floor": floor}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "components": self.components, **self.options}

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        # a standard normal as a sum: means of variance 1/2, cut off and on a grid, and a common scale for the rest
        theta = np.zeros((dim, 3, self.components))
        reach = MEAN_REACH * (self.components - 1) / (self.components + 2)
        means = (reach / OFFSET_SPREAD) * _offsets(dim, self.components, rng)
        weights = np.exp(-(means**2))
        weights /= np.sum(weights, axis=1, keepdims=True)
        log_scale = 0.5 * np.log(1 - np.sum(weights * means**2, axis=1, keepdims=True))
        theta[:, 0], theta[:, 1] = np.log(weights), means
        theta[:, 2] = LOG_SCALE_BOUND * np.arctanh(log_scale / LOG_SCALE_BOUND)
        if (floor := self.options.get("floor")) is not None:
            scale = np.maximum(np.exp(log_scale), 1.01 * floor)
            theta[:, 2] = stable.inverse_softplus(scale - floor) - stable.inverse_softplus(1 - floor)
        return theta.reshape(dim, -1)


class Monotonic(Transformer):
    """A monotone network of widths ``hidden``, a set of weights a dimension, which reads x and a signal.

    The pseudo-parameters are the ``signal`` numbers. Hidden layers have at least one unit of either kind.
    """

    name = "monotonic"
    stacked = True

    def __init__(self, signal: int = 16, hidden: Sequence[int] = (64, 64)) -> None:
        self.count, self.hidden = signal, [int(n) for n in hidden]
        if signal < 1 or any(n < 2 for n in self.hidden):
            got = f"{signal} and {self.hidden}"
            raise ValueError(
                f"a monotone network needs a signal of at least 1 and layers of at least 2 units, got {got}"
            )
        self.options = {}

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "signal": self.count, "hidden": self.hidden}

    def shared_shapes(self) -> list[tuple[int, ...]]:
        sizes = monotonic.layer_sizes(self.count, self.hidden)
        return [shape for out, below in sizes for shape in ((out, below), (out,))]

    def initial_shared(self, rng: np.random.Generator) -> list[np.ndarray]:
        # means of x, small enough for the units to be nearly linear, scaled back at the end
        found: list[np.ndarray] = []
        for k, (out, below) in enumerate(monotonic.layer_sizes(self.count, self.hidden)):
            weight = rng.uniform(0.5, 1.5, size=(out, below)) / below
            if k == 0:
                weight = rng.normal(scale=0.1 * SMALL_UNITS, size=(out, below))
                weight[:, 0] = SMALL_UNITS if self.hidden else 1
            elif k == len(self.hidden):
                weight = np.full((out, below), 1 / (SMALL_UNITS * below))
            found += [weight, np.zeros(out)]
        return found

    def initial(self, dim: int, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((dim, self.count))


#: What the first layer of a new monotone network makes of x: small, so that its exponential units are nearly linear.
SMALL_UNITS = 0.1


def _grid(units: int) -> np.ndarray:
    return OFFSET_SPREAD * (np.linspace(-1, 1, units) if units > 1 else np.zeros(1))


def _offsets(dim: int, units: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets b ``(D, units)`` evenly spread about zero, in an order drawn for each dimension."""
    return np.stack([rng.permutation(_grid(units)) for _ in range(dim)])


def _slope(units: int) -> float:
    """The raw slope with which a mixture of those offsets and equal weights has dy/dx = 1 at zero."""
    b = _grid(units)
    slope = 0.25 / float(np.mean(stable.sigmoid(b) * stable.sigmoid(-b)))
    return float(stable.inverse_softplus(slope - SLOPE_FLOOR) - stable.inverse_softplus(1 - SLOPE_FLOOR))


TRANSFORMERS: dict[str, type[Transformer]] = {
    "affine": Affine,
    "dsf": DSF,
    "ddsf": DDSF,
    "mean": Mean,
    "mog": MixtureOfGaussians,
    "monotonic": Monotonic,
}


def transformer(config: dict[str, Any]) -> Transformer:
    """The transformer of a configuration ``{"name": ..., **options}``. Raises ValueError for an unknown name."""
    options = dict(config)
    name = options.pop("name")
    if name not in TRANSFORMERS:
        raise ValueError(f"the transformer must be one of {', '.join(TRANSFORMERS)}, not {name!r}")
    return TRANSFORMERS[name](**options)
