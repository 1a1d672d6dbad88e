"""Verification: golden vectors, the high-precision oracle, the accuracy report, and the conformance kit.

The names are loaded when first used; the oracle needs ``pip install "refnaf[verify]"``.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "check_flow": "refnaf.verify.conformance",
    "assert_conforms": "refnaf.verify.conformance",
    "compare": "refnaf.verify.comparison",
    "OracleResult": "refnaf.verify.oracle",
    "evaluate": "refnaf.verify.oracle",
    "invert": "refnaf.verify.oracle",
    "write_vectors": "refnaf.verify.vectors",
    "read_vectors": "refnaf.verify.vectors",
}

_MODULES = ("accuracy", "oracle", "vectors")

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"refnaf.verify.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'refnaf.verify' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
