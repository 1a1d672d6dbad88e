"""Training steps and scoring of whole flows, beside torch on the same card."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
from rates import Rates
from sizes import Sizes
from timing import Candidate, agree, interleaved

from refnaf.flows.flow import Flow
from refnaf.kernels.cuda import arrays
from refnaf.objective import NegativeLogLikelihood
from refnaf.training.adam_device import DeviceAdam

NAME = "refnaf"
#: Rows on which loss and gradient are compared with the reference itself.
CHECKED = 32


@dataclasses.dataclass(frozen=True)
class StepRow:
    """Seconds of a training step, or of scoring all rows, by candidate; those of its matrix products alone, whole and
    at the card's rate; and why a peer is missing."""

    work: str
    model: str
    rows: int
    seconds: dict[str, float]
    products: float
    failed: dict[str, str]

    @property
    def ratio(self) -> float | None:
        """The quickest peer's time over refnaf's, or None without peers."""
        peers = [seconds for name, seconds in self.seconds.items() if name != NAME]
        return min(peers) / self.seconds[NAME] if peers else None

    @property
    def label(self) -> str:
        return f"{self.work}, {self.model}, N = {self.rows}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model, and a batch of training or None for scoring."""

    model: str
    batch: int | None

    @property
    def label(self) -> str:
        return f"{self.model}, {'scoring' if self.batch is None else f'steps of {self.batch} rows'}"


def plan(sizes: Sizes) -> list[Cell]:
    """What there is to measure."""
    return [Cell(model, batch) for batch in (*sizes.training, None) for model in sizes.models]


def _flow(model: str, sizes: Sizes) -> Flow:
    return cases.flow(model, sizes.dim, sizes.hidden, "float32", sizes.flows, sizes.units)


def _training(flow: Flow, rows: np.ndarray, steps: int) -> tuple[Candidate, list[np.ndarray]]:
    """refnaf's steps as fit takes them, on rows that are on the device; loss and gradient before the first."""
    objective = NegativeLogLikelihood(flow)
    adam, x = DeviceAdam(objective.flat()), objective.put(rows)
    loss, grad = objective(adam.flat, x, None)
    values = [np.array([float(loss)]), arrays.get(grad).copy()]

    def run() -> list[Any]:
        for _ in range(steps):
            loss, grad = objective(adam.flat, x, None)
            adam.step_unseen(loss, grad, 1e-4)
        arrays.wait()
        return []

    return Candidate(NAME, run), values


def _scoring(flow: Flow, rows: np.ndarray) -> tuple[Candidate, list[np.ndarray]]:
    return Candidate(NAME, lambda: [flow.log_prob(rows)]), [flow.log_prob(rows)]


def verify(model: str, sizes: Sizes) -> None:
    """Raises timing.Disagreement unless loss, gradient and nats are those of the reference, on few rows."""
    flow = _flow(model, sizes).replace({}, backend="cuda")
    rows = cases.rows(min(CHECKED, 2 * sizes.scored), flow.dim, flow.dtype.name)
    _, values = _training(flow, rows, 1)
    right = cases.reference_step(flow.replace({}, backend="numpy"), rows)
    tolerance = cases.TOLERANCE[flow.dtype.name]
    agree(f"{flow.model}, loss and gradient", values, [np.array([right[0]]), right[1]], tolerance)
    agree(f"{flow.model}, nats", [np.array([-np.mean(flow.log_prob(rows))])], [np.array([right[0]])], tolerance)


def _peers(
    make: Callable[[Any, str], tuple[Candidate, list[np.ndarray]]], right: list[np.ndarray], warm: int
) -> tuple[list[Candidate], dict[str, str]]:
    """torch's candidates, whose values must be refnaf's; and what went wrong with the others."""
    found: list[Candidate] = []
    failed: dict[str, str] = {}
    device_torch = importlib.import_module("device_torch")
    device_torch.settle()
    for peer in device_torch.PEERS:
        try:
            candidate, values = make(device_torch, peer)
            agree(peer, values, right, cases.TOLERANCE["float32"])
            for _ in range(warm):
                candidate.run()
        except Exception as error:  # what a compiler cannot do is a result, too
            failed[peer] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            found.append(candidate)
    return found, failed


def measure_cell(cell: Cell, sizes: Sizes, rates: Rates, with_torch: bool) -> StepRow:
    """refnaf and, ``with_torch``, its peers in turn on the same numbers and rows."""
    made = _flow(cell.model, sizes)
    flow, network = made.replace({}, backend="cuda"), cases.network(made)
    n, steps = cell.batch or sizes.scored, sizes.steps if cell.batch else 1
    rows = cases.rows(n, sizes.dim, "float32")
    own, right = _training(flow, rows, steps) if cell.batch else _scoring(flow, rows)

    def make(device_torch: Any, peer: str) -> tuple[Candidate, list[np.ndarray]]:
        if cell.batch:
            return device_torch.training(peer, network, rows, steps)
        return device_torch.scoring(peer, network, rows, sizes.chunk)

    for _ in range(sizes.warm):
        own.run()
    peers, failed = _peers(make, right, sizes.warm) if with_torch else ([], {})
    times = interleaved([own, *peers], sizes.seconds, sizes.rounds)
    madds = sum(mask.size for mask in network.masks) * n * (3 if cell.batch else 1)
    return StepRow(
        "training step" if cell.batch else "scoring",
        cell.model,
        n,
        {name: timed.seconds / steps for name, timed in times.items()},
        2 * madds / rates.products,
        failed,
    )


def release() -> None:
    """Let go of what a cell's peers have left."""
    importlib.import_module("device_torch").release()
