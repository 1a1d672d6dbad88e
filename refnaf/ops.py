"""The operations that backends offer.

A backend offers the same operations, each a forward that also returns what its vector-Jacobian product needs, and that
product. Layers are written once in terms of them:

- ``"numpy"``: the twins of :mod:`refnaf.kernels.array`, with analytic VJPs in reused buffers;
- ``"numba"``: the same, with the compiled twins of :mod:`refnaf.kernels.cpu` for everything that has one;
- ``"cuda"``: :mod:`refnaf.ops_device`, the same on an NVIDIA GPU, for the layers that have kernels there;
- ``"reference"``: :mod:`refnaf.reference` itself, which autograd differentiates as it stands (no VJPs, nothing saved).

Arrays are feature-major: ``(D, N)``, pseudo-parameters ``(D, P, N)``. A new transformer is an entry in each dict below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy

from refnaf.kernels.array import adam as array_adam
from refnaf.kernels.array import affine as array_affine
from refnaf.kernels.array import block as array_block
from refnaf.kernels.array import block_inverse as array_block_inverse
from refnaf.kernels.array import ddsf as array_ddsf
from refnaf.kernels.array import dsf as array_dsf
from refnaf.kernels.array import made as array_made
from refnaf.kernels.array import mean as array_mean
from refnaf.kernels.array import mixture as array_mixture
from refnaf.kernels.array import monotonic as array_monotonic
from refnaf.kernels.array import planar as array_planar
from refnaf.kernels.array import recurrent as array_recurrent
from refnaf.kernels.array import states as array_states
from refnaf.kernels.array.root import monotone_root
from refnaf.kernels.array.staircase import Staircase
from refnaf.kernels.array.workspace import Workspace
from refnaf.ops_backends import check
from refnaf.reference import affine, block, ddsf, dsf, made, mean, mixture, monotonic, planar, tan
from refnaf.reference._numpy import np, value
from refnaf.reference.block import Network

REFERENCE: dict[str, Callable[..., Any]] = {
    "affine": affine.affine,
    "dsf": dsf.dsf,
    "ddsf": ddsf.ddsf,
    "mean": mean.mean,
    "mog": mixture.mog,
    "monotonic": monotonic.monotonic,
}
ARRAY: dict[str, Any] = {
    "affine": array_affine,
    "dsf": array_dsf,
    "ddsf": array_ddsf,
    "mean": array_mean,
    "mog": array_mixture,
    "monotonic": array_monotonic,
}
BRACKETS: dict[str, Callable[..., Any]] = {
    "dsf": dsf.bracket,
    "ddsf": ddsf.bracket,
    "mean": mean.bracket,
    "mog": mixture.bracket,
    "monotonic": monotonic.bracket,
}
INVERSES: dict[str, Callable[..., Any]] = {"affine": affine.inverse}


class HostOps:
    """Where arrays are: in the host's memory."""

    def session(self) -> AbstractContextManager[Any]:
        """Everything that one object does lies inside."""
        return nullcontext()

    def put(self, array: Any) -> Any:
        """An array of the host as these operations read it."""
        return array

    def get(self, array: Any) -> numpy.ndarray:
        """The opposite of :meth:`put`."""
        return array

    def constant(self, array: numpy.ndarray) -> Any:
        """:meth:`put` for an array that does not change."""
        return array

    def packing(self, step: Staircase) -> Any:
        """What makes a vector of a masked weight, and of it the weight again; None where the network takes none."""
        return None


