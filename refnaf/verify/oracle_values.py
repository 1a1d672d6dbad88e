"""What the layers' equations share: what they return, and a few sums and products of lists of mpf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from refnaf.verify.precision import mpmath


class Value(NamedTuple):
    """A layer's image ``(D,)``, ``log|det|`` of its Jacobian, and theta ``(D, P)`` of autoregressive layers.

    Numbers that are exact whatever the precision may be Python's integers.
    """

    y: list[Any]
    logdet: Any
    theta: list[list[Any]] | None = None


T = TypeVar("T")


class Params(dict[str, Any]):
    """A layer's parameters, arrays of mpf by local name, and what rows share that is made of them."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__(arrays)
        self._made: dict[tuple[str, int], Any] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make()`` returns, made once at each precision."""
        key = name, mpmath().mp.prec
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


#: Of a layer, called as ``equation(layer, params, x, context)``.
Equation = Callable[[Any, Params, list[Any], "list[Any] | None"], Value]


def plus(a: list[Any], b: Any) -> list[Any]:
    """The sum of two vectors."""
    return [x + y for x, y in zip(a, b, strict=True)]


def times(matrix: Any, vector: list[Any]) -> list[Any]:
    """A matrix, a list a row, times a vector."""
    mp = mpmath().mp
    return [mp.fdot(row, vector) for row in matrix]


def activate(x: Any, name: str) -> Any:
    """A network's activation of one number. Raises ValueError for one that the oracle does not know."""
    mp = mpmath().mp
    if name == "tanh":
        return mp.tanh(x)
    if name not in ("elu", "relu"):
        raise ValueError(f"the oracle has no equation for the activation {name!r}")
    return x if x > 0 else mp.mpf(0) if name == "relu" else mp.expm1(x)


def read(x: list[Any], bound: float | None) -> list[Any]:
    """``x / (1 + |x| / B)``, what networks read of their inputs and of the context, or x where there is no bound."""
    return x if bound is None else [value / (1 + abs(value) / mpmath().mp.mpf(bound)) for value in x]
