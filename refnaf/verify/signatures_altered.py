"""Operations with one thing wrong in them: the ways in which conditioners and transformers are mistaken.

Arrays are as in :mod:`refnaf.reference`: x ``(...)``, pseudo-parameters ``(P, ...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refnaf.kernels.array.root import monotone_root
from refnaf.ops import BRACKETS, REFERENCE, ReferenceOps
from refnaf.reference import affine, ddsf
from refnaf.reference.dsf import clipped, logit_of_mixture
from refnaf.reference.stable import SLOPE_FLOOR, inverse_softplus, log_sigmoid, log_softmax, logsumexp, slopes, softplus

#: What takes the place of a transformer: (name, x, theta, shared, options) to y and log dy/dx.
Transform = Callable[[str, Any, Any, Sequence[Any], dict[str, Any]], tuple[Any, Any]]

#: The clipping of the NAF authors' code.
DELTA = 1e-6


def right(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """The transformer itself."""
    y, log_slope = REFERENCE[name](x, theta, *shared, **options)
    return y, log_slope


class Altered(ReferenceOps):
    """The reference with another transformer, or with a network whose arguments or output rows are tampered with."""

    def __init__(
        self,
        transform: Transform | None = None,
        arguments: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None,
        rows: Callable[[Any], Any] | None = None,
    ) -> None:
        self._transform, self._arguments, self._rows = transform, arguments, rows

    def network(self, *arguments: Any) -> tuple[Any, None]:
        out = super().network(*(self._arguments(arguments) if self._arguments else arguments))[0]
        return (self._rows(out) if self._rows else out), None

    def transform(
        self, name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any], overwrite: bool = False
    ) -> Any:
        if self._transform is None:
            return super().transform(name, x, theta, shared, options)
        y, log_slope = self._transform(name, x, np.moveaxis(theta, 1, 0), shared, options)
        return y, log_slope + 0 * y, None

    def invert(self, name: str, y: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> Any:
        altered = self._transform
        if altered is None:
            return super().invert(name, y, theta, shared, options)

        def function(x: np.ndarray, index: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
            return altered(name, x, theta[:, index], shared, options)

        if name == "affine":
            shift = function(0 * y)[0]
            x = (y - shift) / (function(0 * y + 1)[0] - shift)
            return x, -function(x)[1], 0 * y
        # the bracket is that of the right transformer: a mistaken one may have its root somewhat outside
        low, high = BRACKETS[name](y, theta, *shared, **options)
        reach = 30 + 2 * (high - low)
        x, log_slope, residual = monotone_root(function, y, low - reach, high + reach)
        return x, -log_slope, residual


# pseudo-parameters that are read differently


def blocks(name: str, theta: Any, shared: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """Which pseudo-parameters are what: for each layer of the transformer, rows by the letter or word for them."""
    index = np.arange(len(theta))
    if name == "affine":
        return [{"shift": index[:1], "scale": index[1:]}]
    if name == "mog":
        return [dict(zip(("weights", "means", "scales"), np.split(index, 3), strict=True))]
    if name == "dsf":
        return [dict(zip("abw", np.split(index, 3), strict=True))]
    d = shared[0].shape[1]
    parts = ddsf.split(index, d, len(ddsf.pairs(shared)))
    return [dict(zip("abwu", part if k else part[:3], strict=False)) for k, part in enumerate(parts)]


def reread(order: Callable[[list[dict[str, np.ndarray]]], np.ndarray]) -> Transform:
    """The transformer on the same pseudo-parameters in another order, which ``order`` makes from the :func:`blocks`."""

    def transform(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
        return right(name, x, theta[order(blocks(name, theta, shared))], shared, options)

    return transform


def in_order(letters: Sequence[str]) -> Callable[[list[dict[str, np.ndarray]]], np.ndarray]:
    """Blocks that lie in the order of ``letters`` within each layer, for someone who reads them so."""

    def order(layers: list[dict[str, np.ndarray]]) -> np.ndarray:
        out = []
        for layer in layers:
            read = dict(zip([letter for letter in letters if letter in layer], layer.values(), strict=True))
            out += [read[letter] for letter in layer]
        return np.concatenate(out)

    return order


def interleaved(layers: list[dict[str, np.ndarray]]) -> np.ndarray:
    """All pseudo-parameters of a unit side by side, then those of the next."""
    return np.concatenate(
        [np.concatenate(list(layer.values())).reshape(-1, len(layer)).T.reshape(-1) for layer in layers]
    )


def by_kind(layers: list[dict[str, np.ndarray]]) -> np.ndarray:
    """First the a of all layers, then the b, and so on."""
    sizes = [(letter, k, len(layer[letter])) for letter in "abwu" for k, layer in enumerate(layers) if letter in layer]
    starts = np.cumsum([0, *(size for *_, size in sizes)])
    where = {(letter, k): start + np.arange(size) for (letter, k, size), start in zip(sizes, starts, strict=False)}
    return np.concatenate([where[letter, k] for k, layer in enumerate(layers) for letter in layer])


def slopes_from(wanted: Callable[[Any, float], Any]) -> Transform:
    """The transformer with another function from raw numbers and the floor to positive slopes."""

    def transform(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
        rows = np.concatenate([layer["scale" if name == "affine" else "a"] for layer in blocks(name, theta, shared)])
        floor = options.get("floor", SLOPE_FLOOR)
        changed = np.array(theta)
        # the raw numbers from which the right function makes those slopes
        changed[rows] = inverse_softplus(wanted(theta[rows], floor) - floor) - inverse_softplus(1 - floor)
        return right(name, x, changed, shared, options)

    return transform


#: Mistaken slopes, by what is said of them.
SLOPES: dict[str, Callable[[Any, float], Any]] = {
    "no offset": lambda raw, floor: softplus(raw) + floor,
    "neither offset nor floor": lambda raw, floor: softplus(raw),
    "no floor": lambda raw, floor: slopes(raw, floor) - floor,
    "exp": lambda raw, floor: np.exp(raw),
}


# affine


def backwards(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """``(x - shift) / scale``."""
    return affine.inverse(x, theta, **options)


# mixtures of sigmoids


def clipped_evenly(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """Clipped as in the NAF authors' code, but with exact log-sigmoids: theirs are low by delta each."""
    y, log_slope = right(name, x, theta, shared, {**options, "clip": DELTA})
    return y, log_slope + 2 * DELTA * len(blocks(name, theta, shared))


