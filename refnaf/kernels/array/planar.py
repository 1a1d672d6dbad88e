"""Planar flows (reference: :mod:`refnaf.reference.planar`) with their analytic VJP and their inverse.

With ``h = tanh p``, ``k = slope - 1``, ``E = h^2 + slope (1 - h^2)``, g and l the cotangents of f and of ``log E``:

    dp = (1 - h^2) (u^'g - 2 k h l / E),    du^ = h g,    d(slope) = (1 - h^2) l / E + du^'w / |w|^2,

and through ``p = w'z + b``, ``u^ = u + (k - w'u) w / |w|^2`` and ``slope = slopes(w'u)`` to z, u, w and b.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refnaf.kernels.array.root import monotone_root
from refnaf.kernels.array.stable import sigmoid_pair, slopes
from refnaf.kernels.array.workspace import Workspace
from refnaf.reference import planar as reference


def steepness(p: np.ndarray, ws: Workspace) -> np.ndarray:
    """``1 - tanh^2 p``, without cancellation."""
    plus, minus = sigmoid_pair(2 * p, ws)
    return 4 * plus * minus


def forward(
    z: np.ndarray, u: np.ndarray, w: np.ndarray, b: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, Any]:
    """z ``(D, N)`` to f ``(D, N)``, the log-determinant ``(N,)``, and what :func:`vjp` needs."""
    u_hat, slope = reference.constrain(u, w)
    p = np.sum(w * z, axis=0) + b
    h, steep = np.tanh(p), steepness(p, ws)
    determinant = h * h + slope * steep
    return z + u_hat * h, np.log(determinant), (z, u, w, u_hat, slope, h, steep, determinant)


def vjp(
    saved: Any, grad_f: np.ndarray, grad_logdet: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cotangents of f ``(D, N)`` and the log-determinant ``(N,)`` to those of z, u, w and b, in their shapes."""
    z, u, w, u_hat, slope, h, steep, determinant = saved
    shared = u.shape[1] != z.shape[1]

    def over(array: np.ndarray) -> np.ndarray:
        """The sum over samples where they share the parameter."""
        return np.sum(array, axis=-1, keepdims=True) if shared else array

    through = grad_logdet / determinant
    grad_p = steep * (np.sum(u_hat * grad_f, axis=0) - 2 * (slope - 1) * h * through)
    grad_u_hat, square = over(h * grad_f), np.sum(w * w, axis=0)
    square = square + (square == 0)
    along = np.sum(w * u, axis=0)
    per_square = np.sum(grad_u_hat * w, axis=0) / square
    moved = (slope - 1 - along) / square
    # the derivative of slopes() is 1 - exp(-softplus)
    grad_along = (over(steep * through) + per_square) * slopes(along, ws)[1] - per_square
    grad_u = grad_u_hat + grad_along * w
    grad_w = over(grad_p * z) + grad_along * u + moved * (grad_u_hat - 2 * per_square * w)
    return grad_f + w * grad_p, grad_u, grad_w, over(grad_p)


def inverse(
    f: np.ndarray, u: np.ndarray, w: np.ndarray, b: np.ndarray, ws: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The z with ``f(z) = f``, ``-log|det df/dz|`` ``(N,)``, and the residual ``(N,)`` of the root p it is found by."""
    u_hat, slope = reference.constrain(u, w)
    target = np.sum(w * f, axis=0) + b
    slope = np.broadcast_to(slope, target.shape)
    mark = ws.mark()

    def function(p: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ws.release(mark)
        h = np.tanh(p)
        return p + (slope[index] - 1) * h, np.log(h * h + slope[index] * steepness(p, ws))

    p, log_determinant, residual = monotone_root(function, target, *reference.bracket(target, slope))
    ws.release(mark)
    return f - u_hat * np.tanh(p), -log_determinant, residual


def solve_transposed(saved: Any, wanted: np.ndarray) -> np.ndarray:
    """The v with ``J'v = wanted`` at the saved point: J is the identity plus ``u^ psi'`` (Sherman and Morrison)."""
    _, _, w, u_hat, _, _, steep, determinant = saved
    return wanted - w * (steep * np.sum(u_hat * wanted, axis=0) / determinant)
