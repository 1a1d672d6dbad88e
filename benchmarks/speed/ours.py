"""refnaf itself: the transformers of a backend, the training step, scoring."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cases import Inputs
from threadpoolctl import ThreadpoolController
from timing import Candidate

from refnaf import ops as operations
from refnaf.flows.flow import Flow
from refnaf.objective import NegativeLogLikelihood
from refnaf.training.adam import Adam

NAME = "refnaf"


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> Any:
    """What training runs in: one thread of linear algebra for each of refnaf's."""
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


class _Part:
    """Some of the dimensions, as one thread runs them."""

    def __init__(self, backend: str, inputs: Inputs, theta: np.ndarray, dims: slice, backward: bool) -> None:
        # any, since the reference has no workspace: that backend is not timed
        self.ops: Any = operations.make(backend)
        self.ops.saving = backward
        self.inputs, self.dims, self.backward = inputs, dims, backward
        self.x, self.theta = inputs.x[dims], theta[dims]
        self.grads = inputs.grad_y[dims], inputs.grad_log_slope[dims]

    def run(self) -> list[Any]:
        self.ops.workspace.reset()
        inputs = self.inputs
        arguments = inputs.name, self.x, self.theta, inputs.shared, inputs.options
        y, log_slope, saved = self.ops.transform(*arguments, overwrite=True)
        if not self.backward:
            return [y, log_slope]
        grad_x, grad_theta, grad_shared = self.ops.transform_vjp(saved, *self.grads)
        return [y, log_slope, grad_x, grad_theta, *grad_shared]


def kernel(backend: str, inputs: Inputs, backward: bool, threads: int) -> Candidate:
    """A transformer on given inputs. Threads share the dimensions, each with operations of its own."""
    theta = inputs.theta.copy()
    edges = np.linspace(0, len(inputs.x), threads + 1).round().astype(int)
    parts = [_Part(backend, inputs, theta, slice(*edges[k : k + 2]), backward) for k in range(threads)]

    def prepare() -> None:
        np.copyto(theta, inputs.theta)  # which is overwritten, as in a flow

    def run() -> list[Any]:
        if threads == 1:
            return parts[0].run()
        found = list(_pool(threads).map(_Part.run, parts))
        apart = [Joined(arrays) for arrays in zip(*(arrays[:4] for arrays in found), strict=True)]
        return [*apart, *(sum(arrays[1:], arrays[0]) for arrays in zip(*(arrays[4:] for arrays in found), strict=True))]

    return Candidate(NAME, run, prepare, one_blas_thread)


class Joined:
    """Arrays of the parts, joined along the dimensions when they are looked at and not while the work is timed."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = parts

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.concatenate(self.parts).astype(dtype)


def training(flow: Flow, rows: np.ndarray, threads: int) -> Candidate:
    """A training step on rows ``(N, D)`` as fit takes it: gradient, and Adam with clipping and averaging."""
    objective = NegativeLogLikelihood(flow, threads)
    adam = Adam(objective.flat(), backend=flow.backend, workers=objective.workers)

    def run() -> list[Any]:
        loss, grad = objective(adam.flat, rows, None)
        adam.step(grad, 1e-4)
        return [loss]

    return Candidate(NAME, run, around=one_blas_thread)


def scoring(flow: Flow, rows: np.ndarray) -> Candidate:
    """Densities of rows ``(N, D)``."""
    return Candidate(NAME, lambda: [flow.log_prob(rows)])


def step_values(flow: Flow, rows: np.ndarray, threads: int) -> tuple[float, np.ndarray]:
    """Loss and gradient, for the comparison with the reference."""
    objective = NegativeLogLikelihood(flow, threads)
    with one_blas_thread():
        loss, grad = objective(objective.flat(), rows, None)
    objective.close()
    return loss, objective.whole(grad).copy()
