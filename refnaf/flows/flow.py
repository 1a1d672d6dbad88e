"""A flow: layers, their numbers, and everything one asks of a density."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnaf import ops as operations
from refnaf import ops_backends as backends
from refnaf.flows import chain
from refnaf.flows.fixed import Standardise
from refnaf.flows.layer import Layer, is_final
from refnaf.flows.registry import layer_from_config, layer_to_config
from refnaf.parallel import Workers, default_threads, serial_algebra

#: Rows of a chunk of an inverse, which makes the pseudo-parameters of one dimension at a time.
INVERSE_CHUNK = 1024


class Flow:
    """A normalising flow between data x ``(N, D)`` and standard normal noise z ``(N, D)``.

    Rows are samples. Whatever the dtype of the flow's numbers (``dtype``), x, z and nats come and go in float64, in the
    units of the raw data. Every method that takes ``context`` ``(N, C)`` needs it where ``context_dim`` is not 0, and
    refuses it elsewhere. Wrong shapes and rows that are not finite raise ValueError.

    A Flow does not change: :meth:`replace` makes another with other numbers. ``backend`` is "numba" (compiled kernels;
    the default where it is installed), "numpy" (nothing else is imported) or "cuda" (an NVIDIA GPU, which has affine,
    DSF, DDSF and mixture layers); ``threads`` share the chunks of many rows, by default as many as there are cores and
    at most 4. The numbers do not depend on the threads, and on the backend only in their last digits. ImportError is
    raised where this machine cannot run a backend, ValueError where a backend has no kernels for a layer.
    """

    def __init__(
        self,
        layers: list[Layer],
        params: Mapping[str, np.ndarray],
        *,
        model: str,
        dtype: str | np.dtype = "float32",
        backend: str | None = None,
        threads: int | None = None,
        history: list[dict[str, Any]] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(layers[0], Standardise):
            raise ValueError(f"the first layer of a flow must be a Standardise layer, not {type(layers[0]).__name__}")
        backend = backend or backends.default_backend()
        backends.check(backend)
        backends.check_layers(backend, layers)
        layers = [layers[0].astype(dtype), *layers[1:]]
        self.layers, self.model, self.backend, self.threads = layers, model, backend, default_threads(threads)
        self.dim, self.context_dim = layers[0].dim, layers[0].context_dim
        self.dtype = np.dtype(dtype)
        self.history, self.provenance = list(history or []), dict(provenance or {})
        self._outside: dict[str, np.ndarray] = {}
        self.params = MappingProxyType(self._checked(params))
        width = max([self.dim, *(max((s[0] for s in layer.shapes().values()), default=1) for layer in layers)])
        self._chunk = backends.scored_rows(backend, width)
        self._placed: Any = None

    # numbers

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{k}.{name}": shape for k, layer in enumerate(self.layers) for name, shape in layer.shapes().items()}

    def masks(self) -> dict[str, np.ndarray]:
        """0/1 masks of those parameters that have one, by name; entries outside are zero and not parameters."""
        return {f"{k}.{name}": mask for k, layer in enumerate(self.layers) for name, mask in layer.masks().items()}

    def _checked(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes, masks = self._shapes(), self.masks()
        if set(params) != set(shapes):
            odd = sorted(set(params) ^ set(shapes))
            raise ValueError(f"the parameters' names do not fit this flow: {', '.join(odd[:5])} missing or unknown")
        out = {}
        for name, shape in shapes.items():
            array = params[name]
            if np.shape(array) != shape:
                raise ValueError(f"parameter {name} must have shape {shape}, got {np.shape(array)}")
            if not is_final(array, self.dtype, masks.get(name)):
                array = np.array(array, dtype=self.dtype, order="C")
                if name in masks:
                    array *= masks[name]
                array.setflags(write=False)
            out[name] = array
        return out

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        """Fixed numbers (standardisation), by name."""
        found = {f"{k}.{name}": array for k, layer in enumerate(self.layers) for name, array in layer.buffers.items()}
        return MappingProxyType(found)

    @property
    def n_params(self) -> int:
        """How many numbers are free: masked entries are not counted."""
        masks = self.masks()
        return sum(int(masks[n].sum()) if n in masks else int(np.prod(s)) for n, s in self._shapes().items())

    @property
    def config(self) -> dict[str, Any]:
        """What, with the parameters and buffers, makes the flow again; JSON-able."""
        return {
            "model": self.model,
            "dim": self.dim,
            "context_dim": self.context_dim,
            "dtype": self.dtype.name,
            "layers": [layer_to_config(layer) for layer in self.layers],
        }

    def replace(self, params: Mapping[str, np.ndarray], **changes: Any) -> Flow:
        """A new flow with other numbers for the named parameters; ``changes`` are keyword arguments of Flow.

        Raises ValueError for an unknown name or a wrong shape.
        """
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            raise ValueError(f"this flow has no parameter {unknown[0]}; flow.params lists them")
        now = {"model": self.model, "dtype": self.dtype, "backend": self.backend, "threads": self.threads}
        now |= {"history": self.history, "provenance": self.provenance}
        return Flow(self.layers, {**self.params, **params}, **{**now, **changes})

    def astype(self, dtype: DTypeLike) -> Flow:
        """The same flow with its numbers, and its arithmetic, in another dtype."""
        config = {**self.config, "dtype": np.dtype(dtype).name}
        return _assemble(config, self.params, self.buffers, self.backend, self.threads, self.history, self.provenance)

    def _override(self, params: Mapping[str, Any] | None, dtype: np.dtype) -> Mapping[str, Any] | None:
        """Parameters given to a method in place of the flow's own: arrays of a dtype, zero outside their masks."""
        if params is None or params is self.params:
            return None
        if not self._outside:
            self._outside.update({name: mask == 0 for name, mask in self.masks().items()})
        for name, own in self.params.items():
            if name not in params:
                raise ValueError(f"params must hold every parameter of the flow: {name} is missing")
            if np.shape(params[name]) != own.shape:
                raise ValueError(f"parameter {name} must have shape {own.shape}, got {np.shape(params[name])}")
        given = {name: np.asarray(params[name], dtype) for name in self.params}
        for name, outside in self._outside.items():
            array = given[name]
            # the flow's own are clean; so, nearly always, are others, and to see it takes less than to make them so
            if array is not self.params[name] and np.logical_and(array, outside).any():
                given[name] = np.where(outside, array.dtype.type(0), array)
        return given

    def layer_params(self, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The parameters as a dict for each layer."""
        own: list[dict[str, Any]] = [{} for _ in self.layers]
        for name in self.params:
            index, local = name.split(".", 1)
            own[int(index)][local] = (self.params if params is None else params)[name]
        return own

    def _in_place(self, params: Mapping[str, Any] | None) -> Any:
        """The parameters as a dict for each layer, where the backend reads them: a device is sent its own once."""
        if params is not None:
            return backends.place(self.backend, self.layer_params(params))
        if self._placed is None:
            self._placed = backends.place(self.backend, self.layer_params())
        return self._placed

    # rows

    def standard_context(self, context: Any, ops: Any = None) -> Any:
        """A context ``(C, N)`` as the layers read it, or None; on a device by its operations."""
        first = self.layers[0]
        return None if context is None else first.context(context, ops)  # type: ignore[attr-defined]

    def _rows(self, x: Any, what: str, width: int) -> np.ndarray:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{what} must be real numbers, got dtype {array.dtype}; convert it to float first")
        if array.ndim == 1 and width == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(f"{what} must have shape (N, {width}) for this model, got {array.shape}")
        array = np.asarray(array, dtype=np.float64)
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            raise ValueError(f"{what} has {len(bad)} rows with NaN or inf (the first is row {bad[0]}); remove them")
        return array

    def _context(self, context: Any, n: int) -> np.ndarray | None:
        if self.context_dim == 0:
            if context is not None:
                raise ValueError("this model was built without a context: leave the context out")
            return None
        if context is None:
            raise ValueError(f"this model needs a context of shape (N, {self.context_dim}): pass context=")
        rows = self._rows(context, "the context", self.context_dim)
        if len(rows) == 1 and n != 1:
            rows = np.broadcast_to(rows, (n, self.context_dim))
        if len(rows) != n:
            raise ValueError(f"the context must have as many rows as the data ({n}), or one for all, got {len(rows)}")
        return rows

    def _parts(self, rows: int, inverse: bool = False) -> list[slice]:
        step = INVERSE_CHUNK if inverse else self._chunk
        return [slice(start, start + step) for start in range(0, rows, step)]

    def _chunks(self, x: np.ndarray, context: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray, Any]]:
        for part in self._parts(len(x)):
            yield part, *self._columns(x, context, part)

    def _columns(self, x: np.ndarray, context: np.ndarray | None, part: slice) -> tuple[np.ndarray, Any]:
        """Some rows, and their context, as the layers read them."""
        c = None if context is None else np.ascontiguousarray(context[part].T)
        return np.ascontiguousarray(x[part].T), self.standard_context(c)

    # densities

    def log_prob(self, x: Any, context: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """``log p(x)`` or ``log p(x | context)``: ``(N,)`` float64 nats.

        With ``params`` the flow's parameters are taken from there; entries outside a mask count as zero. Arguments
        traced by autograd are differentiated through the analytic chain.
        """
        from refnaf.flows import differentiable

        if differentiable.needed(x, context, params):
            return differentiable.log_prob(self, x, context, params)
        rows = self._rows(x, "x", self.dim)
        conditions = self._context(context, len(rows))
        return self._log_prob(rows, conditions, params)

    def _log_prob(self, rows: np.ndarray, context: np.ndarray | None, params: Any) -> np.ndarray:
        return self._map(rows, context, params, inverse=False)[2]

    def forward(self, x: Any, context: Any = None, params: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Data to base: z ``(N, D)`` and ``log|det dz/dx|`` ``(N,)`` in nats, float64."""
        from refnaf.flows import differentiable

        if differentiable.needed(x, context, params):
            return differentiable.forward(self, x, context, params)
        rows = self._rows(x, "x", self.dim)
        return self._map(rows, self._context(context, len(rows)), params, inverse=False)[:2]

    def inverse(
        self, z: Any, context: Any = None, params: Mapping[str, Any] | None = None, return_residual: bool = False
    ) -> Any:
        """Base to data: x ``(N, D)`` and ``log|det dx/dz|`` ``(N,)`` in nats, float64.

        With ``return_residual`` also the largest ``|f(x) - y|`` ``(N,)`` left by the root finding of any layer, in the
        units of that layer's output; it is a few units in the last place of y.
        """
        from refnaf.flows import differentiable

        if differentiable.needed(z, context, params):
            if return_residual:
                raise ValueError("return_residual=True cannot be combined with arguments traced by autograd")
            return differentiable.inverse(self, z, context, params)
        rows = self._rows(z, "z", self.dim)
        x, logdet, residual = self._map(rows, self._context(context, len(rows)), params, inverse=True)
        return (x, logdet, residual) if return_residual else (x, logdet)

    def _map(
        self, rows: np.ndarray, context: np.ndarray | None, params: Any, inverse: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Either direction by chunks. The third array is ``log p`` (forward) or the residual (inverse)."""
        own = self._in_place(self._override(params, self.dtype))
        out, logdet, third = np.empty((len(rows), self.dim)), np.empty(len(rows)), np.empty(len(rows))
        spare: list[Any] = []
        jobs = [(part,) for part in self._parts(len(rows), inverse)]
        workers = Workers(backends.workers(self.backend, self.threads))
        # a single chunk is shared inside of its operations
        inside = workers if len(jobs) == 1 and workers.threads > 1 else None

        def run(part: slice) -> None:
            # a thread takes the operations, and with them the buffers, that another has left
            try:
                ops = spare.pop()
            except IndexError:
                ops = operations.make(self.backend, own_stream=True)
            ops.saving, ops.workspace.workers = False, inside
            ops.workspace.reset()
            columns, conditions = self._columns(rows, context, part)
            # far out, float32 overflows
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"), ops.session():
                x, c = ops.put(columns), None if conditions is None else ops.put(conditions)
                if inverse:
                    image, slope, last, _ = chain.inverse(self.layers, own, ops, x.astype(self.dtype), c)
                else:
                    image, slope, _ = chain.forward(self.layers, own, ops, x, c)
                    last = chain.base_log_prob(image) + slope
                out[part], logdet[part], third[part] = ops.get(image).T, ops.get(slope), ops.get(last)
            spare.append(ops)

        # of one job as well: several threads of linear algebra round otherwise than one
        with closing(workers), serial_algebra():
            workers.map(run, jobs)
        if self.dtype != np.float64:
            # far out, float32 overflows; those rows are done again in float64
            lost = ~(np.isfinite(out).all(axis=1) & np.isfinite(logdet) & np.isfinite(third))
            if lost.any():
                wide = self.astype(np.float64)
                few = None if context is None else context[lost]
                out[lost], logdet[lost], third[lost] = wide._map(rows[lost], few, params, inverse)
        return out, logdet, third

    def sample(self, n: int, seed: int = 0, context: Any = None, return_log_prob: bool = False) -> Any:
        """``n`` rows drawn from the model: ``(n, D)`` float64, and with ``return_log_prob`` their nats ``(n,)``.

        The context must have n rows, or one for all. The same seed gives the same rows.
        """
        if n < 0:
            raise ValueError(f"the number of samples must not be negative, got {n}")
        z = np.random.default_rng(seed).standard_normal((n, self.dim))
        if self.dtype != np.float64:
            z = z.astype(self.dtype).astype(np.float64)
        x, logdet, _ = self._map(z, self._context(context, n), None, inverse=True)
        return (x, chain.base_log_prob(z.T) - logdet) if return_log_prob else x

    def rosenblatt(self, x: Any, context: Any = None) -> np.ndarray:
        """``Phi(z)`` of the base noise: ``(N, D)`` float64 in [0, 1], independent and uniform if x follows the model.

        For a flow of one autoregressive layer in natural order these are the conditional distribution functions
        ``P(X_i <= x_i | x_1 .. x_{i-1})``.
        """
        from scipy.special import ndtr

        return ndtr(self.forward(x, context)[0])

    # files

    def save(self, path: str | Path) -> None:
        """Write the flow to a safetensors file, atomically. Raises OSError or ValueError where that is impossible."""
        from refnaf.persistence import write_archive

        tensors = {f"params.{k}": v for k, v in self.params.items()} | {
            f"buffers.{k}": v for k, v in self.buffers.items()
        }
        header = {"kind": "flow", "config": self.config, "history": self.history, "provenance": self.provenance}
        write_archive(path, tensors, json.loads(json.dumps(header)))

    def __repr__(self) -> str:
        context = f", context_dim={self.context_dim}" if self.context_dim else ""
        return f"<Flow {self.model}, dim={self.dim}{context}, {self.n_params:,} parameters, {self.dtype.name}>"


def _assemble(
    config: dict[str, Any],
    params: Mapping[str, np.ndarray],
    buffers: Mapping[str, np.ndarray],
    backend: str | None,
    threads: int | None,
    history: list[dict[str, Any]],
    provenance: dict[str, Any],
) -> Flow:
    layers = []
    for part in config["layers"]:
        layers.append(layer_from_config(part, config["dim"], config["context_dim"]))
    expected = {f"{k}.{name}": array.shape for k, layer in enumerate(layers) for name, array in layer.buffers.items()}
    if {name: array.shape for name, array in buffers.items()} != expected:
        raise ValueError(f"the buffers do not fit the configuration: expected {expected}")
    for name, array in buffers.items():
        index, local = name.split(".", 1)
        layers[int(index)].buffers[local] = np.array(array, dtype=np.float64)
    return Flow(
        layers,
        params,
        model=config["model"],
        dtype=config["dtype"],
        backend=backend,
        threads=threads,
        history=history,
        provenance=provenance,
    )


def load(path: str | Path, backend: str | None = None, threads: int | None = None) -> Flow:
    """Read a flow that :meth:`Flow.save` wrote, to be computed by a backend and so many threads (see :class:`Flow`).

    Raises FileFormatError (a ValueError) where the file is damaged, truncated, foreign or of a newer format, and
    FileNotFoundError where it is missing.
    """
    from refnaf.persistence import FileFormatError, read_archive

    tensors, header = read_archive(path)
    if header.get("kind") != "flow":
        raise FileFormatError(f"{path} holds a {header.get('kind')}, not a fitted flow; pass the file that fit wrote")
    for array in tensors.values():
        array.setflags(write=False)
    params = {name[7:]: array for name, array in tensors.items() if name.startswith("params.")}
    buffers = {name[8:]: array for name, array in tensors.items() if name.startswith("buffers.")}
    try:
        return _assemble(header["config"], params, buffers, backend, threads, header["history"], header["provenance"])
    except (KeyError, TypeError, IndexError) as error:
        raise FileFormatError(
            f"{path} does not describe a flow this version knows ({error!r}); upgrade refnaf"
        ) from None
