"""An array that behaves as CuPy's do, in the host's memory: what a GPU would refuse, it refuses.

It goes through NumPy's protocols as CuPy's arrays do, never becomes a NumPy array unasked, does not mix with one, and
counts what goes from one memory to the other. Kernels are run by the simulator.
"""

from __future__ import annotations

import contextlib
import math
import sys
from types import SimpleNamespace

import numpy as np

#: Transfers since the count was last cleared.
TRANSFERS = {"put": 0, "get": 0}

#: Functions of NumPy that the library hands to a device; CuPy has them all, with these arguments.
FUNCTIONS = {
    np.concatenate, np.copyto, np.dot, np.empty_like, np.full_like, np.linalg.solve, np.ones_like, np.reshape,
    np.stack, np.sum, np.zeros_like,
}  # fmt: skip
UFUNCS = {
    "absolute", "add", "divide", "equal", "exp", "greater", "isfinite", "less", "log", "log1p", "matmul", "maximum",
    "minimum", "multiply", "negative", "not_equal", "sign", "square", "subtract",
}  # fmt: skip


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array that only says so when asked by :meth:`get`."""

    def __init__(self, held):
        self.held = np.asarray(held)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            raise TypeError(f"{ufunc.__name__}.{method} is not a device's")
        found = ufunc(*(_held(a) for a in inputs), **({"out": tuple(_held(a) for a in out)} if out else {}), **kwargs)
        return out[0] if out else DeviceArray(found)

    def __array_function__(self, function, types, args, kwargs):
        if function not in FUNCTIONS:
            raise TypeError(f"{function.__name__} is not a device's")
        out = kwargs.get("out")
        if function is np.dot and out is not None and not out.flags.c_contiguous:
            raise ValueError("the output must be C-contiguous")
        found = function(*(_held(a) for a in args), **{name: _held(a) for name, a in kwargs.items()})
        return out if out is not None else None if found is None else DeviceArray(found)

    def __getitem__(self, index):
        return DeviceArray(self.held[_index(index)])

    def __setitem__(self, index, values):
        self.held[_index(index)] = _held(values)

    def __len__(self):
        return len(self.held)

    def __float__(self):
        TRANSFERS["get"] += 1
        return float(self.held)

    def get(self):
        TRANSFERS["get"] += 1
        return self.held.copy()

    def view(self, dtype):
        return DeviceArray(self.held.view(dtype))

    def reshape(self, *shape):
        return DeviceArray(self.held.reshape(*shape))

    def transpose(self, *axes):
        return DeviceArray(self.held.transpose(*axes))

    def copy(self):
        return DeviceArray(self.held.copy())

    def astype(self, dtype, copy=True):
        return DeviceArray(self.held.astype(dtype, copy=copy))

    def fill(self, number):
        self.held.fill(number)

    shape = property(lambda self: self.held.shape)
    size = property(lambda self: self.held.size)
    ndim = property(lambda self: self.held.ndim)
    dtype = property(lambda self: self.held.dtype)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self.held.flags.c_contiguous))
    T = property(lambda self: DeviceArray(self.held.T))


def _held(argument):
    """An argument's own array; NumPy's arrays do not mix with a device's."""
    if isinstance(argument, DeviceArray):
        return argument.held
    if isinstance(argument, (list, tuple)):
        return type(argument)(_held(a) for a in argument)
    if isinstance(argument, np.ndarray):
        raise TypeError("Unsupported type numpy.ndarray")
    return argument


def _index(index):
    if isinstance(index, tuple):
        return tuple(_index(i) for i in index)
    return _held(index)


def _array(held, order="C"):
    TRANSFERS["put"] += 1
    return DeviceArray(np.array(held, order=order))


#: In place of the module cupy.
MODULE = SimpleNamespace(array=_array, empty=lambda size, dtype: DeviceArray(np.empty(size, dtype)))


def _quiet(function):
    """A function of math that answers as a GPU's: where Python raises, it gives an infinity."""

    def answer(x):
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return -math.inf if x == 0 else math.nan

    return answer


#: In place of the module math: the functions of it that raise where numbers are too large.
MATH = SimpleNamespace(
    **{**vars(math), **{name: _quiet(getattr(math, name)) for name in ("exp", "expm1", "log", "log1p")}}
)


@contextlib.contextmanager
def device(monkeypatch):
    """The backend "cuda" on these arrays, with functions of math that do not raise."""
    from refnaf.kernels import far, mixture_far
    from refnaf.kernels.cuda import arrays, compiler, root

    call = compiler.Kernel.__call__

    def run(self, blocks, *arguments, **threads):
        given = [a.held if isinstance(a, DeviceArray) else a for a in arguments]
        assert not any(isinstance(a, np.ndarray) for a in arguments), "a kernel was given the host's array"
        assert all(a.flags.c_contiguous for a in given if isinstance(a, np.ndarray)), (
            "a kernel's array is not contiguous"
        )
        with monkeypatch.context() as inside:
            # not for longer: compiled kernels are made of the same functions
            for module in (far, mixture_far, root):
                inside.setattr(module, "math", MATH)
            call(self, blocks, *given, **threads)

    usual = sys.getswitchinterval()
    # none of a block's threads waits long for the simulator, which polls them in a loop
    sys.setswitchinterval(1e-4)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "module", lambda: MODULE)
            patch.setattr(compiler.Kernel, "__call__", run)
            yield
    finally:
        sys.setswitchinterval(usual)
