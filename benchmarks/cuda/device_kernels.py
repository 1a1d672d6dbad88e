"""The kernels one by one: forward, VJP and inverse of each transformer, what surrounds matrix products, Adam."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cases
import counts
import numpy as np
from card import Clock
from cases import Inputs
from counts import Work
from rates import Rates
from sizes import Cell, Sizes
from timing import agree

from refnaf import ops as operations
from refnaf.kernels.cuda import arrays, made
from refnaf.ops_device import DeviceOps
from refnaf.training.adam_device import DeviceAdam

#: Columns by which the evaluations of an inverse are counted.
COUNTED = 256


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """Seconds of a call; the least that the card could need, and whether that is to move or to compute."""

    name: str
    what: str
    dtype: str
    dim: int
    rows: int
    seconds: float
    floor: float
    bound: str

    @property
    def fraction(self) -> float:
        return self.floor / self.seconds

    @property
    def label(self) -> str:
        return f"{self.name} {self.what}, D = {self.dim}, N = {self.rows}, {self.dtype}"


def _options(name: str, sizes: Sizes) -> dict[str, int]:
    return {"affine": {}, "mog": {"components": sizes.components}}.get(name, {"units": sizes.units})


def _size(name: str, sizes: Sizes) -> int:
    return sizes.components if name == "mog" else sizes.units


def drawn(cell: Cell, sizes: Sizes) -> Inputs:
    """Seeded inputs of a cell; their columns repeat after those that are drawn."""
    made_of = cases.inputs(cell.name, sizes.dim, min(cell.rows, sizes.drawn), cell.dtype, **_options(cell.name, sizes))
    times = -(-cell.rows // sizes.drawn)
    if times == 1:
        return made_of
    names = ("x", "theta", "grad_y", "grad_log_slope")
    wide: dict[str, Any] = {name: np.tile(getattr(made_of, name), times)[..., : cell.rows] for name in names}
    return dataclasses.replace(made_of, **wide)


class Calls:
    """A transformer's operations on the device, on given inputs, which they leave as they are."""

    def __init__(self, inputs: Inputs) -> None:
        self.ops, self.inputs = DeviceOps(), inputs
        self.x, self.theta = arrays.put(inputs.x), arrays.put(inputs.theta)
        self.shared = [arrays.put(matrix) for matrix in inputs.shared]
        self.grads = arrays.put(inputs.grad_y), arrays.put(inputs.grad_log_slope)
        y, _, self.saved = self.forward()
        self.mark = self.ops.workspace.mark()
        # the columns of all dimensions in one call
        by_column = np.moveaxis(inputs.theta, 0, 1).reshape(inputs.theta.shape[1], -1)
        self.images, self.columns = arrays.put(arrays.get(y).reshape(-1)), arrays.put(by_column)

    def forward(self) -> Any:
        self.ops.workspace.reset()
        inputs = self.inputs
        return self.ops.transform(inputs.name, self.x, self.theta, self.shared, inputs.options)

    def vjp(self) -> Any:
        self.ops.workspace.release(self.mark)
        return self.ops.transform_vjp(self.saved, *self.grads)

    def inverse(self) -> Any:
        self.ops.workspace.release(self.mark)
        return self.ops.invert(self.inputs.name, self.images, self.columns, self.shared, self.inputs.options)


def verify(name: str, dtype: str, sizes: Sizes) -> None:
    """Raises timing.Disagreement unless values, VJPs and inverse are those of the reference, on few columns."""
    inputs = cases.inputs(name, min(sizes.dim, 5), sizes.checked, dtype, **_options(name, sizes))
    calls, tolerance, what = Calls(inputs), cases.TOLERANCE[dtype], f"{name} in {dtype}"
    y, log_slope, _ = calls.forward()
    found = [arrays.get(a).copy() for a in (y, log_slope)]
    grad_x, grad_theta, grad_shared = calls.vjp()
    found += [arrays.get(a).copy() for a in (grad_x, grad_theta, *grad_shared)]
    agree(what, found, inputs.reference(), tolerance)
    agree(f"{what}, inverse", [arrays.get(calls.inverse()[0])], [inputs.x.reshape(-1)], tolerance)


def evaluations(inputs: Inputs) -> float:
    """Of the transformer on the way to a root, a column: the mean on the host, where the same method counts them."""
    ops: Any = operations.ArrayOps()
    count = 0
    evaluate = ops.transform
    x, theta = inputs.x[:1, :COUNTED], inputs.theta[:1, :, :COUNTED]
    y = evaluate(inputs.name, x, np.ascontiguousarray(theta), inputs.shared, inputs.options)[0][0].copy()

    def counting(name: str, x: Any, *arguments: Any) -> Any:
        nonlocal count
        count += x.shape[1]
        return evaluate(name, x, *arguments)

    ops.transform = counting
    ops.invert(inputs.name, y, np.ascontiguousarray(theta[0]), inputs.shared, inputs.options)
    return count / len(y)


def measure_cell(cell: Cell, sizes: Sizes, clock: Clock, rates: Rates) -> Iterator[KernelRow]:
    """Forward, VJP and inverse of a transformer."""
    inputs = drawn(cell, sizes)
    calls, columns = Calls(inputs), sizes.dim * cell.rows
    steps = 0.0 if cell.name == "affine" else evaluations(inputs)
    jobs: dict[str, Callable[[], Any]] = {"forward": calls.forward, "vjp": calls.vjp, "inverse": calls.inverse}
    for what, call in jobs.items():
        work = counts.transformer(cell.name, what, _size(cell.name, sizes), cell.dtype, steps).times(columns)
        yield _row(cell.name, what, cell.dtype, sizes.dim, cell.rows, call, work, clock, rates)


def _row(
    name: str,
    what: str,
    dtype: str,
    dim: int,
    rows: int,
    call: Callable[[], Any],
    work: Work,
    clock: Clock,
    rates: Rates,
) -> KernelRow:
    bound = "moving" if work.moving(rates, dtype) >= work.computing(rates, dtype) else "computing"
    return KernelRow(name, what, dtype, dim, rows, clock.seconds(call), work.floor(rates, dtype), bound)


def surroundings(sizes: Sizes, clock: Clock, rates: Rates) -> Iterator[KernelRow]:
    """What the masked network does beside products, at its hidden width, and Adam on a vector of a flow's size."""
    width = sizes.hidden
    for rows in sizes.batches:
        rng = np.random.default_rng(3)
        z, grad = (arrays.put(rng.normal(size=(width, rows)).astype(np.float32)) for _ in range(2))
        bias = arrays.put(np.zeros(width, np.float32))
        jobs: dict[str, tuple[Callable[[], Any], Work]] = {
            "activate": (partial(made.activate, z, bias, "elu"), counts.activate("elu")),
            "activate_vjp": (partial(made.activate_vjp, z, "elu", grad, bias), counts.activate_vjp()),
        }
        for what, (call, work) in jobs.items():
            yield _row("elu", what, "float32", width, rows, call, work.times(width * rows), clock, rates)
    flow = cases.flow("maf-ddsf", sizes.dim, width, "float32", sizes.flows, sizes.units)
    size = sum(array.size for array in flow.params.values())
    adam, loss = DeviceAdam(arrays.put(np.zeros(size, np.float32))), arrays.put(np.zeros((), np.float32))
    slope = arrays.put(np.full(size, 1e-3, np.float32))

    def step() -> None:
        adam.step_unseen(loss, slope, 1e-4)

    yield _row("Adam", "step", "float32", 1, size, step, counts.adam().times(size), clock, rates)
