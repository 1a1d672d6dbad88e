"""One table of named cases: every model, in the shapes where things go wrong. Every property is tested on all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import refnaf
from refnaf.flows import Flow


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    dim: int
    context_dim: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        extra = "".join(f"-{k}={v}" for k, v in self.options if k not in ("flows", "hidden", "state"))
        return f"{self.model}-D{self.dim}" + (f"-C{self.context_dim}" if self.context_dim else "") + extra

    @property
    def smooth(self) -> bool:
        """Whether the density is continuous: TAN's RNN has it jump where its leaky ReLU bends."""
        return "RNN" not in dict(self.options).get("transformation", "").split()


def _case(model: str, dim: int, context_dim: int = 0, **options: Any) -> Case:
    small = {} if model == "gaussian" else {"flows": 1 if model.startswith("made") else 2, "hidden": (9, 7)}
    if model.endswith("dsf"):
        small["units"] = 5
    if model.endswith("mog") or model == "tan":
        small["components"] = 4
    if model == "tan":
        small["state"] = 5
    if model == "planar":
        small = {"flows": 3}
    return Case(model, dim, context_dim, tuple({**small, **options}.items()))


_SHAPES = [(1, 0), (2, 0), (4, 0), (1, 2), (3, 2)]
_ALL = [_case(model, dim, context) for model in refnaf.models() for dim, context in _SHAPES]
_ALL += [
    _case("maf", 3, form="softplus"),
    _case("maf", 3, form="gated"),
    _case("iaf", 3, form="exp"),
    _case("maf", 3, activation="relu"),
    _case("maf-dsf", 3, activation="tanh"),
    _case("maf-dsf", 3, channels=4),
    _case("maf-ddsf", 3, 2, channels=4),
    _case("maf-ddsf", 3, layers=1),
    _case("maf-ddsf", 3, layers=3, units=1),
    _case("maf-ddsf", 4, permutation="random"),
    _case("maf-ddsf", 3, permutation="none"),
    _case("maf-dsf", 3, hidden=()),
    _case("maf-dsf", 3, bound=None),
    _case("maf", 3, form="sigmoid"),
    _case("maf-dsf", 3, 2, gains=True),
    _case("maf-dsf", 3, 2, linear=True),
    _case("made-mog", 2, components=1),
    _case("made-mog", 3, 2, channels=4),
    _case("maf-mog", 3, form="softplus"),
    _case("maf-mog", 4, permutation="random"),
    *(_case("planar", dim, context, direction="sampling") for dim, context in _SHAPES),
    _case("bnaf", 3, hidden=(4,)),
    _case("bnaf", 2, residual="normal"),
    _case("bnaf", 3, 2, residual="gated"),
    _case("bnaf", 3, 2, residual="linear", leak=0.1),
    *(_case("tan", dim, context, conditional="lam", transformation="L RNN") for dim, context in _SHAPES),
    _case("tan", 3, transformation="RNN SRNN L", permutation="random"),
    _case("tan", 3, 2, transformation="none", hidden=()),
    _case("tan", 3, conditional="lam", transformation="L", hidden=()),
    _case("tan", 2, 2, transformation="SRNN", bound=None, linear=True),
]

#: Every case, by name.
CASES: dict[str, Case] = {case.name: case for case in _ALL}


#: Models with compiled twins: their cases are tested with both backends, the others' with one.
COMPILED = {name for name in refnaf.models() if name not in ("gaussian", "planar")}
#: By name, ``(case, backend)``.
BOTH: dict[str, tuple[Case, str]] = {name: (case, "numpy") for name, case in CASES.items()}
BOTH |= {f"{name}-numba": (case, "numba") for name, case in CASES.items() if case.model in COMPILED}


def make(case: Case, dtype: str = "float64", spread: float = 0.3, seed: int = 1, backend: str | None = None) -> Flow:
    """The case's flow away from the identity: parameters moved by normals of that spread, a standardisation set."""
    flow = refnaf.build(case.model, case.dim, case.context_dim, seed=seed, dtype=dtype, **dict(case.options))
    rng = np.random.default_rng(seed)
    flow = flow.replace({k: v + spread * rng.normal(size=v.shape) for k, v in flow.params.items()})
    for name, array in flow.layers[0].buffers.items():
        array[...] = rng.uniform(0.5, 2, array.shape) if "scale" in name else rng.normal(size=array.shape)
    if dict(case.options).get("linear"):
        for array in flow.layers[1].buffers.values():
            array[...] = 0.3 * rng.normal(size=array.shape)
    return flow if backend is None else flow.replace({}, backend=backend)


def rows(case: Case, n: int, seed: int = 2, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray | None]:
    """Data ``(n, D)`` and a context ``(n, C)`` or None."""
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(n, case.dim))
    return x, rng.normal(size=(n, case.context_dim)) if case.context_dim else None