#: y and log dy/dx from p, log a, the logarithm of the tangent that came in, and log w.
Mixture = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
#: (values, axis, "w" or "u") to the logarithm of their softmax.
Softmax = Callable[[Any, int, str], Any]


def usual_mixture(p: Any, log_a: Any, log_tangent: Any, log_w: Any) -> tuple[Any, Any]:
    """The right one."""
    return logit_of_mixture(p, log_a + log_tangent, log_w)


def sigmoidal(
    mixture: Mixture = usual_mixture, soft: Softmax = lambda values, axis, of: log_softmax(values, axis)
) -> Transform:
    """DSF and DDSF with another mixture or softmax: the loop of :func:`refnaf.reference.ddsf.ddsf`, exchangeable."""

    def transform(name: str, x: Any, theta: Any, shared: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Any]:
        clip = options.get("clip", 0.0)
        if name == "dsf":
            a, b, w = np.split(theta, 3)
            return clipped(*mixture(slopes(a) * x + b, np.log(slopes(a)), 0.0, soft(w, 0, "w")), clip)
        layers = ddsf.pairs(shared)
        h, tangent = x[None], 0 * x[None]
        for part, (matrix_u, matrix_w) in zip(
            ddsf.split(theta, layers[0][1].shape[1], len(layers)), layers, strict=True
        ):
            a, b, w, u = part
            if u is not None:
                log_u = soft(_plus_row(matrix_u, u), 1, "u")
                h, tangent = np.sum(np.exp(log_u) * h, axis=1), logsumexp(log_u + tangent, axis=1)
            h, tangent = clipped(
                *mixture(slopes(a) * h + b, np.log(slopes(a)), tangent, soft(_plus_row(matrix_w, w), 1, "w")), clip
            )
        return h[0], tangent[0]

    return transform


