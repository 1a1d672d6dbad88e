"""Sums over an array, accumulated in float64 in as many parts as the machine's vectors have.

The order is fixed for a machine and a length, whatever the threads are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.cpu.compiler import summing


@summing
def total(row: Any) -> float:
    """The sum of a vector."""
    out = 0.0
    for n in range(len(row)):
        out += row[n]
    return out


@summing
def squares(row: Any) -> float:
    """The sum of a vector's squares."""
    out = 0.0
    for n in range(len(row)):
        value = np.float64(row[n])
        out += value * value
    return out
