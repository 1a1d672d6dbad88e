"""Affine transformers of MAF and IAF (slides eq. 13-24): ``y = scale * x + shift``.

``x`` is any shape ``(...)``; the two pseudo-parameters are arrays of that shape. Each function returns ``y`` and
``log dy/dx`` elementwise, in nats.
"""

from __future__ import annotations

from typing import Any

from refnaf.reference._numpy import np
from refnaf.reference.stable import log_sigmoid, sigmoid, slopes

#: Raw log-scales are bent to stay within this bound, so that no slope over- or underflows.
LOG_SCALE_BOUND = 8.0

FORMS = ("exp", "softplus", "gated")


def bend(raw: Any) -> Any:
    """``B tanh(raw / B)``: the identity near zero, within ``(-B, B)`` for any argument."""
    return LOG_SCALE_BOUND * np.tanh(raw * (1 / LOG_SCALE_BOUND))


def exponential(x: Any, shift: Any, raw: Any) -> tuple[Any, Any]:
    """MAF's form (eq. 13-19): ``y = exp(alpha) x + shift`` with ``alpha = bend(raw)``."""
    alpha = bend(raw)
    return np.exp(alpha) * x + shift, alpha


def softplus_scaled(x: Any, shift: Any, raw: Any) -> tuple[Any, Any]:
    """A scale from a softplus, 1 at ``raw`` = 0: ``y = slopes(raw) x + shift`` (see :func:`.stable.slopes`)."""
    scale = slopes(raw)
    return scale * x + shift, np.log(scale)


def gated(x: Any, mean: Any, raw: Any) -> tuple[Any, Any]:
    """IAF's numerically stable form (eq. 24): ``y = s x + (1 - s) mean`` with ``s = sigmoid(bend(raw))``."""
    gate = bend(raw)
    return sigmoid(gate) * x + sigmoid(-gate) * mean, log_sigmoid(gate)


def affine(x: Any, theta: Any, form: str = "exp") -> tuple[Any, Any]:
    """One of the three by name: ``theta[0]`` is the shift (or mean), ``theta[1]`` the raw scale.

    Raises ValueError for any other name.
    """
    functions = {"exp": exponential, "softplus": softplus_scaled, "gated": gated}
    if form not in functions:
        raise ValueError(f"the form of an affine transformer must be one of {', '.join(FORMS)}, not {form!r}")
    return functions[form](x, theta[0], theta[1])


def inverse(y: Any, theta: Any, form: str = "exp") -> tuple[Any, Any]:
    """The x with ``affine(x) = y``, in closed form, and ``log dx/dy``."""
    shift, log_slope = affine(0 * y, theta, form)
    return (y - shift) * np.exp(-log_slope), -log_slope