def _plus_row(matrix: Any, row: Any) -> Any:
    return np.reshape(matrix, matrix.shape + (1,) * (row.ndim - 1)) + row


def _logs(p: Any, log_w: Any) -> tuple[Any, Any, Any, Any, int]:
    """log s(p), log s(-p), log S+, log S- and the axis of the units."""
    axis = log_w.ndim - p.ndim
    plus, minus = log_sigmoid(p), log_sigmoid(-p)
    return plus, minus, logsumexp(log_w + plus, axis), logsumexp(log_w + minus, axis), axis


def summed_as(link: Callable[[Any, Any, Any, Any, Any, int], Any]) -> Mixture:
    """A mixture with the right y whose derivative sums something else: ``link`` of log w, log s(p), log s(-p), log a,
    the logarithm of the tangent and the units' axis takes the place of the logsumexp of their sum."""

    def mixture(p: Any, log_a: Any, log_tangent: Any, log_w: Any) -> tuple[Any, Any]:
        plus, minus, s_plus, s_minus, axis = _logs(p, log_w)
        return s_plus - s_minus, link(log_w, plus, minus, log_a, log_tangent, axis) - s_plus - s_minus

    return mixture


def sum_of_logs(log_w: Any, plus: Any, minus: Any, log_a: Any, log_tangent: Any, axis: int) -> Any:
    """A sum over the units in the log domain, where the derivative's sum is not."""
    return np.sum(log_w + plus + minus + log_a + log_tangent, axis=axis)


def mean_of_units(log_w: Any, plus: Any, minus: Any, log_a: Any, log_tangent: Any, axis: int) -> Any:
    """The mean over the units of what is to be summed."""
    return logsumexp(log_w + (plus + minus + log_a + log_tangent), axis) - np.log(plus.shape[0])


def without_logit(p: Any, log_a: Any, log_tangent: Any, log_w: Any) -> tuple[Any, Any]:
    """The derivative of the mixture, not of its logit."""
    y, log_slope = usual_mixture(p, log_a, log_tangent, log_w)
    _, _, s_plus, s_minus, _ = _logs(p, log_w)
    return y, log_slope + s_plus + s_minus


def over_dimensions(log_w: Any, plus: Any, minus: Any, log_a: Any, log_tangent: Any, axis: int) -> Any:
    """A logsumexp over the dimensions, then a sum over the units, spread evenly so that only the total counts."""
    total = np.sum(logsumexp(log_w + plus + minus + log_a + log_tangent, axis + 1), axis=axis)
    return total / plus.shape[1]


def plain_logit(p: Any, log_a: Any, log_tangent: Any, log_w: Any) -> tuple[Any, Any]:
    """``log m - log(1 - m)``, which is something else where the weights do not sum to one."""
    plus, minus, s_plus, _, axis = _logs(p, log_w)
    rest = np.log(1 - np.exp(s_plus))
    return s_plus - rest, logsumexp(log_w + (plus + minus + log_a + log_tangent), axis) - s_plus - rest


def softmax_over(shift: int, of: str = "wu") -> Softmax:
    """A softmax along the axis that many places further on, for w, u or both."""
    return lambda values, axis, kind: log_softmax(values, axis + (shift if kind in of else 0))


#: Factors of the derivative that are forgotten.
MISSING_FACTORS: dict[str, Mixture] = {
    "1 / (m (1 - m)) of the logit": without_logit,
    "the slopes a": summed_as(lambda w, plus, minus, a, t, axis: logsumexp(w + (plus + minus + t), axis)),
    "the weights w": summed_as(lambda w, plus, minus, a, t, axis: logsumexp(0 * w + (plus + minus + a + t), axis)),
    "s(-p)": summed_as(lambda w, plus, minus, a, t, axis: logsumexp(w + (plus + a + t), axis)),
    "s(p)": summed_as(lambda w, plus, minus, a, t, axis: logsumexp(w + (minus + a + t), axis)),
    "the tangent of the layer before": summed_as(
        lambda w, plus, minus, a, t, axis: logsumexp(w + (plus + minus + a), axis)
    ),
}

#: A transformer with that logsumexp.
OVER_DIMENSIONS = sigmoidal(summed_as(over_dimensions))
