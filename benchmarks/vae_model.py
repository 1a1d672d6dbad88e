"""A variational autoencoder of binary images whose posterior is a diagonal Gaussian or a flow of one.

    h(x), mean(x), scale(x) = encoder,    z_0 = mean + scale eps,    z = f(z_0; h),    logits = decoder(z)

f is a flow of refnaf in the direction base to data (one pass of an IAF), and the identity for the Gaussian; eps and the
prior of z are standard normal. Kingma et al. 2016, algorithm 1, with the transformers of Huang et al. 2018, section 4.
Networks compute in the dtype of the numbers, densities in float64; all of it can be differentiated by autograd.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from autograd.extend import defvjp, primitive
from autograd.misc import flatten

import refnaf
from refnaf.flows import model_options
from refnaf.ops_backends import default_backend
from refnaf.parallel import Workers
from refnaf.reference.density import normal_log_prob
from refnaf.reference.made import activate
from refnaf.reference.stable import logit, sigmoid, softplus
from refnaf.reference.variational import log_normaliser, sample_log_prob

Array = np.ndarray
#: Every posterior form, and the model that is its flow.
POSTERIORS: dict[str, str | None] = {"gaussian": None, "iaf": "iaf", "iaf-dsf": "iaf-dsf", "iaf-ddsf": "iaf-ddsf"}
#: Log-scales are bent to stay within this, so that no scale over- or underflows.
LOG_SCALE_BOUND = 8.0


class Sizes(NamedTuple):
    """Widths of the networks; ``flows``, ``flow_hidden`` and ``units`` are those of a flow posterior."""

    pixels: int = 784
    latent: int = 32
    hidden: tuple[int, ...] = (300, 300)
    context: int = 64
    flows: int = 2
    flow_hidden: tuple[int, ...] = (128,)
    units: int = 16


class Posterior(NamedTuple):
    """What the encoder makes of images: mean and log-scale ``(N, L)``, context ``(N, C)`` or None."""

    mean: Any
    log_scale: Any
    context: Any


class Terms(NamedTuple):
    """At a sample z of each image's posterior, ``(N,)`` nats: ``log p(x | z)``, ``log p(z)`` and ``log q(z | x)``."""

    log_likelihood: Any
    log_prior: Any
    log_q: Any


@primitive
def bernoulli_log_prob(logits: Any, x: Any) -> Any:
    """``sum_i log p(x_i)`` of bits x by logits, both ``(N, P)``: ``(N,)`` nats, as ``x logit - softplus(logit)``."""
    return np.sum(x * logits - softplus(logits), axis=1)


# one exponential a pixel, where a tape of the lines above keeps ten arrays of the images' size
defvjp(
    bernoulli_log_prob,
    lambda ans, logits, x: lambda g: g[:, None] * (x - sigmoid(logits)),
    argnums=(0,),
)


