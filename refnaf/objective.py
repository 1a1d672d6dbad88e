"""What training minimises, in nats, with its gradient: the mean negative log-likelihood of a batch, or the free energy.

The free energy needs samples of the flow and the gradient of a log-density in place of data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refnaf import ops as operations
from refnaf import ops_backends as backends
from refnaf.flows import chain
from refnaf.flows.flow import Flow
from refnaf.objective_room import Room, spare, views, whole
from refnaf.parallel import Order, Workers
from refnaf.reference.variational import free_energy, sample_log_prob

#: A batch is differentiated in as many parts, of as many rows as a backend wants: by the batch and the backend alone,
#: so that sums do not depend on the number of threads. Each part costs its calls, between which only one thread runs,
#: and a pass over the gradient.
PARTS = 2


#: x ``(N, D)`` to a log-density ``(N,)`` and its gradient ``(N, D)``.
LogDensity = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Objective:
    """A mean over a batch and its gradient, as functions of one flat vector of parameters.

    The batch is cut into chunks of fixed size that plain threads share. Each chunk adds a layer's gradient to the one
    there is as soon as the chunk before has: the sums are taken in order, and their bits do not depend on ``threads``.
    """

    #: Whether masked weights are packed, where the backend can: where layers are run forwards alone.
    packs = False

    def __init__(self, flow: Flow, threads: int = 1) -> None:
        self.flow = flow
        self._packings = self._find_packings() if self.packs else {}
        self.shapes = {
            name: (self._packings[name].size,) if name in self._packings else array.shape
            for name, array in flow.params.items()
        }
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        self.dtype = flow.dtype
        self.workers = Workers(threads)
        self._sums = operations.optimiser(flow.backend)
        self._ops: list[operations.ArrayOps] = []
        self._rooms: list[list[Room]] = []
        self._order = Order(len(flow.layers))

    def _find_packings(self) -> dict[str, Any]:
        ops, dtype = operations.make(self.flow.backend), self.flow.dtype
        found = enumerate(layer.packings(ops, dtype) for layer in self.flow.layers)
        return {f"{k}.{name}": packing for k, own in found for name, packing in own.items()}

    def flat(self) -> Any:
        """The flow's own parameters as one vector ``(size,)`` of its dtype, where its backend computes."""
        return self.put(self._stored(self.flow.params))

    def _stored(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        arrays = [(self._packings.get(name), params[name]) for name in self.shapes]
        parts = [np.ravel(array) if packing is None else packing.pack(array) for packing, array in arrays]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)

    def put(self, array: np.ndarray) -> Any:
        """An array where the flow's backend computes."""
        return operations.make(self.flow.backend).put(array)

    def params(self, flat: Any) -> dict[str, np.ndarray]:
        """Parameters (or a gradient) by name, in the host's memory and shaped as the flow's, from a flat vector."""
        views = self.views(operations.make(self.flow.backend).get(flat))
        return {name: self._packings[name].unpack(a) if name in self._packings else a for name, a in views.items()}

    def whole(self, flat: np.ndarray) -> np.ndarray:
        """A flat vector on the host as one of whole arrays: what a run on any machine can go on from."""
        return np.concatenate([np.ravel(array) for array in self.params(flat).values()]) if self._packings else flat

    def stored(self, whole: np.ndarray) -> np.ndarray:
        """The opposite of :meth:`whole`."""
        shapes = {name: array.shape for name, array in self.flow.params.items()}
        return self._stored(views(whole, shapes)) if self._packings else whole

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters by name, as views of a flat vector: vectors where they are packed."""
        return views(flat, self.shapes)

    def _start(self, flat: np.ndarray, rows: int) -> tuple[list[dict[str, Any]], list[slice]]:
        """The layers' parameters, and the chunks of a batch, with buffers for each."""
        fewest, most = backends.chunk_rows(self.flow.backend)
        step = min(max(-(-rows // PARTS), fewest), most)
        chunks = [slice(start, start + step) for start in range(0, rows, step)]
        while len(self._ops) < len(chunks):
            ops = operations.make(self.flow.backend)
            self._ops.append(ops)
            shapes = self.flow.layer_params(self.shapes)
            again = bool(self._rooms)
            made = spare(self.flow.layers, shapes, self.dtype) if again else whole(shapes, self.dtype, ops.put)
            self._rooms.append(made)
        # a batch of one chunk is shared inside of its operations
        for ops in self._ops:
            ops.workspace.workers = self.workers if len(chunks) == 1 and self.workers.threads > 1 else None
        self._order.begin()
        return self.flow.layer_params(self.views(flat)), chunks

    def _take(self, chunk: int, layer: int, grads: dict[str, Any]) -> None:
        """Add a chunk's gradient of a layer to those of the chunks before."""
        room = self._rooms[chunk][layer]
        room.keep(grads)
        with self._order.turn(layer, chunk):
            if chunk:
                self._sums.gather(self._rooms[0][layer].flat, room.flat)

    def _grads(self, chunk: int) -> list[dict[str, np.ndarray]]:
        """Arrays for a chunk's gradients, layer by layer."""
        return [dict(room.views) for room in self._rooms[chunk]]

    def _run(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The function of each chunk's arguments by the threads; an error in one is not waited for by the others."""

        def guarded(*job: Any) -> Any:
            try:
                with np.errstate(all="ignore"):
                    return function(*job)
            except BaseException:
                self._order.give_up()
                raise

        return self.workers.map(guarded, jobs)

    def _gradient(self) -> np.ndarray:
        """The chunks' sum ``(size,)``."""
        return self._rooms[0][0].vector

    def close(self) -> None:
        """Stop the threads."""
        self.workers.close()


class NegativeLogLikelihood(Objective):
    """``-mean log p(x)`` over the rows of a batch, and its gradient."""

    packs = True

    def _chunk(
        self, index: int, own: list[dict[str, Any]], x: np.ndarray, context: np.ndarray | None, share: float
    ) -> Any:
        ops = self._ops[index]
        ops.workspace.reset()
        c = self.flow.standard_context(None if context is None else context.T.copy(), ops)
        log_prob, *_ = chain.log_prob_vjp(
            self.flow.layers,
            own,
            ops,
            x.T.copy(),
            c,
            -share,
            self._grads(index),
            partial(self._take, index),
        )
        return -np.sum(log_prob)

    def __call__(self, flat: np.ndarray, x: np.ndarray, context: np.ndarray | None) -> tuple[Any, np.ndarray]:
        """The mean over the rows of x ``(N, D)`` and its gradient ``(size,)``, which the next call overwrites.

        Both stay on a device that computed them: nothing waits for it.
        """
        own, chunks = self._start(flat, len(x))
        share = 1 / len(x)
        jobs = [(k, own, x[part], None if context is None else context[part], share) for k, part in enumerate(chunks)]
        return sum(self._run(self._chunk, jobs)) * share, self._gradient()


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
        x, logdet, _, images = chain.inverse(layers, own, ops, base, None)
        score = chain.inverse_score(layers, own, ops, images, None, base) if path else None
        return _Drawn(x, sample_log_prob(chain.base_log_prob(base), logdet), score, images)

    def _pull(self, index: int, own: list[dict[str, Any]], drawn: _Drawn, grad_x: np.ndarray, share: float) -> None:
        grad_logdet = np.full(grad_x.shape[1], -share)
        if drawn.score is not None:
            grad_x, grad_logdet = grad_x + drawn.score, 0 * grad_logdet
        grad_x = grad_x * grad_x.dtype.type(share)
        ops, layers, take = self._ops[index], self.flow.layers, partial(self._take, index)
        chain.inverse_vjp(layers, own, ops, drawn.images, None, grad_x, grad_logdet, self._grads(index), take)

    def __call__(
        self, flat: np.ndarray, z: np.ndarray, beta: float = 1.0, path: bool = False
    ) -> tuple[float, np.ndarray]:
        """The mean over base samples z ``(N, D)`` and its gradient ``(size,)``, which the next call overwrites."""
        own, chunks = self._start(flat, len(z))
        drawn = self._run(self._sample, [(k, own, z[part], path) for k, part in enumerate(chunks)])
        log_p, slopes = self.log_density(np.ascontiguousarray(np.concatenate([d.x for d in drawn], axis=1).T))
        log_q = np.concatenate([d.log_q for d in drawn])
        with np.errstate(all="ignore"):
            pulls = [-beta * slopes[part].T for part in chunks]
            loss = float(free_energy(log_q, log_p, beta))
        self._run(self._pull, [(k, own, drawn[k], pulls[k], 1 / len(z)) for k in range(len(chunks))])
        return loss, self._gradient()


def mean_and_error(log_prob: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of nats and its standard error."""
    values = np.asarray(log_prob, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
