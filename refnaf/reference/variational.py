"""Variational inference with a flow (slides eq. 5-7 and 31-37; Rezende and Mohamed 2015, Huang et al. 2018).

q is a flow, sampled as ``z_K = f_K(... f_1(z_0))`` from base noise z_0; p is known up to its normaliser Z. What goes in
are nats of samples of q, ``(N,)``.
"""

from __future__ import annotations

from typing import Any

import numpy

from refnaf.reference._numpy import np, value
from refnaf.reference.stable import logsumexp

#: The power of the target at the first step of an annealed run.
FIRST_BETA = 0.01


def sample_log_prob(base_log_prob: Any, log_determinant: Any) -> Any:
    """``log q(z_K) = log q(z_0) - log|det dz_K/dz_0|``: change of variables in the direction of sampling."""
    return base_log_prob - log_determinant


def free_energy(log_q: Any, log_p: Any, beta: float = 1.0) -> Any:
    """``E_q[log q(z_K) - beta log p(z_K)]``, a number: at beta 1 it is ``KL(q || p) - log Z``, and minus the ELBO.

    Where the samples are functions of q's parameters (the base noise held), so is this. Its derivative has a part of
    mean zero, the score, by the parameters inside ``log q`` at given samples; the path derivative of Roeder, Wu and
    Duvenaud 2017 leaves that out.
    """
    return np.mean(log_q - beta * log_p)


def annealed(step: float, rising: float) -> float:
    """The power of the target, rising from 0.01 to 1 over the first ``rising`` steps, then 1."""
    return min(1.0, FIRST_BETA + (1 - FIRST_BETA) * step / rising) if rising > 0 else 1.0


def log_normaliser(log_weights: Any) -> Any:
    """Importance sampling: the log of the mean weight, of log-weights ``log p(z_K) - log q(z_K)``."""
    return logsumexp(log_weights) - numpy.log(len(value(log_weights)))


def effective_sample_size(log_weights: Any) -> Any:
    """``(sum w)^2 / sum w^2``, from 1 to N."""
    weights = np.exp(log_weights - numpy.max(value(log_weights)))
    return np.sum(weights) ** 2 / np.sum(weights**2)
