"""Compiles every kernel of the backend "cuda" to PTX, without a GPU, and prints what was found as JSON.

A process of its own: the simulator, which the other tests need, takes the compiler's place. Arguments: the units and
components to compile for, the dtype, and with commas between them the modules and the capabilities ("75" for 7.5).
"""

from __future__ import annotations

import gc
import importlib
import json
import pkgutil
import re
import sys
from types import SimpleNamespace

import numpy as np
from numba import cuda

import refnaf.kernels.cuda as package
from refnaf.kernels.cuda.compiler import kernel

CAPABILITIES = ("75", "80", "90")


def makers(units, components):
    """The functions that make kernels, by module and name, each with the arguments that follow the dtype."""
    return {
        ("adam", "kernels"): [()],
        ("affine", "kernels"): [("exp",), ("gated",), ("softplus",)],
        ("ddsf", "kernels"): [(units, 2)],
        ("ddsf", "shared_kernels"): [()],
        ("dsf", "kernels"): [(units,)],
        ("made", "kernels"): [(None,), ("elu",), ("relu",), ("tanh",)],
        ("made", "shared_kernels"): [()],
        ("mixture", "kernels"): [(components, True), (components, False)],
    }


def found_makers():
    """Those that there are."""
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        names = ("kernels", "shared_kernels")
        found |= {(info.name, name) for name in names if hasattr(getattr(module, name, None), "cache_info")}
    return found


def careless(dtype):
    """A kernel whose constant has forgotten its dtype."""

    @kernel(dtype, "1")
    def double(x):
        n = cuda.grid(1)
        if n < x.shape[0]:
            x[n] = x[n] * 0.1

    return {"double": double}


def main(units, components, dtype, modules, capabilities):
    first, *_ = wanted = [(int(name[:-1]), int(name[-1])) for name in capabilities]
    # functions that kernels call ask the current device for its capability, which makes no difference to them
    dispatcher = importlib.import_module("numba.cuda.dispatcher")
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=first)
    rows = []
    kernels = {f"careless.{name}": made for name, made in careless(dtype).items()}
    for (module, maker), cases in makers(units, components).items():
        if module not in modules:
            continue
        make = getattr(importlib.import_module(f"{package.__name__}.{module}"), maker)
        for case in cases:
            label = ".".join([module, *(str(part) for part in case)])
            kernels |= {f"{label}.{name}": made for name, made in vars(make(dtype, *case)).items()}
    # the code of a kernel is the same for all capabilities until it becomes PTX: its library makes that of each
    libraries = importlib.import_module("numba.cuda.codegen").CUDACodeLibrary
    used, texts = [], libraries.get_asm_strs
    libraries.get_asm_strs = lambda library, cc=None: used.append(library) or texts(library, cc=cc)
    for name, made in kernels.items():
        cuda.compile_ptx(made.function, made.signature(), cc=first)
        for capability, numbers in zip(capabilities, wanted, strict=True):
            (ptx,) = texts(used[-1], cc=numbers)
            wide = len(re.findall(r"\.f64\b", ptx))
            target = re.findall(r"^\.target (\S+)", ptx, re.MULTILINE)
            rows.append([name, capability, target[0], wide])
    print(json.dumps({"rows": rows, "found": sorted(map(list, found_makers()))}))


if __name__ == "__main__":
    gc.disable()  # it takes an eighth of the time, and finds little
    main(int(sys.argv[1]), int(sys.argv[2]), getattr(np, sys.argv[3]), *(word.split(",") for word in sys.argv[4:]))
