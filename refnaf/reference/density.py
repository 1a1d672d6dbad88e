"""Densities by change of variables (slides eq. 2-4).

A flow maps data x to noise z by a composition of bijections; the base density of z and the log-determinants of the
steps give the density of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refnaf.reference._numpy import np


def change_of_variables(base_log_prob: Any, log_determinant: Any) -> Any:
    """Equation 2: ``log p(x) = log p(z) + log |det dz/dx|``, each ``(N,)`` in nats."""
    return base_log_prob + log_determinant


def compose(steps: Sequence[Callable[[Any], tuple[Any, Any]]], x: Any) -> tuple[Any, Any]:
    """Equations 3 and 4: ``z = f_K(... f_1(x))`` and ``log |det dz/dx| = sum_k log |det df_k|``.

    Each step takes an array and returns its image and its log-determinants ``(N,)``.
    """
    total = 0.0
    for step in steps:
        x, log_determinant = step(x)
        total = total + log_determinant
    return x, total


def normal_log_prob(z: Any) -> Any:
    """``sum_i log N(z_i; 0, 1)`` over axis 0: ``(D, N)`` to ``(N,)``, in nats."""
    return -0.5 * np.sum(z * z, axis=0) - z.shape[0] * 0.5 * numpy.log(2 * numpy.pi)