class ArrayOps(HostOps):
    """Operations on plain NumPy arrays. One object a thread: its workspace is not shared."""

    traced = False
    #: Whether a VJP is to follow: without it, forwards need not save anything.
    saving = True
    #: Whether an autoregressive layer is inverted by a whole pass of its network for each dimension.
    by_passes = False

    def __init__(self) -> None:
        self.workspace = Workspace()

    @property
    def pieces(self) -> Any:
        """The masked network's elementwise functions."""
        return array_made

    def network(
        self,
        x: numpy.ndarray,
        context: numpy.ndarray | None,
        weights: Sequence[numpy.ndarray],
        biases: Sequence[numpy.ndarray],
        context_weights: Sequence[numpy.ndarray],
        stairs: Sequence[Staircase],
        activation: str,
        bound: float | None,
        gains: Sequence[tuple[numpy.ndarray, numpy.ndarray]] = (),
        skips: Sequence[tuple[int, int]] = (),
        linear: Sequence[int] = (),
    ) -> tuple[numpy.ndarray, Any]:
        """The masked network; the weights' masks must be folded in (see :func:`refnaf.reference.made.network`)."""
        steps: Any = [self._products(step) for step in stairs]
        wiring = (activation, bound, gains, skips, linear, steps, self.workspace, self.pieces)
        return array_made.forward(x, context, weights, biases, context_weights, *wiring)

    def _products(self, step: Staircase) -> Any:
        """A masked weight's products."""
        return step

    def network_vjp(self, saved: Any, grad: numpy.ndarray, into: Any = None) -> dict[str, Any]:
        """Cotangents by the forward's names; ``into``: arrays for those of weights and biases, by name, or None."""
        return array_made.vjp(saved, grad, self.workspace, into)

    def spread(self, out: Any, weight: Any, bias: Any, dim: int) -> tuple[Any, Any]:
        return array_made.spread(out, weight, bias, dim, self.workspace)

    def spread_vjp(self, saved: Any, grad: Any) -> tuple[Any, Any, Any]:
        return array_made.spread_vjp(saved, grad, self.workspace)

    def transform(
        self, name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any], overwrite: bool = False
    ) -> Any:
        """A transformer: y and log dy/dx ``(D, N)``, and what its VJP needs, which may ``overwrite`` theta."""
        y, log_slope, saved = ARRAY[name].forward(x, theta, *shared, ws=self.workspace, **options)
        return y, log_slope, (ARRAY[name], saved)

    def transform_vjp(self, saved: Any, grad_y: Any, grad_log_slope: Any) -> tuple[Any, Any, list[Any]]:
        """Cotangents of y and log dy/dx to those of x, theta and the shared parameters."""
        return saved[0].vjp(saved[1], grad_y, grad_log_slope, self.workspace)

    def invert(self, name: str, y: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> Any:
        """One dimension inverted: y ``(N,)``, theta ``(P, N)`` to x, log dx/dy and the residual, each ``(N,)``."""
        if name in INVERSES:
            x, log_slope = INVERSES[name](y, theta, *shared, **options)
            return x, log_slope, numpy.zeros_like(y)
        with numpy.errstate(over="ignore"):
            low, high = BRACKETS[name](y, theta, *shared, **options)
        mark = self.workspace.mark()

        def function(x: numpy.ndarray, index: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
            self.workspace.release(mark)
            part = theta if len(index) == theta.shape[1] else theta[:, index]
            value, slope, _ = self.transform(name, x[None], numpy.ascontiguousarray(part)[None], shared, options)
            return value[0], slope[0]

        x, log_slope, residual = monotone_root(function, y, low, high)
        self.workspace.release(mark)
        return x, -log_slope, residual

    def planar(self, z: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any, Any]:
        """The planar map of z ``(D, N)``, its log-determinant ``(N,)``, and what its VJP needs."""
        return array_planar.forward(z, u, w, b, self.workspace)

    def planar_vjp(self, saved: Any, grad_f: Any, grad_logdet: Any) -> tuple[Any, Any, Any, Any]:
        return array_planar.vjp(saved, grad_f, grad_logdet, self.workspace)

    def planar_inverse_vjp(self, saved: Any, grad_z: Any) -> Any:
        """Cotangent of the inverse's z to that of f, at the z of a saved :meth:`planar`."""
        return array_planar.solve_transposed(saved, grad_z)

    def planar_inverse(self, f: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any, Any]:
        """z ``(D, N)``, its log-determinant and the residual of the root, each ``(N,)``."""
        return array_planar.inverse(f, u, w, b, self.workspace)

    @property
    def cells(self) -> Any:
        """The recurrence's elementwise functions."""
        return array_states

    def states(self, x: Any, context: Any, cell: tan.Cell, name: str, bound: float | None) -> tuple[Any, Any]:
        """States ``(H, D, N)`` of a recurrence along x ``(D, N)``, and what its VJP needs."""
        return array_states.forward(x, context, cell, name, bound, self.workspace, self.cells)

    def states_vjp(self, saved: Any, grad: Any) -> dict[str, Any]:
        return array_states.vjp(saved, grad, self.workspace)

    def by_dimension(self, out: Any, bias: Any, dim: int) -> Any:
        """``(P, D * N)`` and a bias ``(D * P,)`` to pseudo-parameters ``(D, P, N)``."""
        return array_states.by_dimension(out, bias, dim, self.workspace)

    def by_dimension_vjp(self, grad: Any) -> tuple[Any, Any]:
        return array_states.by_dimension_vjp(grad, self.workspace)

    def recurrent(
        self, x: Any, context: Any, cell: tan.Cell, out: tan.Output, name: str, bound: float | None
    ) -> tuple[Any, Any, Any]:
        """A recurrent transformation: y and log dy/dx ``(D, N)``, and what its VJP needs."""
        return array_recurrent.forward(x, context, cell, out, name, bound, self.workspace, self.cells)

    def recurrent_vjp(self, saved: Any, grad_y: Any, grad_logdet: Any) -> dict[str, Any]:
        return array_recurrent.vjp(saved, grad_y, grad_logdet, self.workspace)

    def recurrent_inverse(
        self, y: Any, context: Any, cell: tan.Cell, out: tan.Output, name: str, bound: float | None
    ) -> tuple[Any, Any]:
        """Its inverse: x and log dx/dy ``(D, N)``."""
        return array_recurrent.inverse(y, context, cell, out, name, bound, self.workspace, self.cells)

    def recurrent_inverse_vjp(self, saved: Any, grad_x: Any) -> Any:
        """Cotangent of the inverse's x to that of y, at the x of a saved :meth:`recurrent`."""
        return array_recurrent.solve_transposed(saved, grad_x, self.workspace)

    def block(self, x: Any, context: Any, net: Network) -> tuple[Any, Any, Any]:
        """A block network: y and log dy/dx ``(D, N)``, and what its VJP needs. The weights' masks must be folded in."""
        return array_block.forward(x, context, net, ws=self.workspace)

    def block_vjp(self, saved: Any, grad_y: Any, grad_log_slope: Any) -> dict[str, Any]:
        return array_block.vjp(saved, grad_y, grad_log_slope, self.workspace)

    def block_inverse(self, y: Any, context: Any, net: Network) -> tuple[Any, Any, Any]:
        """Its inverse: x, log dx/dy and the residual, each ``(D, N)``."""
        return array_block_inverse.inverse(y, context, net, ws=self.workspace)

    def block_inverse_vjp(self, saved: Any, grad_x: Any) -> Any:
        """Cotangent of the inverse's x to that of y, at the x of a saved :meth:`block`."""
        return array_block_inverse.solve_transposed(saved, grad_x)


def _compiled() -> Any:
    """The compiled twins. Importing Numba takes a while and 120 MB: it waits until something needs them."""
    from refnaf.kernels import cpu

    return cpu


def _compiled_block() -> Any:
    from refnaf.kernels.cpu import block

    return block


class CompiledOps(ArrayOps):
    """:class:`ArrayOps` with compiled twins where there are any. What they do not know is left to the array's."""

    @property
    def pieces(self) -> Any:
        return _compiled().made

    def _products(self, step: Staircase) -> Any:
        return step.twin(_compiled().Staircase)

    def packing(self, step: Staircase) -> Any:
        return None if step.dense else self._products(step)

    @property
    def cells(self) -> Any:
        from refnaf.kernels.cpu import states

        return states

    def _twin(self, name: str, options: dict[str, Any]) -> Any:
        twin = _compiled().TWINS.get(name)
        return twin if twin is not None and twin.supports(options) else None

    def transform(
        self, name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any], overwrite: bool = False
    ) -> Any:
        twin = self._twin(name, options)
        if twin is None:
            return super().transform(name, x, theta, shared, options, overwrite)
        how = {"ws": self.workspace, "keep": self.saving, "overwrite": overwrite}
        y, log_slope, saved = twin.forward(x, theta, *shared, **how, **options)
        return y, log_slope, (twin, saved)

    def invert(self, name: str, y: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> Any:
        twin = self._twin(name, options)
        if not hasattr(twin, "inverse"):
            return super().invert(name, y, theta, shared, options)
        return twin.inverse(y, theta, *shared, **options)

    def block(self, x: Any, context: Any, net: Network) -> tuple[Any, Any, Any]:
        return _compiled_block().forward(x, context, net, ws=self.workspace, keep=self.saving)

    def block_vjp(self, saved: Any, grad_y: Any, grad_log_slope: Any) -> dict[str, Any]:
        return _compiled_block().vjp(saved, grad_y, grad_log_slope, self.workspace)

    def block_inverse(self, y: Any, context: Any, net: Network) -> tuple[Any, Any, Any]:
        from refnaf.kernels.cpu import block_inverse

        return block_inverse.inverse(y, context, net, ws=self.workspace)

    def block_inverse_vjp(self, saved: Any, grad_x: Any) -> Any:
        return super().block_inverse_vjp(_compiled_block().as_the_arrays(saved), grad_x)


class ReferenceOps(HostOps):
    """The reference itself, for autograd to trace."""

    traced = True
    by_passes = True

    def network(
        self, x: Any, context: Any, weights: Any, biases: Any, context_weights: Any, stairs: Any, *wiring: Any
    ) -> tuple[Any, None]:
        masks = [step.mask for step in stairs]
        return made.network(x, context, weights, biases, context_weights, masks, *wiring), None

    def spread(self, out: Any, weight: Any, bias: Any, dim: int) -> tuple[Any, None]:
        return made.spread(out, weight, bias, dim), None

    def transform(
        self, name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any], overwrite: bool = False
    ) -> Any:
        y, log_slope = REFERENCE[name](x, np.moveaxis(theta, 1, 0), *shared, **options)
        return y, log_slope + 0 * y, None

    def invert(self, name: str, y: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> Any:
        """As :meth:`ArrayOps.invert`; one Newton step from the root carries the implicit derivative."""
        if name in INVERSES:
            x, log_slope = INVERSES[name](y, theta, *shared, **options)
            return x, log_slope, 0 * value(y)
        plain = [value(s) for s in shared]
        root, _, residual = ArrayOps().invert(name, value(y), value(theta), plain, options)
        image, log_slope = REFERENCE[name](root, theta, *shared, **options)
        x = root - (image - y) * numpy.exp(-value(log_slope))
        return x, -REFERENCE[name](x, theta, *shared, **options)[1], residual

    def planar(self, z: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any, None]:
        return *planar.planar(z, u, w, b), None

    def planar_inverse(self, f: Any, u: Any, w: Any, b: Any) -> tuple[Any, Any, Any]:
        """As :meth:`ArrayOps.planar_inverse`; one Newton step from the root carries the implicit derivative."""
        root, _, residual = ArrayOps().planar_inverse(value(f), value(u), value(w), value(b))
        return *planar.inverse_from(root, f, u, w, b), residual

    def states(self, x: Any, context: Any, *recurrence: Any) -> tuple[Any, None]:
        return tan.states(x, context, *recurrence), None

    def by_dimension(self, out: Any, bias: Any, dim: int) -> Any:
        return tan.by_dimension(out, bias, dim)

    def recurrent(self, x: Any, context: Any, *numbers: Any) -> tuple[Any, Any, None]:
        return *tan.transformation(x, context, *numbers), None

    def recurrent_inverse(self, y: Any, context: Any, *numbers: Any) -> tuple[Any, Any]:
        return tan.inverse(y, context, *numbers)

    def block(self, x: Any, context: Any, net: Network) -> tuple[Any, Any, None]:
        return *block.block(x, context, net), None

    def block_inverse(self, y: Any, context: Any, net: Network) -> tuple[Any, Any, Any]:
        """As :meth:`ArrayOps.block_inverse`; a Newton step in each dimension carries the implicit derivative."""
        roots, log_slope, residual = ArrayOps().block_inverse(value(y), value(context), block.plain(net))
        columns = list(roots)
        for i in range(len(columns)):
            image, _ = block.block(np.stack(columns), context, net)
            columns[i] = roots[i] - (image[i] - y[i]) * numpy.exp(log_slope[i])
        x = np.stack(columns)
        return x, -block.block(x, context, net)[1], residual


Ops = ArrayOps | ReferenceOps


def make(backend: str, own_stream: bool = False) -> Any:
    """The operations of a backend, or of ``"reference"``, with a workspace of their own. Raises as :func:`check`.

    A device's may have a stream of their own, so that one's copies go on while another computes (see ``session``).
    """
    if backend == "reference":
        return ReferenceOps()
    check(backend)
    if backend == "cuda":
        from refnaf.ops_device import DeviceOps

        return DeviceOps(own_stream)
    return CompiledOps() if backend == "numba" else ArrayOps()


def optimiser(backend: str) -> Any:
    """A backend's module like :mod:`refnaf.kernels.array.adam`. Raises as :func:`check`."""
    check(backend)
    return _compiled().adam if backend == "numba" else array_adam
