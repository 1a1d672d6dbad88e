"""A flow that needs no fitting, and rows for it."""

import math

import numpy as np


class GaussianFlow:
    """What a picture needs of a flow, for a Gaussian with independent columns."""

    model = "gaussian"

    def __init__(self, mean, sd, context_dim=0, history=(), provenance=None):
        self.mean, self.sd = np.asarray(mean, dtype=float), np.asarray(sd, dtype=float)
        self.dim, self.context_dim = len(self.mean), context_dim
        self.n_params = 2 * self.dim
        self.history = list(history)
        self.provenance = provenance or {}
        self.contexts = []

    def check(self, rows, context):
        assert (context is None) == (self.context_dim == 0)
        if context is not None:
            assert context.shape == (rows, self.context_dim)
            self.contexts.append(context)

    def log_prob(self, x, context=None):
        assert x.shape[1] == self.dim
        self.check(len(x), context)
        z = (x - self.mean) / self.sd
        return -0.5 * (z**2).sum(axis=1) - np.log(self.sd).sum() - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(self, n, seed=0, context=None):
        self.check(n, context)
        return self.mean + self.sd * np.random.default_rng(seed).normal(size=(n, self.dim))

    def rosenblatt(self, x, context=None):
        self.check(len(x), context)
        return np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), otypes=[float])((x - self.mean) / self.sd)


HISTORY = [
    {"epoch": i + 1, "train": 2 - 3 * math.exp(-i / 3), "validation": 1.5 - 3 * math.exp(-i / 3) - 0.01 * max(0, i - 6)}
    for i in range(12)
]


def flow_of(dim, **options):
    options.setdefault("history", HISTORY)
    return GaussianFlow(np.arange(dim), np.linspace(1.0, 2.0, dim), **options)


def rows_of(dim, n=150, seed=1):
    return np.arange(dim) + np.random.default_rng(seed).normal(size=(n, dim))
