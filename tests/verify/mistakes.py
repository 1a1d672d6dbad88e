"""Mistakes in somebody else's implementation: the names they should get, and the port's methods written otherwise."""

import numpy as np

from tests.verify.port import Port, sigmoid, softplus
from tests.verify.small_vectors import small, vectors

FLOWS = {
    "maf": {"model": "maf", "dim": 3},
    "softplus": {"model": "maf", "dim": 3, "form": "softplus"},
    "gated": {"model": "maf", "dim": 3, "form": "gated"},
    "context": {"model": "maf", "dim": 3, "context_dim": 2},
    "random": {"model": "maf", "dim": 4, "permutation": "random", "seed": 4},
    "dsf": {"model": "maf-dsf", "dim": 3},
    "dsf-context": {"model": "maf-dsf", "dim": 3, "context_dim": 2},
    "ddsf": {"model": "maf-ddsf", "dim": 3},
    "ddsf-deep": {"model": "maf-ddsf", "dim": 2, "layers": 3},
    "iaf": {"model": "iaf", "dim": 3},
    "iaf-dsf": {"model": "iaf-dsf", "dim": 2},
    "gaussian": {"model": "gaussian", "dim": 3},
    "three": {"model": "maf-dsf", "dim": 3, "flows": 3},
}
DELTA = 1e-6
_MADE = {}


def golden(name):
    """Tensors and header of a flow of FLOWS, made once."""
    if name not in _MADE:
        _MADE[name] = vectors(small(**FLOWS[name]), gradients=name == "dsf")
    tensors, header = _MADE[name]
    return dict(tensors), header


def mistaken(name, **methods):
    """What somebody gives back who wrote these methods of the port otherwise."""
    with np.errstate(all="ignore"):
        return type("Mistaken", (Port,), methods)(*golden(name)).outputs()


def clipped_logit(self, up, down, link):
    m = up * (1 - DELTA) + DELTA / 2
    return np.log(m) - np.log(1 - m), link + np.log(1 - DELTA) - np.log(m) - np.log(1 - m)


def low_link(self, w, p, dp):
    low = np.exp(-softplus(-p) - softplus(p) - 2 * DELTA)
    return np.log((w * low * dp).sum(-1))


def link_without(*left_out):
    def link(self, w, p, dp):
        factors = {"w": w, "plus": sigmoid(p), "minus": sigmoid(-p), "dp": dp}
        product = 0 * p + 1
        for factor, numbers in factors.items():
            product = product if factor in left_out else product * numbers
        return np.log(product.sum(-1))

    return link


def sum_of_logs(self, w, p, dp):
    return np.log(w * sigmoid(p) * sigmoid(-p) * dp).sum(-1)


def over_dimensions(self, w, p, dp):
    summed = np.log((w * sigmoid(p) * sigmoid(-p) * dp).sum(1)).sum(-1, keepdims=True)
    return np.broadcast_to(summed / w.shape[1], w.shape[:2])


def other_softmax(axis, kinds="wu"):
    def softmax(self, raw, usual, of):
        return Port.softmax(self, raw, axis if of in kinds else usual, of)

    return softmax


def parts_in_order(*order):
    def parts(self, theta):
        read = dict(zip(order, np.split(theta, 3, axis=-1), strict=True))
        return read["a"], read["b"], read["w"]

    return parts


def deep_parts_in_order(*order):
    def parts(self, theta, d, layers):
        found, start = [], 0
        for j in range(layers):
            letters = [letter for letter in order if j or letter != "u"]
            read = {letter: theta[..., start + i * d : start + (i + 1) * d] for i, letter in enumerate(letters)}
            found.append([read[letter] for letter in ("abwu" if j else "abw")])
            start += d * len(letters)
        return found

    return parts


def parts_by_kind(self, theta, d, layers):
    """All a, then all b, all w, all u."""
    a, b, w, u = np.split(theta, np.cumsum([layers * d] * 3), axis=-1)
    cut = [np.split(block, layers, axis=-1) for block in (a, b, w)]
    later = [None, *np.split(u, layers - 1, axis=-1)]
    return [[block[j] for block in cut] + ([later[j]] if j else []) for j in range(layers)]


