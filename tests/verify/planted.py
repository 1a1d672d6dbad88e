"""A small correct flow in plain NumPy, in which one line can be wrong: standardisation, two MADE layers with a deep
sigmoidal transformer, a permutation between them.

``Planted(bug=None)`` is right. Of every bug the name says what is done to the line that asks for it.
"""

from __future__ import annotations

import numpy as np

DIM, HIDDEN, UNITS = 3, 12, 3


class Planted:
    def __init__(self, bug: str | None = None, context_dim: int = 0, layers: int = 2) -> None:
        self.bug, self.context_dim = bug, context_dim
        rng = np.random.default_rng(7)
        self.mean, self.scale = np.array([1.0, -2.0, 0.5]), np.array([0.5, 2.0, 1.7])
        self.permutation = np.array([2, 0, 1])
        self.layers = [
            {
                "w1": rng.normal(size=(HIDDEN, DIM)),
                "c1": rng.normal(size=(HIDDEN, context_dim)),
                "b1": rng.normal(size=HIDDEN),
                "w2": 0.35 * rng.normal(size=(DIM * 3 * UNITS, HIDDEN)),
                "b2": np.tile(np.linspace(-1, 1, 3 * UNITS), DIM) + 0.1 * rng.normal(size=DIM * 3 * UNITS),
            }
            for _ in range(layers)
        ]
        self.cache: dict[str, np.ndarray] = {}
        self.noise = np.random.default_rng(8)

    # the conditioner

    def masks(self):
        ranks = np.arange(1, DIM + 1)
        degrees = 1 + np.arange(HIDDEN) % (DIM - 1)
        first = degrees[:, None] >= ranks
        last = ranks[:, None] > degrees
        if self.bug == "output mask not strict":
            last = ranks[:, None] >= degrees
        if self.bug == "no output mask":
            last = np.ones_like(last)
        if self.bug == "no hidden mask":
            first = np.ones_like(first)
        if self.bug == "hidden mask reversed":
            first = degrees[:, None] <= ranks
        if self.bug == "output rows of theta in the wrong order":
            return first, np.tile(last, (3 * UNITS, 1))
        return first, np.repeat(last, 3 * UNITS, axis=0)

    def theta(self, layer, x, c):
        first, last = self.masks()
        hidden = x @ (layer["w1"] * first).T + layer["b1"]
        if c is not None:
            if self.bug == "context averaged over the batch":
                c = np.broadcast_to(c.mean(axis=0), c.shape)
            if self.bug == "context of row 0 for all":
                c = np.broadcast_to(c[:1], c.shape)
            if self.bug == "context rows shifted":
                c = np.roll(c, 1, axis=0)
            if self.bug != "context ignored":
                hidden = hidden + c @ layer["c1"].T
        if self.bug == "batch normalisation":
            hidden = (hidden - hidden.mean(axis=0)) / (hidden.std(axis=0) + 0.1)
        if self.bug == "dropout":
            hidden = hidden * (self.noise.random(hidden.shape) < 0.9)
        if self.bug == "float32 network":
            hidden = hidden.astype(np.float32)
        hidden = np.maximum(hidden, 0) if self.bug == "relu (correct)" else np.tanh(hidden)
        if self.bug == "maximum over the batch":
            hidden = hidden / np.max(np.abs(hidden))
        theta = (hidden @ (layer["w2"] * last).T + layer["b2"]).reshape(-1, DIM, 3 * UNITS)
        if self.bug == "theta smoothed along the batch":
            theta = theta + 0.01 * np.roll(theta, 1, axis=0)
        return theta

    def split(self, theta):
        """Slopes a > 0, offsets b, log-weights (..., UNITS)."""
        raw, b, logits = theta[..., :UNITS], theta[..., UNITS : 2 * UNITS], theta[..., 2 * UNITS :]
        a = np.logaddexp(0, raw) + 0.05
        if self.bug == "slopes not positive":
            a = raw
        if self.bug == "softmax over dimensions":
            return a, b, logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
        if self.bug == "weights not normalised":
            return a, b, logits
        return a, b, logits - logsumexp(logits)[..., None]

    # the transformer

    def transform(self, x, theta):
        """y and log dy/dx: the logit of a mixture of sigmoids, x (...), theta (..., 3 UNITS)."""
        a, b, log_w = self.split(theta)
        p = a * x[..., None] + b
        low = np.maximum(np.min(p, axis=-1), 0)  # taken out of log S-, and high out of log S+: exact in the tails
        high = np.maximum(np.min(-p, axis=-1), 0)
        plus, minus = log_sigmoid(p, high), log_sigmoid(-p, low)
        s_plus, s_minus = logsumexp(log_w + plus), logsumexp(log_w + minus)
        y = s_plus - s_minus + low - high
        log_a = 0 * a if self.bug == "slope without log a" else np.log(a)
        link = logsumexp(log_w + plus + minus + log_a)
        log_slope = link - s_plus - s_minus
        if self.bug == "naive logit":
            m = np.sum(np.exp(log_w) / (1 + np.exp(-p)), axis=-1)
            y = np.log(m) - np.log(1 - m)
        if self.bug == "clipped outputs":
            y = np.clip(y, -2, 2)
        if self.bug == "clipped to 14.5":
            y = np.clip(y, -14.5, 14.5)
        if self.bug == "bounded output":
            y, log_slope = 3 * np.tanh(y / 3), log_slope - 2 * np.log(np.cosh(np.clip(y, -900, 900) / 3))
        if self.bug == "slope of one unit only":
            log_slope = np.log(a[..., 0]) + 0 * y
        if self.bug == "slope without the logit's":
            log_slope = link - low - high
        if self.bug == "slope with S+ only":
            log_slope = link - 2 * s_plus
        return y, log_slope

    def solve(self, y, theta):
        """x (n,) with transform(x) = y: Newton's method, kept by bisection in a bracket that always holds the root."""
        a, b, _ = self.split(theta)
        roots = (y[:, None] - b) / a
        low, high = roots.min(axis=1), roots.max(axis=1)
        if self.bug == "small bracket":
            low, high = np.maximum(low, -1.5), np.minimum(high, 1.5)
        x = 0.5 * (low + high)
        for _ in range(2 if self.bug == "few solver steps" else 60):
            value, log_slope = self.transform(x, theta)
            low, high = np.where(value > y, low, x), np.where(value > y, x, high)
            step = x - (value - y) * np.exp(-np.clip(log_slope, -30, 30))
            before, x = x, np.where((step >= low) & (step <= high), step, 0.5 * (low + high))
            if np.all(np.abs(x - before) <= 4e-16 * np.abs(x)):
                break
        return x

    # the flow

    def forward(self, x, c=None):
        if self.bug == "empty batch" and len(x) == 0:
            x.max()
        if self.bug == "buffer order":
            x = np.ravel(x, order="K").reshape(x.shape)
        if self.bug == "input changed":
            x -= self.mean
            y = x / self.scale
        else:
            y = (x - self.mean) / self.scale
        if self.bug == "float32 overflow" and x.dtype == np.float32:
            y = np.log(np.exp(np.float32(40) * y.astype(np.float32))) / 40
        terms = np.zeros_like(y) - (0 if self.bug == "standardisation not counted" else np.log(self.scale))
        if self.bug == "standardisation with the wrong sign":
            terms = terms + 2 * np.log(self.scale)
        if self.bug == "standardisation counted as variance":
            terms = terms - np.log(self.scale)
        for k, layer in enumerate(self.layers):
            if k:
                y = y[:, self.permutation]
            y, log_slope = self.transform(y, self.theta(layer, y, c))
            if self.bug == "one coordinate missing":
                log_slope = log_slope * [1, 1, 0]
            if self.bug == "one coordinate with the wrong sign":
                log_slope = log_slope * [1, -1, 1]
            terms = log_slope if self.bug == "overwritten, not added" else terms + log_slope
            if self.bug == "last layer not counted" and k == len(self.layers) - 1:
                terms = terms - log_slope
        logdet = terms.sum(axis=1)
        if self.bug == "float32 output":
            y = y.astype(np.float32)
        if self.bug == "float32 in between":
            y = y.astype(np.float32).astype(np.float64)
        if self.bug == "reflected (correct)":
            y = -y
        if self.bug == "stale cache":
            logdet = self.cache.setdefault(f"logdet {len(x)}", logdet)
        if self.bug == "stale cache of another size":
            logdet = self.cache.setdefault("logdet", logdet)
        if self.bug == "squeeze":
            y = np.squeeze(y)
        if self.bug == "transposed z":
            return y.T, logdet
        return y, self.planted_logdet(logdet, terms, y)

    def planted_logdet(self, logdet, terms, z):
        with np.errstate(over="ignore"):
            wrong = {
                "sign": lambda: -logdet,
                "mean over dimensions": lambda: terms.mean(axis=1),
                "bits": lambda: logdet / np.log(2),
                "log10": lambda: logdet / np.log(10),
                "base constant added": lambda: logdet + 0.5 * DIM * np.log(2 * np.pi),
                "twice": lambda: 2 * logdet,
                "half": lambda: 0.5 * logdet,
                "per dimension": lambda: terms,
                "keepdims": lambda: logdet[:, None],
                "scalar": lambda: logdet.sum(),
                "summed over the batch": lambda: np.full_like(logdet, logdet.sum()),
                "determinant, not its log": lambda: np.exp(logdet),
                "absolute value": lambda: np.abs(logdet),
                "base log-density added": lambda: logdet - 0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1),
                "rows reversed": lambda: logdet[::-1],
                "clipped": lambda: np.clip(logdet, -3.0, 0.5),
                "zero": lambda: 0 * logdet,
                "summed over rows": lambda: terms.sum(axis=0),
                "integers": lambda: logdet.astype(int),
            }
            return wrong[self.bug]() if self.bug in wrong else logdet

    def inverse(self, z, c=None):
        y, total = np.asarray(z, np.float64), np.zeros(len(z))
        layers = self.layers[::-1]
        if self.bug == "reflected (correct)":
            y = -y
        if self.bug == "layers in the wrong order":
            layers = self.layers
        if self.bug == "inverse is forward":
            return self.forward(y, c)
        for k, layer in enumerate(layers):
            x = np.zeros_like(y)
            coordinates = range(DIM)
            if self.bug == "coordinates solved in the wrong order":
                coordinates = reversed(coordinates)
            stale = self.theta(layer, x, c)
            for i in coordinates:
                theta = stale if self.bug == "one pass of the conditioner" else self.theta(layer, x, c)
                x[:, i] = self.solve(y[:, i], theta[:, i])
            if self.bug == "inverse's logdet before the last step":
                total = total - self.transform(y, self.theta(layer, y, c))[1].sum(axis=1)
            else:
                total = total - self.transform(x, self.theta(layer, x, c))[1].sum(axis=1)
            y = x
            if k < len(layers) - 1:
                back = self.permutation if self.bug == "permutation not inverted" else np.argsort(self.permutation)
                y = y[:, back]
        if self.bug == "inverse not destandardised":
            return y, total
        x = self.mean + self.scale * y
        if self.bug == "mean forgotten in inverse":
            x = self.scale * y
        if self.bug == "inverse's logdet without standardisation":
            return x, total
        total = total + np.log(self.scale).sum()
        if self.bug == "inverse columns permuted":
            x = x[:, [1, 0, 2]]
        return x, -total if self.bug == "inverse's logdet with forward's sign" else total

    def log_prob(self, x, c=None):
        z, logdet = self.forward(x, c)
        half = 0.5 * np.log(2 * np.pi)
        base = np.sum(-0.5 * z**2 - half, axis=1)
        with np.errstate(over="ignore"):
            wrong = {
                "log_prob without constant": lambda: base + DIM * half + logdet,
                "log_prob with one dimension's constant": lambda: base + (DIM - 1) * half + logdet,
                "log_prob minus logdet": lambda: base - logdet,
                "log_prob without logdet": lambda: base,
                "log_prob without base": lambda: logdet,
                "log_prob per dimension": lambda: (base + logdet) / DIM,
                "log_prob in bits": lambda: (base + logdet) / np.log(2),
                "negative log-likelihood": lambda: -(base + logdet),
                "logistic base": lambda: np.sum(-np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z))), axis=1) + logdet,
                "Laplace base": lambda: np.sum(-np.abs(z) - np.log(2), axis=1) + logdet,
                "base of variance e": lambda: np.sum(-0.5 * z**2 / np.e - half - 0.5, axis=1) + logdet,
                "base without the half": lambda: np.sum(-(z**2) - half, axis=1) + logdet,
                "mean over the batch": lambda: np.full(len(z), np.mean(base + logdet)),
                "the density itself": lambda: np.exp(base + logdet),
            }
            return wrong[self.bug]() if self.bug in wrong else base + logdet

    def sample(self, n, seed, context=None):
        rng = np.random.default_rng(3 if self.bug == "seed ignored" else seed)
        if self.bug == "global random numbers":
            rng = self.noise
        z = rng.normal(size=(n, DIM))
        wrong = {
            "samples of temperature 0.9": lambda: 0.9 * z,
            "uniform noise": lambda: rng.uniform(-(3**0.5), 3**0.5, size=(n, DIM)),
            "one column of noise": lambda: np.repeat(z[:, :1], DIM, axis=1),
            "truncated noise": lambda: np.clip(z, -1.5, 1.5),
            "samples repeated": lambda: np.repeat(z[: (n + 1) // 2], 2, axis=0)[:n],
            "one sample too few": lambda: z[: max(n - 1, 0)],
        }
        z = wrong[self.bug]() if self.bug in wrong else z
        if self.bug == "samples are noise":
            return z
        x = (self.forward if self.bug == "samples by forward" else self.inverse)(z, context)[0]
        if self.bug == "samples in standard units":
            return (x - self.mean) / self.scale
        if self.bug == "samples' columns reversed":
            return x[:, ::-1]
        if self.bug == "samples clipped":
            return np.clip(x, self.mean - self.scale, self.mean + self.scale)
        return x.astype(np.float32) if self.bug == "float32 samples" else x


def log_sigmoid(p, shift):
    """log sigmoid(p) + shift, with the shift taken out first where p is far below zero."""
    return np.minimum(p, 0) + shift[..., None] - np.log1p(np.exp(-np.abs(p)))


def logsumexp(a):
    top = a.max(axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(a - top), axis=-1)) + top[..., 0]
