"""The twins of :mod:`refnaf.kernels.array`, compiled by Numba at their first call: serial, with the lock released.

Files, names and arguments are those of the array twins. A forward also takes ``keep`` (whether a VJP is to follow) and
``overwrite`` (what it needs may be kept in theta's place); a transformer's ``inverse`` finds a dimension's roots;
``supports`` says which options of the
reference a twin knows.
"""

from __future__ import annotations

from types import ModuleType

from refnaf.kernels.cpu import adam, affine, ddsf, dsf, made, mixture
from refnaf.kernels.cpu.staircase import Staircase

TWINS: dict[str, ModuleType] = {"affine": affine, "dsf": dsf, "ddsf": ddsf, "mog": mixture}

__all__ = ["TWINS", "Staircase", "adam", "made"]
