"""Which known mistakes explain another implementation's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refnaf.flows import Flow
from refnaf.verify.compare_tensor import TOLERANCES, Tensor
from refnaf.verify.signatures import SIGNATURES, Signature
from refnaf.verify.signatures_mistakes import Case, Given
from refnaf.verify.signatures_numbers import worst
from refnaf.verify.signatures_steps import Inputs, Outputs, Run, steps_of

#: Rows on which hypotheses are tried before all rows decide: the worst, and some evenly spread.
ROWS = 8
#: A hypothesis must leave at most this part of the error that the right model leaves.
PART = 0.1
#: Errors below this multiple of the tolerance count as equally close.
CLOSE = 0.01
#: How many causes are named.
MOST = 4


@dataclass(frozen=True)
class Cause:
    """A mistake that explains the numbers: its name, what is particular, the remedy, and how close it comes.

    ``closeness`` is the largest error left, as a multiple of ``rtol``'s tolerance.
    """

    name: str
    detail: str
    remedy: str
    closeness: float
    rtol: float

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.name}{detail}. {self.remedy}"


def causes(flow: Flow, inputs: Inputs, ordinary: np.ndarray, tensors: Mapping[str, Tensor]) -> list[Cause]:
    """The known mistakes that explain all tensors that depart, closest first.

    ``ordinary`` marks the rows ``(N,)`` that are neither far out nor corner cases: predictions are judged on them.
    Predicted outputs must lie within
    their tolerance, and where the right ones lie 10 times farther off; where none does so in float64's, float32's is
    tried.
    """
    departing = [t for t in tensors.values() if not t.agrees()]
    given = Given(tensors, departing, ordinary, flow.masks())
    found = _tested(given)
    if all(SIGNATURES[index].last_resort for index, _ in found):
        found += _Search(flow, inputs, given).explained()
    found.sort(key=lambda f: (f[1].rtol, max(f[1].closeness, CLOSE), f[0]))
    best: dict[str, tuple[int, Cause]] = {}
    for index, cause in found:
        best.setdefault(cause.name, (index, cause))
    kept = [c for i, c in best.values() if not SIGNATURES[i].last_resort] or [c for _, c in best.values()]
    return kept[:MOST]


def _tested(given: Given) -> list[tuple[int, Cause]]:
    found = []
    for index, signature in enumerate(SIGNATURES):
        fit = signature.test(given) if signature.test is not None else None
        if fit is not None:
            found.append((index, Cause(signature.name, fit[0], signature.remedy, fit[1], given.departing[0].rtol)))
    return found


class _Search:
    """Predictions tried on the rows that say most, and confirmed on all ordinary ones."""

    def __init__(self, flow: Flow, inputs: Inputs, given: Given) -> None:
        self.steps, self.inputs = steps_of(flow), inputs
        departing = [
            t
            for t in given.departing
            if t.name.startswith(("layers/", "inverse/", "z", "log"))
            and t.theirs.ndim
            and worst(t, t.expected[given.rows(t)], given.rows(t)) > 1
        ]
        self.backwards = [t for t in departing if t.name.startswith("inverse/")]
        self.forwards = [t for t in departing if not t.name.startswith("inverse/")]
        layers = [int(t.name.split("/")[1]) for t in self.forwards if t.name.startswith("layers/")]
        self.layer = min(layers, default=None)
        # without the layers' outputs every layer would have to be tried, and those of IAF take long
        self.alone = bool(layers) or not any(step.layer.kind == "inverse" for step in self.steps)
        rows = np.flatnonzero(given.ordinary)
        self.few, self.all = self._part(_telling(self.forwards, rows)), self._part(rows)

    def _part(self, rows: np.ndarray) -> _Part:
        inputs, everything = self.inputs, slice(None)
        z, z_context = (inputs.z, inputs.z_context) if self.backwards else (None, None)
        context = None if inputs.context is None else inputs.context[rows]
        their_z = next((t.theirs[rows] for t in self.forwards if t.name == "z"), None)
        mine = Inputs(inputs.x[rows], context, z, z_context)
        case = Case(self.steps, mine, Run(self.steps, mine), layer=self.layer, z=their_z)
        return _Part(case, [(t, rows) for t in self.forwards] + [(t, everything) for t in self.backwards])

    def explained(self) -> list[tuple[int, Cause]]:
        """Causes with the number of their signature: of mistakes in all layers, or else of those in a single one."""
        if not self.few.targets or not self.few.reproduced():
            return []
        for alone in (False, True) if self.alone else (False,):
            found = []
            for index, signature in enumerate(SIGNATURES):
                for detail, outputs in _variants(signature, replace(self.few.case, alone=alone)):
                    if self.few.left(outputs) is not None:
                        found += [(index, cause) for cause in self._confirmed(signature, detail, alone)]
            precise = [f for f in found if f[1].rtol < TOLERANCES["float32"]]
            if found:
                return precise or found
        return []

    def _confirmed(self, signature: Signature, detail: str, alone: bool) -> list[Cause]:
        for said, outputs in _variants(signature, replace(self.all.case, alone=alone, detail=detail)):
            left = self.all.left(outputs) if said == detail else None
            if left is not None:
                return [Cause(signature.name, detail, signature.remedy, *left)]
        return []


def _variants(signature: Signature, case: Case) -> Iterator[tuple[str, Outputs]]:
    return iter(()) if signature.predict is None else signature.predict(case)


@dataclass(frozen=True)
class _Part:
    """Some rows, and the tensors that depart there."""

    case: Case
    targets: list[tuple[Tensor, np.ndarray | slice]]

    def reproduced(self) -> bool:
        """Whether this version finds what the vectors say; where it does not, its predictions are worth nothing."""
        for tensor, rows in self.targets:
            own = replace(tensor, theirs=tensor.expected, dtype=np.dtype(np.float64), rtol=1e-7, atol=1e-7)
            if tensor.name not in self.case.right or worst(own, self.case.right[tensor.name], rows) > 1:
                return False
        return True

    def left(self, outputs: Outputs) -> tuple[float, float] | None:
        """The largest error that a hypothesis leaves and the relative tolerance that it is a multiple of, where it
        explains every tensor: to their dtype's tolerance, or else to float32's."""
        tolerances: list[str | None] = [None, "float32"]
        largest = dict.fromkeys(tolerances, 0.0)
        explains = dict.fromkeys(tolerances, False)
        for tensor, rows in self.targets:
            if tensor.name not in outputs or np.isfinite(tensor.theirs[rows]).mean() < 0.5:
                return None
            for dtype in list(tolerances):
                own = tensor.at(dtype) if dtype and tensor.rtol < TOLERANCES[dtype] else tensor
                before, left = (worst(own, values, rows) for values in (tensor.expected[rows], outputs[tensor.name]))
                if left > 1 or (before > 1 and left > PART * before):
                    tolerances.remove(dtype)
                largest[dtype], explains[dtype] = max(largest[dtype], left), explains[dtype] or before > 1
            if not tolerances:
                return None
        rtol = self.targets[0][0].rtol
        for dtype in tolerances:
            if explains[dtype]:
                return largest[dtype], rtol if dtype is None else max(rtol, TOLERANCES[dtype])
        return None


def _telling(tensors: Sequence[Tensor], rows: np.ndarray) -> np.ndarray:
    """At most ROWS of the rows: those where the tensors are farthest off, and some spread evenly."""
    if len(rows) <= ROWS or not tensors:
        return rows[:ROWS] if not tensors else rows
    off = np.zeros(len(rows))
    for tensor in tensors:
        each = np.nan_to_num(tensor.scaled(tensor.expected[rows], rows), nan=0.0, posinf=0.0)
        off = np.maximum(off, each.reshape(len(rows), -1).max(axis=1))
    chosen = {*np.argsort(-off)[: ROWS // 2].tolist(), *np.linspace(0, len(rows) - 1, ROWS // 2).astype(int).tolist()}
    return rows[sorted(chosen)]
