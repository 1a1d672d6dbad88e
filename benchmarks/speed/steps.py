"""Training steps and scoring of a flow of five layers, and what autograd adds to a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import cases
import lean_jax
import lean_torch
import numpy as np
import ours
from limits import Limits, scoring, training_step
from timing import Candidate, Row, agree, interleaved, row

from refnaf.flows.flow import Flow

DIM, FLOWS = 43, 5
#: Rows scored in a call, and by how many at a time the peers do it (their intermediates then fit the cache).
SCORED, CHUNK = 2048, 256


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row to measure; n is a batch of training, or None for scoring."""

    model: str
    hidden: int
    n: int | None
    dtype: str = "float32"


#: What there are targets for comes first.
CELLS = (
    *(Cell("maf-dsf", hidden, n) for hidden in (512, 100) for n in (128, 512, None)),
    *(Cell("maf-dsf", hidden, n, "float64") for hidden in (512, 100) for n in (128, None)),
    *(Cell("maf-ddsf", 100, n) for n in (128, None)),
)


#: Widths with which autograd is set beside the chain.
WIDTHS = (512, 100)


def plan(quick: bool) -> tuple[Cell, ...]:
    """The rows to measure."""
    return (Cell("maf-dsf", 100, 128), Cell("maf-dsf", 100, None)) if quick else CELLS


def _verify(what: str, flow: Flow, threads: int) -> None:
    """Raises Disagreement unless loss and gradient are those of the reference for all; a few rows are enough."""
    net, x = cases.network(flow), cases.rows(32, flow.dim, flow.dtype.name)
    found = {
        ours.NAME: ours.step_values(flow, x, threads),
        lean_torch.EAGER: lean_torch.step_values(lean_torch.EAGER, net, x),
        lean_jax.NAME: lean_jax.step_values(net, x),
    }
    right = cases.reference_step(flow, x)
    for name, values in found.items():
        agree(f"{what}, {name}", values, right, cases.TOLERANCE[flow.dtype.name])


def candidates(cell: Cell, flow: Flow, threads: int) -> list[Candidate]:
    """refnaf and its peers on the same rows and numbers."""
    net = cases.network(flow)
    x = cases.rows(cell.n or SCORED, DIM, cell.dtype)
    peers = (lean_torch.EAGER, lean_torch.COMPILED)
    if cell.n is None:
        own = ours.scoring(flow, x)
        return [own, *(lean_torch.scoring(peer, net, x, CHUNK) for peer in peers), lean_jax.scoring(net, x, CHUNK)]
    own = ours.training(flow, x, threads)
    return [own, *(lean_torch.training(peer, net, x) for peer in peers), lean_jax.training(net, x)]


def measure(backend: str, threads: int, limits: dict[str, Limits], seconds: float, quick: bool) -> Iterator[Row]:
    """A row for each cell, about so many seconds each."""
    for cell in plan(quick):
        flow = cases.flow(cell.model, DIM, cell.hidden, cell.dtype, FLOWS).replace({}, backend=backend)
        what = f"{'scoring' if cell.n is None else 'training step'}, {FLOWS} {cell.model.upper()[4:]} flows"
        _verify(what, flow, threads)
        lean_torch.forget()
        found = candidates(cell, flow, threads)
        # the first call gives the loss before any step, the same for all
        first = [candidate.run() for candidate in found]
        for candidate, values in zip(found, first, strict=True):
            agree(f"{what}, {candidate.name}", values, first[0], cases.TOLERANCE[cell.dtype])
        n = cell.n or SCORED
        work = (scoring if cell.n is None else training_step)(cases.network(flow), DIM, n)
        yield row(
            interleaved(found, seconds),
            section="scoring" if cell.n is None else "steps",
            work=what,
            dim=DIM,
            rows=n,
            hidden=cell.hidden,
            dtype=cell.dtype,
            threads=threads,
            count=n,
            limit=work.seconds(limits[cell.dtype]),
        )


def autograd(backend: str, threads: int, seconds: float, quick: bool) -> Iterator[Row]:
    """The gradient of the mean of ``flow.log_prob`` by autograd, beside the chain that training runs on."""
    from autograd import value_and_grad

    from refnaf.reference._numpy import np as traced

    for hidden in WIDTHS[1:] if quick else WIDTHS:
        flow = cases.flow("maf-dsf", DIM, hidden, "float32", FLOWS).replace({}, backend=backend)
        x = cases.rows(128, DIM, "float32")

        def loss(params: dict[str, Any], flow: Flow = flow, x: np.ndarray = x) -> Any:
            return -traced.mean(flow.log_prob(x, params=params))

        gradient, params = value_and_grad(loss), dict(flow.params)

        def taped(gradient: Any = gradient, params: Any = params) -> list[Any]:
            value, grads = gradient(params)
            return [value, *grads.values()]

        objective = ours.NegativeLogLikelihood(flow, threads)
        flat = objective.flat()

        def chain(objective: Any = objective, flat: Any = flat, x: np.ndarray = x) -> list[Any]:
            return list(objective(flat, x, None))

        value, grad = chain()
        found_by_chain = [value, *objective.params(grad).values()]
        agree(f"autograd on top of the chain, H = {hidden}", taped(), found_by_chain, cases.TOLERANCE["float32"])
        found = [Candidate("chain", chain, around=ours.one_blas_thread)]
        found.append(Candidate("by autograd", taped, around=ours.one_blas_thread))
        yield row(
            interleaved(found, seconds),
            section="autograd",
            work="gradient of log_prob, 5 DSF flows",
            dim=DIM,
            rows=128,
            hidden=hidden,
            dtype="float32",
            threads=threads,
        )
        objective.close()
