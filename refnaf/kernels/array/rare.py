"""The rare columns: where a fast form would underflow or overflow, the reference answers, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Sums of positive terms below these have lost digits to underflow.
SMALLEST = {np.dtype(np.float32): 1e-30, np.dtype(np.float64): 1e-280}

Transform = Callable[..., tuple[Any, Any]]


class RareColumns:
    """Columns ``(i, n)`` of x ``(D, N)`` and theta ``(D, P, N)`` that the reference evaluates instead.

    The transform is called as ``transform(x, theta, *shared)``.
    """

    def __init__(
        self,
        transform: Transform,
        where: np.ndarray,
        x: np.ndarray,
        theta: np.ndarray,
        shared: Sequence[np.ndarray] = (),
    ) -> None:
        self.transform = transform
        self.shared = [np.asarray(a, np.float64) for a in shared]
        self.rows, self.columns = np.nonzero(where)
        self.x = x[self.rows, self.columns].astype(np.float64)
        self.theta = np.ascontiguousarray(theta[self.rows, :, self.columns].T, dtype=np.float64)

    def patch(self, y: np.ndarray, log_slope: np.ndarray) -> None:
        """Overwrite the columns' results."""
        value, slope = self.transform(self.x, self.theta, *self.shared)
        with np.errstate(over="ignore"):
            y[self.rows, self.columns] = value
            log_slope[self.rows, self.columns] = slope

    def patch_vjp(
        self,
        grad_y: np.ndarray,
        grad_log_slope: np.ndarray,
        grad_x: np.ndarray,
        grad_theta: np.ndarray,
    ) -> list[np.ndarray]:
        """Overwrite the columns' gradients by autograd on the reference; return those of the shared arrays."""
        from autograd import make_vjp
        from autograd.builtins import tuple as traced_tuple

        def traced(arguments: Any) -> Any:
            return traced_tuple(self.transform(*arguments))

        pull, _ = make_vjp(traced)((self.x, self.theta, *self.shared))
        grads = pull(
            (
                grad_y[self.rows, self.columns].astype(np.float64),
                np.broadcast_to(grad_log_slope, grad_y.shape)[self.rows, self.columns].astype(np.float64),
            )
        )
        grad_x[self.rows, self.columns] = grads[0]
        grad_theta[self.rows, :, self.columns] = grads[1].T
        return list(grads[2:])
