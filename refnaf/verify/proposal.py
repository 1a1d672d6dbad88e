"""Heavy-tailed proposals fitted to samples, for importance sampling where the density is all there is."""

from __future__ import annotations

import numpy as np

_DEGREES = 5.0  # of freedom of every component
_INFLATE = 1.3


class StudentMixture:
    """A mixture of multivariate t distributions about clusters of rows ``(n, D)``; there should be hundreds of them."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        n, dim = rows.shape
        count = max(1, min(16, n // (10 * (dim + 1))))
        labels = _clusters(rows, count, rng)
        spread = np.cov(rows, rowvar=False).reshape(dim, dim)
        floor = 1e-3 * np.diag(np.diag(spread)) + 1e-12 * np.eye(dim)
        weights, means, factors = [1.0], [rows.mean(axis=0)], [np.linalg.cholesky(1.5 * spread + floor)]
        for k in range(count):
            own = rows[labels == k]
            if len(own) > dim + 1:
                shape = _INFLATE * np.cov(own, rowvar=False).reshape(dim, dim) + floor
                weights.append(9.0 * len(own) / n)
                means.append(own.mean(axis=0))
                factors.append(np.linalg.cholesky(shape))
        self.weights = np.array(weights) / np.sum(weights)
        self.means, self.factors = np.array(means), np.array(factors)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows."""
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        normal = rng.normal(size=(n, self.means.shape[1]))
        stretch = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, size=n))
        return self.means[which] + np.einsum("nij,nj->ni", self.factors[which], normal) * stretch[:, None]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """``log q(x)`` ``(n,)`` in nats."""
        from scipy.special import gammaln, logsumexp

        dim = x.shape[1]
        terms = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            distance = np.sum(np.linalg.solve(factor, (x - mean).T) ** 2, axis=0)
            constant = gammaln((_DEGREES + dim) / 2) - gammaln(_DEGREES / 2) - 0.5 * dim * np.log(_DEGREES * np.pi)
            constant -= np.sum(np.log(np.diag(factor)))
            terms.append(np.log(weight) + constant - 0.5 * (_DEGREES + dim) * np.log1p(distance / _DEGREES))
        return np.asarray(logsumexp(terms, axis=0))


def _clusters(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of Lloyd's k-means on standardised rows."""
    u = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-300)
    means = u[rng.choice(len(u), size=count, replace=False)]
    labels = np.zeros(len(u), int)
    for _ in range(12):
        labels = np.argmin(np.sum((u[:, None] - means) ** 2, axis=2), axis=1)
        for k in range(count):
            if np.any(labels == k):
                means[k] = u[labels == k].mean(axis=0)
    return labels


def effective_size(weights: np.ndarray) -> float:
    """Kish's effective number of samples, ``(sum w)^2 / sum w^2``; 0 where the weights are not finite or all zero."""
    largest = np.max(weights)
    if not (np.isfinite(largest) and largest > 0):
        return 0.0
    w = weights / largest
    return float(w.sum() ** 2 / np.sum(w * w))
