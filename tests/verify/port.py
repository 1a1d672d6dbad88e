"""Somebody else's implementation of the flows, rows first and written from the formulas alone: every step is a method,
so that a test can get one of them wrong. Far out it overflows, as such code does."""

import math

import numpy as np


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Port:
    def __init__(self, tensors, header):
        self.t, self.config = tensors, header["config"]
        self.x, self.c = tensors["inputs/x"], tensors.get("inputs/context")

    def p(self, k, name):
        return self.t[f"params/{k}.{name}"]

    # layers

    def scale(self):
        return self.t["buffers/0.scale"]

    def mean(self):
        return self.t["buffers/0.mean"]

    def standardise(self, x):
        return (x - self.mean()) / self.scale(), np.full(len(x), -np.log(self.scale()).sum())

    def context(self):
        if self.c is None:
            return None
        return (self.c - self.t["buffers/0.context_mean"]) / self.t["buffers/0.context_scale"]

    def order(self, order):
        return order

    def permute(self, y, order):
        return y[:, self.order(order)], np.zeros(len(y))

    def triangular(self, k, y):
        lower, diagonal = self.p(k, "lower"), self.p(k, "log_diagonal")
        out = (y + y @ np.tril(lower, -1).T) * np.exp(diagonal) + self.p(k, "shift")
        if self.c is not None:
            out = out + self.context() @ self.p(k, "context").T
        return out, np.full(len(y), diagonal.sum())

    # networks

    def squash(self, x, bound):
        return x if bound is None else x / (1 + np.abs(x) / bound)

    def squash_context(self, c, bound):
        return self.squash(c, bound)

    def activation(self, h, name):
        return {"tanh": np.tanh(h), "relu": np.maximum(h, 0), "elu": np.where(h > 0, h, np.expm1(np.minimum(h, 0)))}[
            name
        ]

    def degrees(self, dim, width):
        lowest = 0 if self.c is not None or dim == 1 else 1
        return lowest + np.arange(width) * (dim - lowest) // width

    def masks(self, dim, hidden, outputs):
        below, out = np.arange(1, dim + 1), []
        for width in hidden:
            degrees = self.degrees(dim, width)
            out.append(self.hidden_mask(degrees, below, len(out)))
            below = degrees
        return [*out, np.repeat(self.output_mask(np.arange(1, dim + 1), below), outputs, axis=0)]

    def hidden_mask(self, up, low, k):
        return up[:, None] >= low

    def output_mask(self, ranks, low):
        return ranks[:, None] > low

    def shape(self, out, dim):
        return out.reshape(len(out), dim, -1)

    def theta(self, k, config, y):
        dim = y.shape[1]
        h = self.squash(y, config["bound"])
        c = None if self.c is None else self.squash_context(self.context(), config["bound"])
        count = len(self.p(k, f"bias.{len(config['hidden'])}")) // dim
        for j, mask in enumerate(self.masks(dim, config["hidden"], count)):
            h = h @ (self.p(k, f"weight.{j}") * mask).T + self.p(k, f"bias.{j}")
            if c is not None:
                h = h + c @ self.p(k, f"context.{j}").T
            if j < len(config["hidden"]):
                h = self.activation(h, config["activation"])
        return self.shape(h, dim)

    # transformers: theta is (N, D, P), mixtures are (N, D, d) or (N, D, out, d)

    def slope(self, raw):
        return softplus(raw + math.log(math.expm1(1 - 1e-6))) + 1e-6

    def affine_parts(self, theta):
        return theta[..., 0], theta[..., 1]

    def bend(self, raw):
        return 8 * np.tanh(raw / 8)

    def affine(self, x, theta, form):
        shift, raw = self.affine_parts(theta)
        if form == "softplus":
            return self.slope(raw) * x + shift, np.log(self.slope(raw))
        s = self.bend(raw)
        if form == "exp":
            return np.exp(s) * x + shift, s
        return sigmoid(s) * x + sigmoid(-s) * shift, np.log(sigmoid(s))

    def softmax(self, raw, axis, of):
        e = np.exp(raw - raw.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    def mixture(self, w, p):
        return (w * sigmoid(p)).sum(-1), (w * sigmoid(-p)).sum(-1)

    def link(self, w, p, dp):
        """log sum_j w_j s(p_j) s(-p_j) p_j'."""
        return np.log((w * sigmoid(p) * sigmoid(-p) * dp).sum(-1))

    def logit(self, up, down, link):
        return np.log(up) - np.log(down), link - np.log(up) - np.log(down)

    def dsf_parts(self, theta):
        return np.split(theta, 3, axis=-1)

    def dsf(self, x, theta):
        a, b, w = self.dsf_parts(theta)
        w = self.softmax(w, -1, "w")
        p = self.slope(a) * x[..., None] + b
        return self.logit(*self.mixture(w, p), self.link(w, p, self.slope(a)))

    def ddsf_parts(self, theta, d, layers):
        """(a, b, w) of the first layer, (a, b, w, u) of the others."""
        sizes = [d] * (3 + 4 * (layers - 1))
        parts = np.split(theta, np.cumsum(sizes)[:-1], axis=-1)
        return [parts[:3], *(parts[3 + 4 * j : 7 + 4 * j] for j in range(layers - 1))]

    def ddsf(self, k, x, theta, d, layers):
        h, log_tangent = x[..., None], 0 * x[..., None]
        matrices = [self.p(k, f"shared.{j}") for j in range(2 * layers - 1)]
        for j, part in enumerate(self.ddsf_parts(theta, d, layers)):
            a, b = self.slope(part[0]), part[1]
            w = self.softmax(matrices[2 * j] + part[2][:, :, None], -1, "w")
            tangent = np.exp(log_tangent)
            if j:
                u = self.softmax(matrices[2 * j - 1] + part[3][:, :, None], -1, "u")
                h, tangent = (u * h[:, :, None]).sum(-1), (u * tangent[:, :, None]).sum(-1)
            p = (a * h + b)[:, :, None]
            h, log_tangent = self.logit(*self.mixture(w, p), self.link(w, p, (a * tangent)[:, :, None]))
        return h[..., 0], log_tangent[..., 0]

    def transform(self, k, config, x, theta):
        options = config["transformer_config"]
        if options["name"] == "affine":
            return self.affine(x, theta, options["form"])
        if options["name"] == "dsf":
            return self.dsf(x, theta)
        return self.ddsf(k, x, theta, options["units"], options["layers"])

    def per_layer(self, log_slope):
        return log_slope.sum(1)

    def autoregressive(self, k, config, y):
        theta = self.theta(k, config, y)
        out, log_slope = self.transform(k, config, y, theta)
        return out, self.per_layer(log_slope), theta

    def autoregressive_inverse(self, k, config, y):
        """Dimension after dimension; the roots by bisection."""
        x = np.zeros_like(y)
        for i in range(y.shape[1]):
            low, high = np.full(len(y), -1e9), np.full(len(y), 1e9)
            for _ in range(90):
                x[:, i] = (low + high) / 2
                above = self.autoregressive(k, config, x)[0][:, i] > y[:, i]
                low, high = np.where(above, low, x[:, i]), np.where(above, x[:, i], high)
        _, logdet, theta = self.autoregressive(k, config, x)
        return x, -logdet, theta

    # the flow

    def total(self, logdets):
        return sum(logdets)

    def base(self, z):
        return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(1)

    def log_prob(self, z, logdet):
        return self.base(z) + logdet

    def layer(self, k, config, y):
        kind = config["kind"]
        if kind == "inverse":
            return self.autoregressive_inverse(k, config["layer"], y)
        if kind == "autoregressive":
            return self.autoregressive(k, config, y)
        if kind == "standardise":
            return *self.standardise(y), None
        return *(self.permute(y, config["order"]) if kind == "permutation" else self.triangular(k, y)), None

    def outputs(self):
        out, y, logdets = {}, self.x, []
        with np.errstate(all="ignore"):
            for k, config in enumerate(self.config["layers"]):
                y, logdet, theta = self.layer(k, config, y)
                logdets.append(logdet)
                out |= {f"layers/{k}/y": y, f"layers/{k}/logdet": logdet}
                if theta is not None:
                    out[f"layers/{k}/theta"] = theta
            logdet = self.total(logdets)
            return {**out, "z": y, "logdet": logdet, "log_prob": self.log_prob(y, logdet)}
