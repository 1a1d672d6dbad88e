"""How the entries of :mod:`refnaf.verify.signatures` are made: what a mistake in steps or outputs would give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refnaf.flows.fixed import Standardise
from refnaf.flows.inverse import Inverse
from refnaf.verify.compare_tensor import Tensor
from refnaf.verify.signatures_changes import Change
from refnaf.verify.signatures_steps import Inputs, Outputs, Run, Step, summed


@dataclass(frozen=True)
class Case:
    """The right flow, rows to run it on, and what it gives. ``alone``: mistakes are planted into single layers, into
    that one where ``layer`` is a number; ``detail``: only the variant of which that is said; ``z``: theirs, where it
    departs, by which flows of IAF's direction are sifted."""

    steps: Sequence[Step]
    inputs: Inputs
    right: Outputs
    alone: bool = False
    layer: int | None = None
    detail: str | None = None
    z: np.ndarray | None = None


@dataclass(frozen=True)
class Given:
    """All tensors that were compared, those that depart, which rows are ordinary ones, and the parameters' masks."""

    tensors: Mapping[str, Tensor]
    departing: Sequence[Tensor]
    ordinary: np.ndarray
    masks: Mapping[str, np.ndarray]

    def rows(self, tensor: Tensor) -> np.ndarray | slice:
        """The rows of a tensor that no formula should find hard."""
        return self.ordinary if tensor.theirs.ndim and len(tensor.theirs) == len(self.ordinary) else slice(None)


#: What is said beside the name, and the outputs the mistake would give.
Prediction = Callable[[Case], Iterator[tuple[str, Outputs]]]


def stepwise(variants: Iterable[tuple[str, Change]]) -> Prediction:
    """A mistake that changes steps: all that can have it, or one of them."""
    kept = list(variants)

    def predict(case: Case) -> Iterator[tuple[str, Outputs]]:
        for detail, change in kept:
            changed = {k: new for k, step in enumerate(case.steps) if (new := change(step)) is not None}
            for said, which in _choices(case, detail, changed):
                steps = [changed[k] if k in which else step for k, step in enumerate(case.steps)]
                if _possible(case, steps):
                    yield said, Run(steps, case.inputs, case.right, min(which))

    return predict


def _possible(case: Case, steps: Sequence[Step]) -> bool:
    """Whether their z may come from those steps. The density of IAF needs roots; from z back to x is one pass."""
    if case.z is None or not any(isinstance(step.layer, Inverse) for step in steps):
        return True
    rows = np.isfinite(case.z).all(axis=1)
    context = None if case.inputs.context is None else case.inputs.context[rows]
    back = Run(steps, Inputs(case.inputs.x, z=case.z[rows], z_context=context))["inverse/x"]
    off = np.abs(back - case.inputs.x[rows]) / (1 + np.abs(case.inputs.x[rows]))
    return bool(rows.any() and np.median(np.max(off, axis=1)) < 1e-2)


#: The log-determinant ``(N,)`` that a step is mistaken to have, or None where it cannot have the mistake.
Logdet = Callable[[Step, np.ndarray], np.ndarray | None]


def but_standardise(change: Logdet) -> Logdet:
    """The mistake in all layers but the standardisation."""
    return lambda step, logdet: None if isinstance(step.layer, Standardise) else change(step, logdet)


def logdets(variants: Iterable[tuple[str, Logdet]]) -> Prediction:
    """A mistake in log-determinants alone: of all layers, or of one."""
    kept = list(variants)

    def predict(case: Case) -> Iterator[tuple[str, Outputs]]:
        for detail, change in kept:
            found = {k: change(step, case.right[f"layers/{k}/logdet"]) for k, step in enumerate(case.steps)}
            changed = {k: new for k, new in found.items() if new is not None}
            for said, which in _choices(case, detail, changed):
                yield said, summed(case.right, {k: changed[k] for k in which})

    return predict


def _choices(case: Case, detail: str, changed: Mapping[int, object]) -> Iterator[tuple[str, set[int]]]:
    if not case.alone:
        choices = [(detail, set(changed))] if changed else []
    else:
        each = [k for k in changed if case.layer in (None, k)] if len(changed) > 1 else []
        choices = [(f"{detail}, layer {k} alone".removeprefix(", "), {k}) for k in each]
    yield from (choice for choice in choices if case.detail in (None, choice[0]))