def by_unit(self, theta):
    return theta[..., 0::3], theta[..., 1::3], theta[..., 2::3]


def parameter_major(self, out, dim):
    return out.reshape(len(out), -1, dim).transpose(0, 2, 1)


def other_activation(name):
    return lambda self, h, usual: Port.activation(self, h, name)


def strict_hidden(self, up, low, k):
    return up[:, None] > low


def strict_between(self, up, low, k):
    return up[:, None] > low if k else up[:, None] >= low


def affine_inverted(self, x, theta, form):
    shift, raw = self.affine_parts(theta)
    return (x - shift) / np.exp(self.bend(raw)), -self.bend(raw)


def exp_form(self, x, theta, form):
    return Port.affine(self, x, theta, "exp")


def softplus_form(self, x, theta, form):
    return Port.affine(self, x, theta, "softplus")


def base(variance=1.0, constant=1.0, square=0.5):
    def method(self, z):
        return (-square * z**2 / variance - constant * 0.5 * np.log(2 * np.pi * variance)).sum(1)

    return method


def one_layer(self, k, config, y):
    """Layer 3 with its log-determinant negated, all others right."""
    out, logdet, theta = Port.layer(self, k, config, y)
    return out, -logdet if k == 3 else logdet, theta


def offset_missing_in_layer_3(self, k, config, x, theta):
    layer = self if k != 3 else type("One", (Port,), {"slope": lambda self, raw: softplus(raw) + 1e-6})(*self.given)
    return Port.transform(layer, k, config, x, theta)


def swap_directions(self, k, config, y):
    if config["kind"] == "inverse":
        return self.autoregressive(k, config["layer"], y)
    if config["kind"] == "autoregressive":
        return self.autoregressive_inverse(k, config, y)
    return Port.layer(self, k, config, y)


def context_raw(self):
    return self.c


def standardised(divide=lambda s: s, log=None, shift=True):
    def method(self, x):
        scale = divide(self.scale())
        counted = np.log(scale) if log is None else log * np.log(scale)
        return (x - shift * self.mean()) / scale, np.full(len(x), -counted.sum())

    return method


def steps_one(k):
    return lambda self, logdets: logdets[k]


