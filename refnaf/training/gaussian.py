"""The full-covariance Gaussian, fitted in closed form."""

from __future__ import annotations

import numpy as np

from refnaf.flows.flow import Flow


def fit_gaussian(flow: Flow, x: np.ndarray, context: np.ndarray | None) -> Flow:
    """Maximum likelihood for a standardised ``gaussian`` flow: rows x ``(N, D)``, context ``(N, C)`` or None.

    With a context the mean is a linear function of it. The covariance is kept positive definite by a ridge of 1e-9 of
    the columns' variances.
    """
    standard = flow.layers[0]
    y = (x - standard.buffers["mean"]) / standard.buffers["scale"]
    numbers: dict[str, np.ndarray] = {}
    shift = np.zeros((flow.dim, 0))
    if context is not None:
        c = flow.standard_context(context.T).astype(np.float64).T
        design = np.concatenate([c, np.ones((len(c), 1))], axis=1)
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        y = y - design @ coefficients
        shift, mean = coefficients[:-1].T, coefficients[-1]
    else:
        mean = y.mean(axis=0)
        y = y - mean
    covariance = y.T @ y / len(y) + 1e-9 * np.eye(flow.dim)
    factor = np.linalg.cholesky(covariance)
    whiten = np.linalg.inv(factor)
    scale = np.diag(whiten)
    numbers["1.lower"] = np.tril(whiten / scale[:, None], -1)
    numbers["1.log_diagonal"] = np.log(scale)
    numbers["1.shift"] = -whiten @ mean
    if context is not None:
        numbers["1.context"] = -whiten @ shift
    return flow.replace(numbers)