def both(*predictions: Prediction) -> Prediction:
    """All variants of several predictions."""

    def predict(case: Case) -> Iterator[tuple[str, Outputs]]:
        for prediction in predictions:
            yield from prediction(case)

    return predict


def outputs(change: Callable[[Case], Iterable[tuple[str, Outputs]]]) -> Prediction:
    """A mistake in what is made of the right layers."""

    def predict(case: Case) -> Iterator[tuple[str, Outputs]]:
        if not case.alone:
            with np.errstate(all="ignore"):
                yield from change(case)

    return predict


# outputs


def base_densities(case: Case) -> Iterator[tuple[str, Outputs]]:
    """log p from other densities of the base."""
    z, logdet = case.right["z"], case.right["logdet"]
    dim, square, log_2pi = z.shape[1], 0.5 * np.sum(z * z, axis=1), np.log(2 * np.pi)
    found = {
        "no -D/2 log 2 pi": -square,
        "-1/2 log 2 pi for one dimension": -square - 0.5 * log_2pi,
        "no 1/2 before z^2": -2 * square - 0.5 * dim * log_2pi,
        "left out": 0 * square,
        "logistic": -np.sum(np.abs(z) + 2 * np.log1p(np.exp(-np.abs(z))), axis=1),
    }
    for name, variance in {"e": np.e, "2": 2.0, "4": 4.0, "e^2": np.e**2, "1/e": 1 / np.e, "1/2": 0.5}.items():
        found[f"variance {name}"] = -square / variance - 0.5 * dim * (log_2pi + np.log(variance))
    for detail, base in found.items():
        yield detail, {**case.right, "log_prob": base + logdet}


def swapped(case: Case) -> Iterator[tuple[str, Outputs]]:
    """The whole flow run the other way."""
    back = Run(case.steps, Inputs(case.inputs.x, z=case.inputs.x, z_context=case.inputs.context))
    z, logdet = back["inverse/x"], back["inverse/logdet"]
    base = case.right["log_prob"] - case.right["logdet"]
    base = base + 0.5 * np.sum(case.right["z"] ** 2 - z**2, axis=1)
    out = {"z": z, "logdet": logdet, "log_prob": base + logdet}
    if case.inputs.z is not None:
        there = Run(case.steps, Inputs(case.inputs.z, case.inputs.z_context))
        out |= {"inverse/x": there["z"], "inverse/logdet": there["logdet"]}
    yield "", out


def only_layer(case: Case) -> Iterator[tuple[str, Outputs]]:
    """The log-determinant of one layer passed as that of the flow."""
    right = case.right
    for k in range(len(case.steps)):
        part = right[f"layers/{k}/logdet"]
        yield f"layer {k}", {**right, "logdet": part, "log_prob": right["log_prob"] - right["logdet"] + part}


def scaled_by(*factors: tuple[str, Callable[[int], float]]) -> Callable[[Case], Iterator[tuple[str, Outputs]]]:
    """Log-determinants, the base's log-density, or log p multiplied by a number that the dimension gives."""

    def change(case: Case) -> Iterator[tuple[str, Outputs]]:
        right, dim = case.right, case.inputs.x.shape[1]
        base = right["log_prob"] - right["logdet"]
        for detail, factor in factors:
            f = factor(dim)
            scaled = {name: f * a for name, a in right.items() if name.endswith("logdet")}
            yield detail, {**right, **scaled, "log_prob": f * right["log_prob"]}
            yield f"{detail}, the log-determinant", {**right, **scaled, "log_prob": base + f * right["logdet"]}
            yield f"{detail}, the base's log-density", {**right, "log_prob": f * base + right["logdet"]}

    return change


def signs(case: Case) -> Iterator[tuple[str, Outputs]]:
    """log p negated, as a loss is."""
    yield "", {**case.right, "log_prob": -case.right["log_prob"]}


def one_permutation_more(case: Case) -> Iterator[tuple[str, Outputs]]:
    """The base's dimensions in reversed order."""
    yield "one too many, at the end", {**case.right, "z": case.right["z"][:, ::-1]}
