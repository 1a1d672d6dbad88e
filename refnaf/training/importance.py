"""What samples of one density say about another, unnormalised one: importance sampling, and whether to trust it."""

from __future__ import annotations

import dataclasses

import numpy as np

from refnaf.objective import mean_and_error
from refnaf.reference.variational import effective_sample_size, log_normaliser

#: Where the samples are worth less than this part of their number, importance sampling is not to be trusted.
SMALLEST_SHARE = 0.01
#: Nor with a heavier tail of the largest weights than this shape's (Vehtari et al. 2024), unless the samples are worth
#: so much of their number that the tail has little part in the sum.
LARGEST_K, ENOUGH_SHARE = 0.7, 0.5


@dataclasses.dataclass(frozen=True)
class Importance:
    """Estimates from n samples of q with log-weights ``log p(x) - log q(x)``, p unnormalised; all in nats.

    ``elbo``: mean of the log-weights and its standard error, a lower bound on the log normaliser of p.
    ``log_normaliser``: log of the mean weight, and its standard error by the delta method. ``ess``: effective sample
    size ``(sum w)^2 / sum w^2``. ``pareto_k``: shape of the generalised Pareto tail of the largest weights, which has
    no moments of order 1/k and beyond. ``lost``: how many log-weights were NaN or infinite; those have no part in the
    ELBO, and weight 0. None of it can see a part of p where q has no samples.
    """

    samples: int
    elbo: tuple[float, float]
    log_normaliser: tuple[float, float]
    ess: float
    pareto_k: float
    lost: int

    @property
    def distrust(self) -> str | None:
        """Why the log normaliser should not be trusted, or None."""
        if self.lost:
            return f"log_density was not finite at {self.lost:,} of {self.samples:,} samples"
        share = self.ess / self.samples
        if share < SMALLEST_SHARE:
            return f"{self.samples:,} samples have an effective size of only {self.ess:,.1f}"
        if share < ENOUGH_SHARE and self.pareto_k > LARGEST_K:
            return f"the importance weights have too heavy a tail (Pareto k {self.pareto_k:.2f}, above {LARGEST_K})"
        return None


def importance(log_weights: np.ndarray) -> Importance:
    """Estimates from log-weights ``(n,)``, in nats. Raises ValueError where none is finite."""
    fine = np.isfinite(log_weights)
    lost = int(np.sum(~fine))
    if lost == len(log_weights):
        raise ValueError(f"none of {len(log_weights):,} log-weights is finite; the two densities do not overlap")
    counted = np.where(fine, log_weights, -np.inf)
    weights = np.exp(counted - np.max(counted))
    mean, error = mean_and_error(weights)
    return Importance(
        samples=len(weights),
        elbo=mean_and_error(log_weights[fine]),
        log_normaliser=(float(log_normaliser(counted)), error / mean),
        ess=float(effective_sample_size(counted)),
        pareto_k=pareto_k(weights),
        lost=lost,
    )


def pareto_k(weights: np.ndarray) -> float:
    """Shape of a generalised Pareto distribution fitted to the largest of the weights ``(n,)``, 0 where they are equal.

    The tail and the prior on the shape are those of Pareto-smoothed importance sampling (Vehtari, Simpson, Gelman, Yao
    and Gabry 2024, appendix), the fit that of Zhang and Stephens 2009.
    """
    ordered = np.sort(weights)
    count = int(min(0.2 * len(ordered), 3 * np.sqrt(len(ordered))))
    if count < 5:
        return 0.0
    tail = ordered[-count:] - ordered[-count - 1]
    quartile = tail[int(count / 4 + 0.5) - 1]
    if not quartile > 0:
        return 0.0
    grid = 30 + int(np.sqrt(count))
    b = 1 / tail[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quartile)
    k = np.mean(np.log1p(-b[:, None] * tail), axis=1)
    log_likelihood = count * (np.log(-b / k) - k - 1)
    posterior = np.exp(log_likelihood - np.max(log_likelihood))
    mean_b = float(np.sum(b * posterior) / np.sum(posterior))
    shape = float(np.mean(np.log1p(-mean_b * tail)))
    return (count * shape + 5) / (count + 10)
