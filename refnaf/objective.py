"""What training minimises: the mean negative log-likelihood of a batch, in nats, with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from refnaf import ops as operations
from refnaf.flows import chain
from refnaf.flows.flow import Flow

#: Rows that are differentiated together. Fixed, so that sums do not depend on the number of threads.
ROWS = 256


class NegativeLogLikelihood:
    """``-mean log p(x)`` over a batch and its gradient, as functions of one flat vector of parameters.

    The batch is cut into chunks of fixed size that plain threads share; each chunk has its own buffers, and the sums
    are taken in order: the bits do not depend on ``threads``.
    """

    def __init__(self, flow: Flow, threads: int = 1) -> None:
        self.flow = flow
        self.shapes = {name: array.shape for name, array in flow.params.items()}
        self.size = sum(array.size for array in flow.params.values())
        self.dtype = flow.dtype
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._ops: list[operations.ArrayOps] = []
        self._grads: list[np.ndarray] = []

    def flat(self) -> np.ndarray:
        """The flow's own parameters as one vector ``(size,)`` of its dtype."""
        parts = [np.ravel(array) for array in self.flow.params.values()]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters by name, as views of a flat vector."""
        out, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + int(np.prod(shape))
            out[name] = flat[start:stop].reshape(shape)
            start = stop
        return out

    def _chunk(self, index: int, own: list[dict[str, Any]], x: np.ndarray, context: np.ndarray | None) -> float:
        ops, grad = self._ops[index], self._grads[index]
        ops.workspace.reset()
        c = self.flow.standard_context(None if context is None else np.ascontiguousarray(context.T))
        with np.errstate(all="ignore"):
            log_prob, _, _, grads = chain.log_prob_vjp(self.flow.layers, own, ops, np.ascontiguousarray(x.T), c, -1.0)
        named = self.views(grad)
        for k, layer_grads in enumerate(grads):
            for local, array in layer_grads.items():
                named[f"{k}.{local}"][...] = array
        return -float(np.sum(log_prob))

    def __call__(self, flat: np.ndarray, x: np.ndarray, context: np.ndarray | None) -> tuple[float, np.ndarray]:
        """The mean over the rows of x ``(N, D)`` and its gradient ``(size,)``, which the next call overwrites."""
        own = self.flow.layer_params(self.views(flat))
        starts = range(0, len(x), ROWS)
        while len(self._ops) < len(starts):
            self._ops.append(operations.ArrayOps())
            self._grads.append(np.zeros(self.size, self.dtype))
        jobs = [
            (k, own, x[s : s + ROWS], None if context is None else context[s : s + ROWS]) for k, s in enumerate(starts)
        ]
        if self._pool is None or len(jobs) == 1:
            losses = [self._chunk(*job) for job in jobs]
        else:
            losses = list(self._pool.map(lambda job: self._chunk(*job), jobs))
        grad = self._grads[0]
        for other in self._grads[1 : len(jobs)]:
            grad += other
        grad *= self.dtype.type(1 / len(x))
        return sum(losses) / len(x), grad

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def mean_and_error(log_prob: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of nats and its standard error."""
    values = np.asarray(log_prob, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
