"""The transformers alone: DSF, DDSF, affine and a mixture of Gaussians, forward and with the backward pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import authors_torch
import cases
import lean_jax
import lean_torch
import numpy as np
import ours
from cases import Inputs
from limits import Limits, transformer
from timing import Candidate, Row, agree, interleaved, row

DIMS, BATCHES = (6, 21, 43, 63), (512, 128, 10_000)
TARGET = 43
#: Inputs of no more columns are compared with the reference itself, larger ones with refnaf's, compared on smaller.
CHECKED = 6000
#: The largest batch for the authors' tensors of (N, D, d, d, d).
AUTHORS = 512


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row to measure. Where it is not ``exact``, torch.compile makes one code for all shapes of its kind."""

    name: str
    backward: bool
    dtype: str
    dim: int
    n: int
    exact: bool

    @property
    def kind(self) -> tuple[str, bool, str, bool]:
        return self.name, self.backward, self.dtype, self.exact


def cells() -> list[Cell]:
    """What there are targets for comes first, and what takes longest last: a run that is out of time stops there."""
    names, both = ("dsf", "ddsf", "affine", "mog"), (False, True)
    exact = [
        Cell(name, backward, "float32", TARGET, n, True)
        for name, backward, n in itertools.product(names[:2], both, BATCHES)
    ]
    seen = {(cell.name, cell.dtype, cell.dim) for cell in exact}
    rest = [
        Cell(name, backward, dtype, dim, n, False)
        for dtype, dim, n, name, backward in itertools.product(("float32", "float64"), DIMS, BATCHES, names, both)
        if (name, dtype, dim) not in seen
    ]
    return exact + sorted(rest, key=lambda cell: (cell.n > BATCHES[0], cell.dim != TARGET))


def plan(quick: bool) -> list[Cell]:
    """The rows to measure."""
    every = cells()
    wanted = (TARGET, 128, "float32")
    return [cell for cell in every if (cell.dim, cell.n, cell.dtype) == wanted] if quick else every


def candidates(cell: Cell, inputs: Inputs, backend: str, threads: int) -> list[Candidate]:
    """refnaf and its peers on the same inputs."""
    found = [
        ours.kernel(backend, inputs, cell.backward, threads),
        lean_torch.kernel(lean_torch.EAGER, inputs, cell.backward),
        lean_torch.kernel(lean_torch.COMPILED, inputs, cell.backward, dynamic=not cell.exact),
        lean_jax.kernel(inputs, cell.backward),
    ]
    if cell.exact and cell.name in authors_torch.TRANSFORMERS and cell.n <= AUTHORS:
        found.append(authors_torch.kernel(inputs, cell.backward))
    return found


def verify(what: str, inputs: Inputs, found: list[Candidate]) -> None:
    """Raises Disagreement unless all compute the same, and, on inputs small enough, what the reference says."""
    tolerance = cases.TOLERANCE[str(inputs.x.dtype)]
    small = inputs.x.size <= CHECKED
    # copies: the next call may overwrite what a call returned
    right = inputs.reference() if small else [np.array(a) for a in found[0].run()]
    for candidate in found:
        candidate.prepare()
        if candidate.name != authors_torch.NAME:
            agree(f"{what}, {candidate.name}", candidate.run(), right, tolerance)
        elif small:
            agree(f"{what}, {candidate.name}", candidate.run(), authors_torch.clipping(inputs).reference(), tolerance)
        candidate.prepare()


def _count(cell: Cell) -> int:
    return cell.dim * cell.n * (cases.UNITS if cell.name in ("dsf", "mog") else 1)


def measure(backend: str, threads: int, limits: dict[str, Limits], seconds: float, quick: bool) -> Iterator[Row]:
    """A row for each cell, about so many seconds each; the first ones take three times as long."""
    verified: set[tuple[str, bool, str, bool]] = set()
    for cell in plan(quick):
        if cell.kind not in verified:
            verified.add(cell.kind)
            small = cases.inputs(cell.name, 5, 96, cell.dtype)
            verify(f"{cell.name} in {cell.dtype}", small, candidates(cell, small, backend, threads))
        if cell.exact:
            lean_torch.forget()
        inputs = cases.inputs(cell.name, cell.dim, cell.n, cell.dtype)
        found = candidates(cell, inputs, backend, threads)
        work = f"{cell.name.upper() if 'dsf' in cell.name else cell.name} forward{' + backward' * cell.backward}"
        verify(f"{work}, D = {cell.dim}, N = {cell.n}, {cell.dtype}", inputs, found)
        yield row(
            interleaved(found, seconds * (3 if cell.exact else 1)),
            section="kernels",
            work=work,
            dim=cell.dim,
            rows=cell.n,
            dtype=cell.dtype,
            threads=threads,
            count=_count(cell),
            limit=transformer(cell.name, cell.backward).times(cell.dim * cell.n).seconds(limits[cell.dtype]),
        )
