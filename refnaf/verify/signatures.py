"""The mistakes that ``refnaf verify`` knows by their numbers. To add one, add an entry to :data:`SIGNATURES`.

An entry has a prediction (the outputs that a flow with the mistake would give), a test of the numbers themselves, or
both. Specific mistakes stand before general ones: where two explain the numbers equally well, the first is named first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refnaf.flows.fixed import Standardise
from refnaf.reference.affine import BENDS, FORMS
from refnaf.reference.made import ACTIVATIONS
from refnaf.verify import compare_theirs as theirs
from refnaf.verify import signatures_altered as altered
from refnaf.verify import signatures_changes as changes
from refnaf.verify import signatures_mistakes as mistakes
from refnaf.verify import signatures_numbers as numbers
from refnaf.verify.signatures_changes import altered_transform
from refnaf.verify.signatures_mistakes import Given, Prediction, logdets, outputs, stepwise


@dataclass(frozen=True)
class Signature:
    """A mistake: its name, a sentence that explains it with its remedy, and how it is recognised."""

    name: str
    remedy: str
    predict: Prediction | None = None
    test: Callable[[Given], tuple[str, float] | None] | None = None
    #: Named only where nothing else is.
    last_resort: bool = False


MIXTURES = ("dsf", "ddsf")

SIGNATURES: list[Signature] = [
    Signature(
        "log-determinant with the wrong sign",
        "The change of variables adds log|det dz/dx| to the base's log-density: negate the log-determinant, or return "
        "that of the direction you computed.",
        logdets(
            [
                ("", lambda step, logdet: -logdet),
                ("of all but the standardisation", mistakes.but_standardise(lambda step, logdet: -logdet)),
            ]
        ),
    ),
    Signature(
        "missing Jacobian of the standardisation",
        "Add -sum(log scale) of the standardisation to the log-determinant, so that log p is in the units of the data.",
        logdets([("", lambda step, logdet: 0 * logdet if isinstance(step.layer, Standardise) else None)]),
    ),
    Signature(
        "log-determinant of one layer only",
        "Sum the log-determinants of all layers instead of keeping that of one.",
        outputs(mistakes.only_layer),
    ),
    Signature(
        "log-determinant of a layer missing",
        "Add the log-determinant of the named layer to the sum.",
        logdets([("", mistakes.but_standardise(lambda step, logdet: 0 * logdet))]),
    ),
    Signature(
        "negated log p",
        "log_prob is the log-density; give it back before it is negated into a loss.",
        outputs(mistakes.signs),
        numbers.negative_gradient,
    ),
    Signature(
        "forward and inverse swapped",
        "forward maps data to the base and inverse maps the base to data: exchange the two.",
        outputs(mistakes.swapped),
    ),
    Signature(
        "direction of the autoregressive layers swapped",
        "The network of MAF reads the layer's input on the data's side, that of IAF the output on the base's side.",
        stepwise([("", changes.other_direction)]),
    ),
    Signature(
        "affine step inverted",
        "The layer is y = scale x + shift; (x - shift) / scale is its inverse.",
        stepwise([("", altered_transform(altered.backwards, "affine"))]),
    ),
    Signature(
        "sum instead of logsumexp",
        "dy/dx is a sum over units of w s(p) s(-p) a: in the log domain that is one logsumexp of the four logarithms.",
        stepwise(
            [
                ("logarithms summed over the units", changes.mixture(altered.summed_as(altered.sum_of_logs))),
                ("logsumexp over the dimensions", altered_transform(altered.OVER_DIMENSIONS, "dsf", all_at_once=True)),
            ]
        ),
    ),
    Signature(
        "factor missing in the mixture's derivative",
        "The derivative of logit(m) is m' / (m (1 - m)) with m' = sum_j w_j a_j s(p_j) s(-p_j): put the factor back.",
        stepwise([(detail, changes.mixture(mixture)) for detail, mixture in altered.MISSING_FACTORS.items()]),
    ),
    Signature(
        "mean instead of sum",
        "The log-determinant and log p are sums over dimensions, mixtures sums over units, and the gradients are those "
        "of a sum over rows: replace the mean, or multiply by the count.",
        mistakes.both(
            outputs(mistakes.scaled_by(("over the dimensions", lambda dim: 1 / dim))),
            logdets([("over the dimensions", mistakes.but_standardise(lambda step, logdet: logdet / step.layer.dim))]),
            stepwise([("over the units", changes.mixture(altered.summed_as(altered.mean_of_units)))]),
        ),
        numbers.any_of(numbers.layout(theirs.MEAN_OF_ROWS), numbers.mean_gradient),
    ),
    Signature(
        "sum over the rows",
        "log_prob and the log-determinant have one number a row: leave the sum over rows to the loss.",
        test=numbers.layout(theirs.SUM_OF_ROWS),
    ),
    Signature(
        "not summed over the dimensions",
        "Sum the log-derivatives, or the base's log-densities, over the dimensions: one number a row is expected.",
        test=numbers.layout(theirs.NOT_SUMMED),
    ),
    Signature(
        "bits instead of nats",
        "Logarithms here are natural: multiply bits by log 2 (bits a dimension also by -D).",
        outputs(
            mistakes.scaled_by(
                ("bits", lambda dim: 1 / np.log(2)), ("bits a dimension, negated", lambda dim: -1 / (dim * np.log(2)))
            )
        ),
    ),
    Signature(
        "base density",
        "The base is the standard normal: log N(z; 0, 1) = -z^2 / 2 - log(2 pi) / 2, summed over the dimensions.",
        outputs(mistakes.base_densities),
    ),
    Signature(
        "pseudo-parameters in another order",
        "Read them in the order a, b, w (and u) within each layer of a sigmoidal transformer, shift before scale in an "
        "affine one; theirs were read in the order named here.",
        stepwise(changes.block_orders()),
    ),
    Signature(
        "parameter-major network outputs",
        "The network's outputs are dimension-major: row i * P + c is parameter c of dimension i; reshape to (D, P).",
        stepwise([("", changes.output_rows(changes.parameter_major))]),
        numbers.layout(theirs.PARAMETER_MAJOR),
    ),
    Signature(
        "missing softplus offset",
        "Slopes are softplus(raw + softplus^-1(1 - 1e-6)) + 1e-6, which is 1 at raw = 0: add the offset.",
        stepwise(
            [
                ("", changes.soft_slopes("no offset")),
                ("and no floor either", changes.soft_slopes("neither offset nor floor")),
            ]
        ),
    ),
    Signature(
        "missing slope floor",
        "Slopes are softplus(...) + 1e-6: add the floor, which keeps the map strictly increasing.",
        stepwise([("", changes.soft_slopes("no floor"))]),
    ),
    Signature(
        "clipping by delta",
        "The mixture is clipped, m' = m (1 - delta) + delta / 2 with delta = 1e-6, as in the NAF authors' code: take "
        "log S+ - log S- with S+- = sum_j w_j s(+-p_j), which needs no clipping.",
        stepwise(
            [
                ("and log-sigmoids low by delta each", changes.other_transformer(*MIXTURES, clip=altered.DELTA)),
                ("", altered_transform(altered.clipped_evenly, *MIXTURES)),
                ("theirs has none, and the configuration asks for it", changes.other_transformer(*MIXTURES, clip=0.0)),
            ]
        ),
    ),
    Signature(
        "softmax over the wrong axis",
        "Weights sum to one over the units (the inputs, for u): take the softmax along that axis.",
        stepwise(changes.softmaxes()),
    ),
    Signature(
        "permutation missing",
        "Put y_i = x_p(i) between the autoregressive layers, with p the order in the configuration.",
        stepwise([("", changes.other_order(np.sort))]),
    ),
    Signature(
        "permutation not inverted",
        "Data to base is y = x[p], base to data x = y[argsort(p)]: one of the two uses the other's order.",
        stepwise([("", changes.other_order(np.argsort))]),
    ),
    Signature(
        "one permutation too many",
        "There is no permutation after the last layer: return z in the order in which it computes it.",
        outputs(mistakes.one_permutation_more),
    ),
    Signature(
        "mask off by one",
        "Hidden units of degree m read inputs of rank <= m and units of degree <= m; an output of rank r reads units "
        "of degree < r, and never its own input.",
        stepwise(
            [
                ("hidden masks strict", changes.strict_masks(first=1, hidden=1)),
                ("masks between hidden layers strict", changes.strict_masks(hidden=1)),
                ("first mask strict", changes.strict_masks(first=1)),
                ("output mask stricter by one", changes.strict_masks(last=1)),
                ("outputs of the dimension before", changes.shifted_rows(1)),
                ("outputs of the next dimension, which read their own input", changes.shifted_rows(-1)),
            ]
        ),
    ),
    Signature(
        "hidden degrees in another order",
        "Degrees rise from the first hidden unit to the last, evenly spread: theirs go round and round.",
        stepwise([("", changes.other_masks(changes.dealt_degrees))]),
    ),
    Signature(
        "gradient outside the mask",
        "Masked weights are no parameters: multiply their gradient by the mask; an output must not read its own input.",
        test=numbers.unmasked_gradient,
    ),
    Signature(
        "scale by variance",
        "Divide by the standard deviation, buffers/0.scale, not by its square or its square root.",
        stepwise(
            [
                ("", changes.other_buffers(lambda b: {"scale": b["scale"] ** 2})),
                ("square root of the scale", changes.other_buffers(lambda b: {"scale": np.sqrt(b["scale"])})),
                ("log-determinant right", changes.other_buffers(lambda b: {"scale": b["scale"] ** 2}, counted=True)),
            ]
        ),
    ),
    Signature(
        "standardisation wrong",
        "The first layer is (x - mean) / scale with the numbers in buffers/.",
        stepwise(
            [
                ("left out", changes.other_buffers(lambda b: {"scale": 1 + 0 * b["scale"], "mean": 0 * b["mean"]})),
                ("mean not subtracted", changes.other_buffers(lambda b: {"mean": 0 * b["mean"]})),
                ("not divided by the scale", changes.other_buffers(lambda b: {"scale": 1 + 0 * b["scale"]})),
                ("multiplied by the scale", changes.other_buffers(lambda b: {"scale": 1 / b["scale"]})),
            ]
        ),
    ),
    Signature(
        "context not standardised",
        "Networks read (context - context_mean) / context_scale with the numbers in buffers/.",
        stepwise(
            [
                (
                    "",
                    changes.other_buffers(
                        lambda b: {"context_mean": 0 * b["context_mean"], "context_scale": np.ones(1)}
                    ),
                )
            ]
        ),
    ),
    Signature(
        "exp scale against softplus",
        "The form of an affine transformer (exp, softplus, gated) is in the configuration; slopes of sigmoidal "
        "transformers are a softplus.",
        stepwise(
            [(f"{form} was used", changes.other_form(form)) for form in FORMS]
            + [("exp was used", changes.soft_slopes("exp"))]
        ),
    ),
    Signature(
        "scale bent otherwise",
        "Raw log-scales go through the bend of the configuration, usually 8 tanh(raw / 8), which keeps slopes finite.",
        stepwise([(f"theirs: {how}", changes.other_transformer("affine", how=how)) for how in reversed(BENDS)]),
    ),
    Signature(
        "wrong activation",
        "The activation of the hidden layers is in the configuration: theirs is the one named here.",
        stepwise([(f"{name} was used", changes.other_activation(name)) for name in ACTIVATIONS]),
    ),
    Signature(
        "bound omitted",
        "What the network reads passes through x / (1 + |x| / bound) first, and so does the context.",
        stepwise(
            [
                ("", changes.other_bound),
                ("of x", changes.one_bound(of_context=True)),
                ("of the context", changes.one_bound(of_context=False)),
            ]
        ),
    ),
    Signature(
        "transposed outputs",
        "Rows are samples: return (N, D), parameters and their gradients as (out, in).",
        test=numbers.layout(theirs.TRANSPOSED),
    ),
    Signature(
        "rows in another order",
        "Return the rows in the order of inputs/x: do not shuffle or sort them.",
        test=numbers.other_rows,
    ),
    Signature(
        "overflow in the tails",
        "Ordinary rows agree and far ones do not: compute in the log domain, with log s(p) = -softplus(-p), a softplus "
        "and logsumexp that subtract the maximum, and no logarithm of 1 - m.",
        test=numbers.tails,
    ),
    Signature(
        "float32 computation passed as float64",
        "The numbers agree to float32's precision only: compute in float64 throughout, or pass them as float32.",
        test=numbers.single_precision,
        last_resort=True,
    ),
    Signature(
        "a constant is missing or too many",
        "Every row is off by the same number of nats: look for a normalising constant or a fixed log-determinant.",
        test=numbers.constant,
        last_resort=True,
    ),
]
