"""The full-covariance Gaussian, fitted in closed form: as a model, and as the first layer of others."""

from __future__ import annotations

import numpy as np

from refnaf.flows.fixed import Triangular
from refnaf.flows.flow import Flow
from refnaf.parallel import serial_algebra
from refnaf.training.data import Rows

#: With fewer training rows a column, or with a context, a flow begins with a fixed linear layer that whitens the rows,
#: unless told otherwise. A network would learn the covariance from so few rows with more noise than they allow; from
#: more it learns it as well, and edges along the axes are better left where they are.
FEW_ROWS = 50

#: Shares of its diagonal that a covariance may be given, and the folds of rows that choose among them.
SHARES, FOLDS = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0), 5


def wants_linear(rows: Rows) -> bool:
    """Whether a flow fitted to these rows has a linear layer if nothing else is asked for."""
    return rows.context is not None or len(rows) < FEW_ROWS * rows.x.shape[1]


@serial_algebra()
def fit_gaussian(flow: Flow, rows: Rows) -> Flow:
    """Maximum likelihood for a standardised ``gaussian`` flow.

    With a context the mean is a linear function of it. The covariance is kept positive definite by a ridge of 1e-9 of
    the columns' variances.
    """
    numbers = _numbers(*_residuals(flow, rows), share=0.0)
    return flow.replace({f"1.{name}": array for name, array in numbers.items()})


@serial_algebra()
def whiten(flow: Flow, rows: Rows) -> Flow:
    """The flow with its fixed linear layer, if it has one, set to whiten the rows.

    The covariance is drawn towards its diagonal by the share that scores the rows of each fold best by the others.
    """
    layer = flow.layers[1]
    if isinstance(layer, Triangular) and layer.fixed:
        residuals, coefficients = _residuals(flow, rows)
        scores = [_cross_validated(residuals, share) for share in SHARES]
        layer.buffers.update(_numbers(residuals, coefficients, share=SHARES[int(np.argmax(scores))]))
    return flow


def _residuals(flow: Flow, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows less their mean, linear in the context ``(N, D)``; and its coefficients ``(C + 1, D)``."""
    standard = flow.layers[0]
    y = (rows.x - standard.buffers["mean"]) / standard.buffers["scale"]
    design = np.ones((len(y), 1))
    if rows.context is not None:
        c = flow.standard_context(rows.context.T).astype(np.float64).T
        design = np.concatenate([c, design], axis=1)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    return y - design @ coefficients, coefficients


def _factor(residuals: np.ndarray, share: float) -> np.ndarray:
    """Lower triangular L ``(D, D)`` with L residuals white."""
    covariance = residuals.T @ residuals / len(residuals)
    diagonal = np.diag(np.diag(covariance))
    covariance = (1 - share) * covariance + share * diagonal + 1e-9 * np.eye(len(covariance))
    return np.linalg.inv(np.linalg.cholesky(covariance))


def _cross_validated(residuals: np.ndarray, share: float) -> float:
    """Mean nats of the residuals, each fold by the covariance of the others, up to a constant."""
    fold = np.arange(len(residuals)) % FOLDS
    total = 0.0
    for k in range(FOLDS):
        factor = _factor(residuals[fold != k], share)
        white = residuals[fold == k] @ factor.T
        total += np.sum(fold == k) * np.sum(np.log(np.diag(factor))) - 0.5 * np.sum(white * white)
    return float(total / len(residuals))


def _numbers(residuals: np.ndarray, coefficients: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """Parameters of the linear layer behind the standardisation."""
    factor = _factor(residuals, share)
    scale = np.diag(factor)
    numbers = {
        "lower": np.tril(factor / scale[:, None], -1),
        "log_diagonal": np.log(scale),
        "shift": -factor @ coefficients[-1],
    }
    if len(coefficients) > 1:
        numbers["context"] = -factor @ coefficients[:-1].T
    return numbers
