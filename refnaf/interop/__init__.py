"""Weights of other libraries, from and to mappings of names to arrays; none of those libraries is needed."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "from_bnaf": "refnaf.interop.bnaf",
    "from_flowjax": "refnaf.interop.flowjax",
    "from_nflows": "refnaf.interop.nflows",
    "from_pyro": "refnaf.interop.pyro",
    "from_torchkit": "refnaf.interop.torchkit",
    "from_zuko": "refnaf.interop.zuko",
    "pyro_transforms": "refnaf.interop.export_pyro",
    "to_pyro": "refnaf.interop.export_pyro",
    "to_torchkit": "refnaf.interop.export_torchkit",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'refnaf.interop' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)
