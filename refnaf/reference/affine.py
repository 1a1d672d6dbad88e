"""Affine transformers of MAF and IAF (slides eq. 13-24): ``y = scale * x + shift``.

``x`` is any shape ``(...)``; the two pseudo-parameters are arrays of that shape. Each function returns ``y`` and
``log dy/dx`` elementwise, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.stable import SLOPE_FLOOR, log_sigmoid, shrink, sigmoid, slopes, squash

#: Raw log-scales are bent to stay within this limit, so that no slope over- or underflows.
LOG_SCALE_BOUND = 8.0

FORMS = ("exp", "softplus", "sigmoid", "gated")
BENDS = ("tanh", "squash", "clamp", "none")


#: A number B, for ``(-B, B)``, or a pair ``(low, high)``.
Limit = Any


def limits(limit: Limit) -> tuple[float, float]:
    """``(low, high)``."""
    low, high = (-limit, limit) if isinstance(limit, (int, float)) else limit
    return low, high


def bend(raw: Any, how: str = "tanh", limit: Limit = LOG_SCALE_BOUND) -> Any:
    """A raw log-scale kept within ``(-limit, limit)``, or, by "clamp" alone, within a pair of limits.

    ``how``: "tanh", ``B tanh(raw / B)``; "squash", ``raw / (1 + |raw| / B)``; "clamp"; "none" for no limit at all.
    """
    if how == "tanh":
        return limit * np.tanh(raw * (1 / limit))
    if how == "squash":
        return squash(raw, limit)
    if how == "clamp":
        low, high = limits(limit)
        inside = (value(raw) >= low) & (value(raw) <= high)
        return raw * inside.astype(value(raw).dtype) + numpy.clip(value(raw), low, high) * ~inside
    return raw


def exponential(x: Any, shift: Any, raw: Any, how: str = "tanh", limit: Limit = LOG_SCALE_BOUND) -> tuple[Any, Any]:
    """MAF's form (eq. 13-19): ``y = exp(alpha) x + shift`` with ``alpha = bend(raw)``."""
    alpha = bend(raw, how, limit)
    return np.exp(alpha) * x + shift, alpha


def softplus_scaled(x: Any, shift: Any, raw: Any, floor: float = SLOPE_FLOOR) -> tuple[Any, Any]:
    """A scale from a softplus, 1 at ``raw`` = 0: ``y = slopes(raw) x + shift`` (see :func:`.stable.slopes`)."""
    scale = slopes(raw, floor)
    return scale * x + shift, np.log(scale)


def sigmoid_scaled(x: Any, shift: Any, raw: Any, floor: float = SLOPE_FLOOR) -> tuple[Any, Any]:
    """A scale from a sigmoid: ``y = (sigmoid(raw) + floor) x + shift``."""
    scale = sigmoid(raw) + value(raw).dtype.type(floor)
    return scale * x + shift, np.log(scale)


def gated(
    x: Any, mean: Any, raw: Any, how: str = "tanh", limit: Limit = LOG_SCALE_BOUND, clip: float = 0.0
) -> tuple[Any, Any]:
    """IAF's numerically stable form (eq. 24): ``y = s x + (1 - s) mean`` with ``s = sigmoid(bend(raw))``.

    With ``clip`` the gate is shrunk, ``s (1 - clip) + clip / 2``, as in the NAF authors' code.
    """
    gate = bend(raw, how, limit)
    scale = shrink(sigmoid(gate), clip)
    log_scale = log_sigmoid(gate) if clip == 0 else np.log(scale)
    return scale * x + shrink(sigmoid(-gate), clip) * mean, log_scale


def affine(x: Any, theta: Any, form: str = "exp", **options: Any) -> tuple[Any, Any]:
    """One of the forms by name: ``theta[0]`` is the shift (or mean), ``theta[1]`` the raw scale.

    ``options`` are those of the form's function. Raises ValueError for any other name.
    """
    functions: dict[str, Callable[..., tuple[Any, Any]]] = {
        "exp": exponential,
        "softplus": softplus_scaled,
        "sigmoid": sigmoid_scaled,
        "gated": gated,
    }
    if form not in functions:
        raise ValueError(f"the form of an affine transformer must be one of {', '.join(FORMS)}, not {form!r}")
    return functions[form](x, theta[0], theta[1], **options)


def inverse(y: Any, theta: Any, form: str = "exp", **options: Any) -> tuple[Any, Any]:
    """The x with ``affine(x) = y``, in closed form, and ``log dx/dy``."""
    shift, log_slope = affine(0 * y, theta, form, **options)
    return (y - shift) * np.exp(-log_slope), -log_slope
