"""The planar layer in arbitrary precision (Rezende and Mohamed 2015; slides eq. 8-9).

f(z) = z + u^ tanh(w'z + b),    log|det df/dz| = log|1 + u^' psi(z)|,    psi(z) = (1 - tanh^2(w'z + b)) w
u^ = u + (m(w'u) - w'u) w / |w|^2,    1 + m: see :func:`.oracle_transformers.slopes`
"""

from __future__ import annotations

from typing import Any

from refnaf.verify.oracle_root import solve
from refnaf.verify.oracle_transformers import slopes
from refnaf.verify.oracle_values import Params, Value, plus, read, times
from refnaf.verify.precision import mpmath


def _numbers(layer: Any, params: Params, context: list[Any] | None) -> tuple[list[Any], list[Any], Any]:
    """``u^``, w and b; a context moves u, w and b."""
    mp = mpmath().mp
    theta = [*params["u"], *params["w"], *params["b"]]
    if context is not None:
        theta = plus(theta, times(params["context"], read(context, layer.bound)))
    u, w, b = theta[: layer.dim], theta[layer.dim : -1], theta[-1]
    along, square = mp.fdot(w, u), mp.fdot(w, w)
    if square == 0:
        return u, w, b
    shift = (slopes(along) - 1 - along) / square
    return plus(u, [shift * value for value in w]), w, b


def _log_det(u: list[Any], w: list[Any], p: Any) -> Any:
    """``log|1 + u^' psi|``, where ``1 - tanh^2`` is ``sech^2``."""
    mp = mpmath().mp
    return mp.log(abs(1 + mp.fdot(u, w) * mp.sech(p) ** 2))


def planar(layer: Any, params: Params, x: list[Any], context: list[Any] | None) -> Value:
    """Equations 8 and 9."""
    mp = mpmath().mp
    u, w, b = _numbers(layer, params, context)
    p = mp.fdot(w, x) + b
    return Value(plus(x, [value * mp.tanh(p) for value in u]), _log_det(u, w, p))


def unplanar(layer: Any, params: Params, y: list[Any], context: list[Any] | None) -> Value:
    """The p with ``p + w'u^ tanh p = w'y + b``, and ``y - u^ tanh p``."""
    mp = mpmath().mp
    u, w, b = _numbers(layer, params, context)
    along = mp.fdot(w, u)
    p = solve(lambda point: (point + along * mp.tanh(point), _log_det(u, w, point)), mp.fdot(w, y) + b)
    return Value(plus(y, [-value * mp.tanh(p) for value in u]), -_log_det(u, w, p))
