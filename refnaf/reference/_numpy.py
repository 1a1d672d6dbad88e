"""The array namespace of the reference: autograd's when autograd is at work, NumPy's otherwise.

A traced array can only exist once the caller has imported autograd; until then plain NumPy gives the same numbers,
and scoring a saved model needs no differentiation library.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy


class _Namespace:
    def __getattr__(self, name: str) -> Any:
        if "autograd" in sys.modules:
            import autograd.numpy

            return getattr(autograd.numpy, name)
        return getattr(numpy, name)


np: Any = _Namespace()


def value(x: Any) -> Any:
    """The numbers of an array, without its trace: for maxima that only shift and choices of a branch."""
    if "autograd" in sys.modules:
        from autograd.extend import Box

        while isinstance(x, Box):
            x = x._value
    return x