class Vae:
    """The networks' and the flow's numbers by name, and what is computed with them.

    It has what the training loop asks of a flow: ``params``, ``dtype``, ``backend`` and :meth:`replace`. Every method
    takes the parameters as an argument, for autograd to trace.
    """

    def __init__(
        self,
        posterior: str,
        sizes: Sizes,
        params: Mapping[str, Array],
        flow: refnaf.Flow | None,
        history: list[dict[str, Any]] | None = None,
    ) -> None:
        self.posterior, self.sizes, self.params, self.flow = posterior, sizes, dict(params), flow
        self.history = history or []
        self.dtype = next(iter(self.params.values())).dtype
        self.backend = default_backend() if flow is None else flow.backend

    def replace(self, params: Mapping[str, Array], history: list[dict[str, Any]] | None = None) -> Vae:
        """The same with copies of other numbers."""
        copies = {name: np.array(array, self.dtype) for name, array in params.items()}
        return Vae(self.posterior, self.sizes, copies, self.flow, history or self.history)

    @property
    def n_params(self) -> tuple[int, int]:
        """How many numbers are free: of the networks, and of the flow, without those outside its masks."""
        networks = sum(array.size for name, array in self.params.items() if not name.startswith("flow."))
        return networks, 0 if self.flow is None else self.flow.n_params

    def encode(self, params: Any, x: Any) -> Posterior:
        """Posteriors of images ``(N, P)``."""
        out, latent = _network(params, "encoder", x), self.sizes.latent
        log_scale = LOG_SCALE_BOUND * anp.tanh(out[:, latent : 2 * latent] * (1 / LOG_SCALE_BOUND))
        return Posterior(out[:, :latent], log_scale, None if self.flow is None else out[:, 2 * latent :])

    def draw(self, params: Any, posterior: Posterior, eps: Any) -> tuple[Any, Any]:
        """Samples z ``(N, L)`` by standard normal eps ``(N, L)``, and ``log q(z | x)`` ``(N,)``; both in float64."""
        mean, log_scale, context = posterior
        z = mean + anp.exp(log_scale) * eps
        logdet = anp.sum(log_scale.astype(np.float64), axis=1)
        base = normal_log_prob(eps.T.astype(np.float64))
        if self.flow is None:
            return z.astype(np.float64), sample_log_prob(base, logdet)
        own = {name: params[f"flow.{name}"] for name in self.flow.params}
        z, bent = self.flow.inverse(z, context, params=own)
        return z, sample_log_prob(base, logdet + bent)

    def logits(self, params: Any, z: Any) -> Any:
        """Of the pixels: z ``(N, L)`` to ``(N, P)``."""
        return _network(params, "decoder", z.astype(self.dtype))

    def terms(self, params: Any, x: Any, posterior: Posterior, eps: Any) -> Terms:
        """The parts of the evidence's lower bound at one sample an image."""
        z, log_q = self.draw(params, posterior, eps)
        log_likelihood = bernoulli_log_prob(self.logits(params, z), x).astype(np.float64)
        return Terms(log_likelihood, normal_log_prob(z.T), log_q)

    def negative_elbo(self, params: Any, x: Any, eps: Any, beta: float = 1.0) -> Any:
        """Mean over images x ``(N, P)`` of ``beta (log q(z | x) - log p(z)) - log p(x | z)``, in nats."""
        at = self.terms(params, x, self.encode(params, x), eps)
        return anp.mean(beta * (at.log_q - at.log_prior) - at.log_likelihood)

    def log_weights(self, x: Array, samples: int, rng: np.random.Generator, block: int = 2000) -> Array:
        """``log p(x, z) - log q(z | x)`` at so many samples of every image ``(N, P)``: ``(N, samples)`` nats.

        About ``block`` samples are computed together.
        """
        at_once, out = max(block // samples, 1), np.empty((len(x), samples))
        for start in range(0, len(x), at_once):
            images = x[start : start + at_once].astype(self.dtype)
            parts = self.encode(self.params, images)
            repeated = Posterior(*(None if part is None else np.repeat(part, samples, axis=0) for part in parts))
            eps = rng.standard_normal((len(images) * samples, self.sizes.latent), dtype=self.dtype)
            at = self.terms(self.params, np.repeat(images, samples, axis=0), repeated, eps)
            weights = at.log_likelihood + at.log_prior - at.log_q
            out[start : start + at_once] = weights.reshape(len(images), samples)
        return out


def log_evidence(log_weights: Array) -> Array:
    """``log p(x)`` ``(N,)`` nats from log-weights ``(N, K)``: the log of the mean weight (Burda et al. 2016, eq. 8).

    Low by half the weights' relative variance over K, to first order.
    """
    return np.array([log_normaliser(row) for row in log_weights])


def build(
    posterior: str,
    pixel_means: Array,
    sizes: Sizes,
    *,
    seed: int = 0,
    dtype: str = "float32",
    backend: str | None = None,
) -> Vae:
    """An untrained autoencoder: its flow near the identity, its decoder near the pixels' means ``(P,)``.

    Raises ValueError for an unknown posterior form.
    """
    if posterior not in POSTERIORS:
        raise ValueError(f"posterior must be one of {', '.join(POSTERIORS)}, not {posterior!r}")
    model, latent = POSTERIORS[posterior], sizes.latent
    flow = None
    if model is not None:
        options: dict[str, Any] = {"flows": sizes.flows, "hidden": sizes.flow_hidden}
        options |= {"units": sizes.units} if "units" in model_options(model) else {}
        flow = refnaf.build(model, latent, sizes.context, seed, dtype, **options)
        flow = flow.replace({}, threads=1, backend=backend or flow.backend)
    rng = np.random.default_rng(seed)
    params = _initial(rng, "encoder", (sizes.pixels, *sizes.hidden, 2 * latent + (sizes.context if flow else 0)))
    params |= _initial(rng, "decoder", (latent, *sizes.hidden[::-1], sizes.pixels))
    params[f"decoder.{len(sizes.hidden)}.bias"] = logit(np.clip(pixel_means, 0.01, 0.99))
    params = {name: array.astype(dtype) for name, array in params.items()}
    if flow is not None:
        params |= {f"flow.{name}": np.array(array) for name, array in flow.params.items()}
    return Vae(posterior, sizes, params, flow)


class NegativeElbo:
    """:meth:`Vae.negative_elbo` and its gradient as functions of one flat vector of parameters.

    Like :class:`refnaf.objective.Objective`, for the training loop.
    """

    def __init__(self, vae: Vae) -> None:
        self.vae, self.workers = vae, Workers()
        self._flat, self.views = flatten(vae.params)
        self._gradient: Callable[..., tuple[float, dict[str, Array]]] = value_and_grad(vae.negative_elbo)

    def flat(self) -> Array:
        """The parameters as one vector ``(size,)``; ``views`` is the way back."""
        return self._flat.copy()

    def params(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of a flat vector."""
        return self.views(flat)

    def whole(self, flat: Array) -> Array:
        """A flat vector as a checkpoint keeps it, and as :meth:`stored` has it back."""
        return flat

    stored = whole

    def put(self, array: Array) -> Array:
        """An array where the loss is computed: here."""
        return array

    def __call__(self, flat: Array, x: Array, eps: Array, beta: float) -> tuple[float, Array]:
        """The mean over images x ``(N, P)`` at noise eps ``(N, L)``, and its gradient ``(size,)``."""
        loss, grads = self._gradient(self.views(flat), x, eps, beta)
        return float(loss), flatten(grads)[0]

    def close(self) -> None:
        """Stop the threads."""
        self.workers.close()


def _initial(rng: np.random.Generator, name: str, widths: tuple[int, ...]) -> dict[str, Array]:
    """Weights of a network with variance one over the inputs, and no biases."""
    params = {}
    for k, (fan_in, width) in enumerate(itertools.pairwise(widths)):
        params[f"{name}.{k}.weight"] = rng.normal(size=(fan_in, width)) / np.sqrt(fan_in)
        params[f"{name}.{k}.bias"] = np.zeros(width)
    return params


def _network(params: Any, name: str, x: Any) -> Any:
    """Fully connected layers with ELU between them."""
    k = 0
    while f"{name}.{k}.weight" in params:
        x = anp.dot(activate(x, "elu") if k else x, params[f"{name}.{k}.weight"]) + params[f"{name}.{k}.bias"]
        k += 1
    return x