#: name of the signature, flow, what is written otherwise, words of the detail
PLANTED = [
    ("log-determinant with the wrong sign", "ddsf", {"total": lambda s, parts: -sum(parts)}, ""),
    ("log-determinant with the wrong sign", "dsf", {"per_layer": lambda s, slopes: -slopes.sum(1)}, ""),
    ("log-determinant with the wrong sign", "maf", {"layer": one_layer}, "layer 3 alone"),
    ("log-determinant with the wrong sign", "gaussian", {"log_prob": lambda s, z, det: s.base(z) - det}, ""),
    ("missing Jacobian of the standardisation", "dsf", {"standardise": standardised(log=0)}, ""),
    ("log-determinant of one layer only", "ddsf", {"total": steps_one(-1)}, "layer 3"),
    ("log-determinant of one layer only", "maf", {"total": steps_one(1)}, "layer 1"),
    ("log-determinant of a layer missing", "three", {"total": lambda s, p: sum(p) - p[3]}, "layer 3 alone"),
    ("negated log p", "dsf", {"log_prob": lambda s, z, det: -Port.log_prob(s, z, det)}, ""),
    ("direction of the autoregressive layers swapped", "iaf", {"layer": swap_directions}, ""),
    ("direction of the autoregressive layers swapped", "maf", {"layer": swap_directions}, ""),
    ("direction of the autoregressive layers swapped", "iaf-dsf", {"layer": swap_directions}, ""),
    ("affine step inverted", "maf", {"affine": affine_inverted}, ""),
    ("sum instead of logsumexp", "dsf", {"link": sum_of_logs}, "over the units"),
    ("sum instead of logsumexp", "ddsf", {"link": sum_of_logs}, "over the units"),
    ("sum instead of logsumexp", "iaf-dsf", {"link": sum_of_logs}, "over the units"),
    ("sum instead of logsumexp", "dsf", {"link": over_dimensions}, "over the dimensions"),
    ("factor missing in the mixture's derivative", "dsf", {"link": link_without("dp")}, "slopes"),
    ("factor missing in the mixture's derivative", "dsf", {"link": link_without("w")}, "weights"),
    ("factor missing in the mixture's derivative", "ddsf", {"link": link_without("minus")}, "s(-p)"),
    ("factor missing in the mixture's derivative", "ddsf", {"link": link_without("plus")}, "s(p)"),
    (
        "factor missing in the mixture's derivative",
        "dsf",
        {"logit": lambda s, up, down, link: (np.log(up / down), link)},
        "logit",
    ),
    ("mean instead of sum", "dsf", {"per_layer": lambda s, slopes: slopes.mean(1)}, "over the dimensions"),
    ("mean instead of sum", "dsf", {"base": lambda s, z: Port.base(s, z) / z.shape[1]}, "the base"),
    ("mean instead of sum", "dsf", {"link": lambda s, w, p, dp: Port.link(s, w, p, dp) - np.log(5)}, "units"),
    ("bits instead of nats", "maf", {"log_prob": lambda s, z, det: Port.log_prob(s, z, det) / np.log(2)}, "bits"),
    (
        "bits instead of nats",
        "maf",
        {"log_prob": lambda s, z, det: -Port.log_prob(s, z, det) / np.log(2) / 3},
        "a dimension",
    ),
    ("base density", "maf", {"base": base(variance=np.e)}, "variance e"),
    ("base density", "dsf", {"base": base(variance=2)}, "variance 2"),
    ("base density", "iaf", {"base": base(constant=0)}, "no -D/2 log 2 pi"),
    ("base density", "ddsf", {"base": base(square=1)}, "no 1/2"),
    ("base density", "ddsf", {"base": lambda s, z: 0}, "left out"),
    ("base density", "maf", {"base": lambda s, z: (-z - 2 * softplus(-z)).sum(1)}, "logistic"),
    *(
        ("pseudo-parameters in another order", "dsf", {"dsf_parts": parts_in_order(*order)}, ", ".join(order))
        for order in ("bwa", "wab", "awb", "baw", "wba")
    ),
    ("pseudo-parameters in another order", "iaf-dsf", {"dsf_parts": parts_in_order(*"wba")}, "w, b, a"),
    ("pseudo-parameters in another order", "ddsf", {"ddsf_parts": deep_parts_in_order(*"bauw")}, "b, a, u, w"),
    ("pseudo-parameters in another order", "ddsf-deep", {"ddsf_parts": deep_parts_in_order(*"uwab")}, "u, w, a, b"),
    ("pseudo-parameters in another order", "ddsf-deep", {"ddsf_parts": parts_by_kind}, "a of all layers"),
    ("pseudo-parameters in another order", "dsf", {"dsf_parts": by_unit}, "unit by unit"),
    (
        "pseudo-parameters in another order",
        "maf",
        {"affine_parts": lambda s, t: (t[..., 1], t[..., 0])},
        "scale, shift",
    ),
    ("parameter-major network outputs", "dsf", {"shape": parameter_major}, ""),
    ("parameter-major network outputs", "maf", {"shape": parameter_major}, ""),
    ("missing softplus offset", "dsf", {"slope": lambda s, raw: softplus(raw) + 1e-6}, ""),
    ("missing softplus offset", "ddsf", {"slope": lambda s, raw: softplus(raw)}, "no floor"),
    ("missing softplus offset", "softplus", {"slope": lambda s, raw: softplus(raw) + 1e-6}, ""),
    ("missing softplus offset", "iaf-dsf", {"slope": lambda s, raw: softplus(raw) + 1e-6}, ""),
    ("missing slope floor", "dsf", {"slope": lambda s, raw: Port.slope(s, raw) - 1e-6}, ""),
    ("missing slope floor", "ddsf", {"slope": lambda s, raw: Port.slope(s, raw) - 1e-6}, ""),
    ("clipping by delta", "dsf", {"logit": clipped_logit, "link": low_link}, "log-sigmoids"),
    ("clipping by delta", "ddsf", {"logit": clipped_logit, "link": low_link}, "log-sigmoids"),
    ("clipping by delta", "ddsf", {"logit": clipped_logit}, ""),
    ("softmax over the wrong axis", "dsf", {"softmax": other_softmax(1)}, "dimensions"),
    ("softmax over the wrong axis", "ddsf", {"softmax": other_softmax(-2)}, "w and u over the rows"),
    ("softmax over the wrong axis", "ddsf", {"softmax": other_softmax(-2, "u")}, "u over the rows"),
    ("softmax over the wrong axis", "ddsf", {"softmax": other_softmax(1, "w")}, "w over the dimensions"),
    ("permutation missing", "ddsf", {"permute": lambda s, y, order: (y, np.zeros(len(y)))}, ""),
    ("permutation missing", "iaf", {"permute": lambda s, y, order: (y, np.zeros(len(y)))}, ""),
    ("permutation not inverted", "random", {"order": lambda s, order: np.argsort(order)}, ""),
    ("mask off by one", "dsf", {"hidden_mask": strict_hidden}, "hidden masks strict"),
    ("mask off by one", "maf", {"hidden_mask": strict_between}, "between"),
    ("mask off by one", "random", {"output_mask": lambda s, ranks, low: ranks[:, None] > low + 1}, "output"),
    ("mask off by one", "dsf", {"shape": lambda s, o, d: np.roll(Port.shape(s, o, d), -1, axis=1)}, "next dimension"),
    ("mask off by one", "dsf", {"shape": lambda s, o, d: np.roll(Port.shape(s, o, d), 1, axis=1)}, "before"),
    ("hidden degrees in another order", "dsf", {"degrees": lambda s, d, w: 1 + np.arange(w) % (d - 1)}, ""),
    ("hidden degrees in another order", "context", {"degrees": lambda s, d, w: np.arange(w) % d}, ""),
    ("scale by variance", "dsf", {"standardise": standardised(lambda s: s**2)}, ""),
    ("scale by variance", "maf", {"standardise": standardised(np.sqrt)}, "square root"),
    ("scale by variance", "maf", {"standardise": standardised(lambda s: s**2, log=0.5)}, ""),
    ("standardisation wrong", "ddsf", {"standardise": lambda s, x: (x, np.zeros(len(x)))}, "left out"),
    ("standardisation wrong", "maf", {"standardise": standardised(shift=False)}, "mean not subtracted"),
    ("standardisation wrong", "maf", {"standardise": standardised(lambda s: 1 / s)}, "multiplied"),
    ("context not standardised", "context", {"context": context_raw}, ""),
    ("context not standardised", "dsf-context", {"context": context_raw}, ""),
    ("exp scale against softplus", "maf", {"affine": softplus_form}, "softplus"),
    ("exp scale against softplus", "softplus", {"affine": exp_form}, "exp"),
    ("exp scale against softplus", "dsf", {"slope": lambda s, raw: np.exp(raw)}, "exp"),
    ("scale bent otherwise", "maf", {"bend": lambda s, raw: raw}, "none"),
    ("scale bent otherwise", "gated", {"bend": lambda s, raw: raw}, "none"),
    *(("wrong activation", "dsf", {"activation": other_activation(name)}, name) for name in ("relu", "tanh")),
    ("wrong activation", "iaf", {"activation": other_activation("relu")}, "relu"),
    ("bound omitted", "dsf", {"squash": lambda s, x, bound: x}, ""),
    ("bound omitted", "context", {"squash_context": lambda s, c, bound: c}, "of the context"),
    (
        "bound omitted",
        "context",
        {"squash": lambda s, x, b: x, "squash_context": lambda s, c, b: c / (1 + abs(c) / b)},
        "of x",
    ),
]
