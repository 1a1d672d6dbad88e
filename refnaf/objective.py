"""What training minimises, in nats, with its gradient: the mean negative log-likelihood of a batch, or the free energy.

The free energy needs samples of the flow and the gradient of a log-density in place of data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnaf import ops as operations
from refnaf.flows import chain
from refnaf.flows.flow import Flow
from refnaf.parallel import Workers
from refnaf.reference.variational import free_energy, sample_log_prob

#: Rows that are differentiated together: between these, and a batch in as many parts. By the batch and the model alone,
#: so that sums do not depend on the number of threads. Each part has gradients of its own: of a large model, few.
FEWEST_ROWS, MOST_ROWS = 128, 256
PARTS, PARTS_OF_LARGE, LARGE = 4, 2, 1_000_000
#: Numbers of a gradient that are added up together.
SUMMED = 1 << 17


#: x ``(N, D)`` to a log-density ``(N,)`` and its gradient ``(N, D)``.
LogDensity = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Objective:
    """A mean over a batch and its gradient, as functions of one flat vector of parameters.

    The batch is cut into chunks of fixed size that plain threads share; each chunk has its own buffers, and the sums
    are taken in order: the bits do not depend on ``threads``.
    """

    def __init__(self, flow: Flow, threads: int = 1) -> None:
        self.flow = flow
        self.shapes = {name: array.shape for name, array in flow.params.items()}
        self.size = sum(array.size for array in flow.params.values())
        self.dtype = flow.dtype
        self.workers = Workers(threads)
        self._sums = operations.optimiser(flow.backend)
        self._ops: list[operations.ArrayOps] = []
        self._grads: list[np.ndarray] = []
        self._views: list[list[dict[str, np.ndarray]]] = []

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

    def _start(self, flat: np.ndarray, rows: int) -> tuple[list[dict[str, Any]], list[slice]]:
        """The layers' parameters, and the chunks of a batch, with buffers for each."""
        parts = PARTS if self.size < LARGE else PARTS_OF_LARGE
        step = min(max(-(-rows // parts), FEWEST_ROWS), MOST_ROWS)
        chunks = [slice(start, start + step) for start in range(0, rows, step)]
        while len(self._ops) < len(chunks):
            self._ops.append(operations.make(self.flow.backend))
            self._grads.append(np.zeros(self.size, self.dtype))
            self._views.append(self.flow.layer_params(self.views(self._grads[-1])))
        return self.flow.layer_params(self.views(flat)), chunks

    def _room(self, index: int) -> list[dict[str, np.ndarray]]:
        """A chunk's gradients, layer by layer: views of its flat vector."""
        return [dict(views) for views in self._views[index]]

    def _keep(self, index: int, grads: Sequence[dict[str, np.ndarray]]) -> None:
        """Put those of a chunk's gradients that were not written there into its flat vector."""
        for views, layer_grads in zip(self._views[index], grads, strict=True):
            for name, array in layer_grads.items():
                if array is not views[name]:
                    views[name][...] = array

    def _mean(self, chunks: int, rows: int) -> np.ndarray:
        """The gradients of so many chunks in one vector, over the number of rows."""
        grad, others = self._grads[0], self._grads[1:chunks] or [np.zeros(0, self.dtype)]

        def gather(part: slice) -> None:
            for k, other in enumerate(others):
                self._sums.gather(grad[part], other[part], 1 / rows if k == len(others) - 1 else 1.0)

        self.workers.map(gather, [(slice(start, start + SUMMED),) for start in range(0, self.size, SUMMED)])
        return grad

    def close(self) -> None:
        """Stop the threads."""
        self.workers.close()


class NegativeLogLikelihood(Objective):
    """``-mean log p(x)`` over the rows of a batch, and its gradient."""

    def _chunk(self, index: int, own: list[dict[str, Any]], x: np.ndarray, context: np.ndarray | None) -> float:
        ops = self._ops[index]
        ops.workspace.reset()
        c = self.flow.standard_context(None if context is None else np.ascontiguousarray(context.T))
        with np.errstate(all="ignore"):
            log_prob, _, _, grads = chain.log_prob_vjp(
                self.flow.layers, own, ops, np.ascontiguousarray(x.T), c, -1.0, self._room(index)
            )
        self._keep(index, grads)
        return -float(np.sum(log_prob))

    def __call__(self, flat: np.ndarray, x: np.ndarray, context: np.ndarray | None) -> tuple[float, np.ndarray]:
        """The mean over the rows of x ``(N, D)`` and its gradient ``(size,)``, which the next call overwrites."""
        own, chunks = self._start(flat, len(x))
        jobs = [(k, own, x[part], None if context is None else context[part]) for k, part in enumerate(chunks)]
        losses = self.workers.map(self._chunk, jobs)
        return sum(losses) / len(x), self._mean(len(chunks), len(x))


class _Drawn(NamedTuple):
    """A chunk of samples: x ``(D, n)``, log q ``(n,)``, its gradient in x or None, and what the VJP needs."""

    x: np.ndarray
    log_q: np.ndarray
    score: np.ndarray | None
    images: list[Any]


class FreeEnergy(Objective):
    """``E_q[log q(x) - beta log p(x)]`` over samples ``x = f^-1(z)`` of a flow q, z standard normal, and its gradient.

    The variational free energy (Rezende and Mohamed 2015): at beta 1 the reverse KL divergence from an unnormalised p,
    less the log of its normaliser. Samples come from the base, so that the gradient goes through them. ``log_density``
    is p's; it is called with all samples of a batch at once, from the calling thread.

    With ``path`` the gradient is the path derivative of Roeder, Wu and Duvenaud 2017: the parameters inside ``log q``
    are held, which leaves out the score, a term of mean zero. Where q is p no sample has a gradient then; far from p,
    where q is narrow, its variance can be much larger.
    """

    def __init__(self, flow: Flow, log_density: LogDensity, threads: int = 1) -> None:
        super().__init__(flow, threads)
        self.log_density = log_density

    def _sample(self, index: int, own: list[dict[str, Any]], z: np.ndarray, path: bool) -> _Drawn:
        ops, layers = self._ops[index], self.flow.layers
        ops.workspace.reset()
        base = np.ascontiguousarray(z.T, dtype=self.dtype)
        with np.errstate(all="ignore"):
            x, logdet, _, images = chain.inverse(layers, own, ops, base, None)
            score = chain.inverse_score(layers, own, ops, images, None, base) if path else None
        return _Drawn(x, sample_log_prob(chain.base_log_prob(base), logdet), score, images)

    def _pull(self, index: int, own: list[dict[str, Any]], drawn: _Drawn, grad_x: np.ndarray) -> None:
        grad_logdet = np.full(grad_x.shape[1], -1.0)
        if drawn.score is not None:
            grad_x, grad_logdet = grad_x + drawn.score, 0 * grad_logdet
        ops, layers = self._ops[index], self.flow.layers
        with np.errstate(all="ignore"):
            self._keep(index, chain.inverse_vjp(layers, own, ops, drawn.images, None, grad_x, grad_logdet)[2])

    def __call__(
        self, flat: np.ndarray, z: np.ndarray, beta: float = 1.0, path: bool = False
    ) -> tuple[float, np.ndarray]:
        """The mean over base samples z ``(N, D)`` and its gradient ``(size,)``, which the next call overwrites."""
        own, chunks = self._start(flat, len(z))
        drawn = self.workers.map(self._sample, [(k, own, z[part], path) for k, part in enumerate(chunks)])
        log_p, slopes = self.log_density(np.ascontiguousarray(np.concatenate([d.x for d in drawn], axis=1).T))
        log_q = np.concatenate([d.log_q for d in drawn])
        with np.errstate(all="ignore"):
            pulls = [-beta * slopes[part].T for part in chunks]
            loss = float(free_energy(log_q, log_p, beta))
        self.workers.map(self._pull, [(k, own, drawn[k], pulls[k]) for k in range(len(chunks))])
        return loss, self._mean(len(chunks), len(z))


def mean_and_error(log_prob: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of nats and its standard error."""
    values = np.asarray(log_prob, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
