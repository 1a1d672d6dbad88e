"""The twins of :mod:`refnaf.kernels.cpu` for NVIDIA GPUs, by numba-cuda: a sample a thread, arrays CuPy's.

Files, names and arguments are those of the compiled twins for a CPU; a transformer's ``inverse`` also takes a
workspace. All are written for a dtype at a time, with the elementary functions of :mod:`refnaf.kernels.scalar` and the
log domain of :mod:`refnaf.kernels.far`.
"""

from __future__ import annotations

from types import ModuleType

from refnaf.kernels.cuda import adam, affine, ddsf, dsf, made, mixture

TWINS: dict[str, ModuleType] = {"affine": affine, "dsf": dsf, "ddsf": ddsf, "mog": mixture}

__all__ = ["TWINS", "adam", "affine", "ddsf", "dsf", "made", "mixture"]
