"""How large everything is: on a card, and under the simulator, which is to go through every line and no more."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
    """A transformer, the columns of each dimension, and a dtype."""

    name: str
    rows: int
    dtype: str

    @property
    def label(self) -> str:
        return f"{self.name}, N = {self.rows}, {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Dimensions; transformers, of whose columns so many are drawn and then repeat, and how many are compared with the
    reference; batches of what surrounds them; of flows the models, width, number, units and components; batches of a
    training step, and its steps between two looks at the clock; rows that are scored, and by how many at a time torch
    does it; calls before any is timed (a CUDA graph is run as it is, then recorded, then replayed); rounds, and
    seconds, for which a row of steps or of scoring is measured.
    """

    dim: int
    cells: tuple[Cell, ...]
    drawn: int
    checked: int
    batches: tuple[int, ...]
    models: tuple[str, ...]
    hidden: int
    flows: int
    units: int
    components: int
    training: tuple[int, ...]
    steps: int
    scored: int
    chunk: int
    warm: int
    rounds: int
    seconds: float


_BATCHES = (512, 8192, 65_536)
#: The largest batches come last: a run that is out of time stops there.
CARD = Sizes(
    dim=43,
    cells=(
        *(Cell(name, rows, "float32") for rows in _BATCHES[:2] for name in ("dsf", "ddsf", "affine", "mog")),
        *(Cell(name, _BATCHES[1], "float64") for name in ("dsf", "ddsf")),
        *(Cell(name, _BATCHES[2], "float32") for name in ("dsf", "ddsf", "affine", "mog")),
    ),
    drawn=8192,
    checked=96,
    batches=_BATCHES,
    models=("maf-ddsf", "maf-dsf"),
    hidden=512,
    flows=5,
    units=16,
    components=10,
    training=(512, 8192),
    steps=20,
    scored=100_000,
    chunk=10_000,
    warm=3,
    rounds=5,
    seconds=5.0,
)
SIMULATOR = Sizes(
    dim=2,
    cells=(
        Cell("dsf", 9, "float32"),
        Cell("dsf", 2, "float64"),
        Cell("ddsf", 2, "float32"),
        Cell("affine", 2, "float32"),
        Cell("mog", 2, "float32"),
    ),
    drawn=4,
    checked=2,
    batches=(2,),
    models=("maf-dsf",),
    hidden=2,
    flows=1,
    units=2,
    components=2,
    training=(2,),
    steps=1,
    scored=4,
    chunk=2,
    warm=1,
    rounds=1,
    seconds=0.01,
)
