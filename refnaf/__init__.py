"""Neural autoregressive flows in NumPy: readable beside the paper, exact, and light enough for any CPU.

The public names are loaded when first used, so that ``import refnaf`` costs nothing but this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Flow": "refnaf.flows",
    "build": "refnaf.flows",
    "load": "refnaf.flows",
    "models": "refnaf.flows",
    "fit": "refnaf.training",
    "fit_variational": "refnaf.training",
    "split_rows": "refnaf.training",
    "FitError": "refnaf.errors",
    "DataWarning": "refnaf.errors",
    "FileFormatError": "refnaf.persistence",
}

_SUBPACKAGES = ("interop", "verify")

__all__ = ["__version__", *sorted(_HOMES), *_SUBPACKAGES]

if TYPE_CHECKING:
    from refnaf.errors import DataWarning as DataWarning
    from refnaf.errors import FitError as FitError
    from refnaf.flows import Flow as Flow
    from refnaf.flows import build as build
    from refnaf.flows import load as load
    from refnaf.flows import models as models
    from refnaf.persistence import FileFormatError as FileFormatError
    from refnaf.training import fit as fit
    from refnaf.training import fit_variational as fit_variational
    from refnaf.training import split_rows as split_rows


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"refnaf.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'refnaf' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
