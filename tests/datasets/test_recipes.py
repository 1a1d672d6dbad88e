"""Recipes: each builds, has the published number of parameters, and trains on rows of the right shape."""

from __future__ import annotations

import math

import numpy as np
import pytest

import refnaf
from refnaf.datasets.published import PUBLISHED
from refnaf.datasets.recipes import HIDDEN, RECIPES, naf_parameters, recipe
from tests.refusals import refusal

# De Cao et al. 2019: numbers of parameters of NAF with 5 and 10 flows, and their ratio to those of B-NAF
PUBLISHED_COUNTS = {
    "power": (414_213, 828_258, 2.29, 4.57),
    "gas": (401_741, 803_226, 1.30, 2.60),
    "hepmass": (9_272_743, 18_544_268, 17.94, 35.88),
    "miniboone": (7_487_321, 14_970_256, 43.97, 87.91),
    "bsds300": (36_759_591, 73_510_236, 8.24, 16.48),
}
SMALL = ("power", "gas")


def build(name, data, **changes):
    if name == "tan" and name not in refnaf.models():
        pytest.skip("no model tan in this version")
    found = recipe(name, data)
    return refnaf.build(found.model, PUBLISHED[data].dim, **{**found.options, **changes})


def marked(data):
    return pytest.param(data, marks=() if data in SMALL else pytest.mark.slow)


@pytest.mark.parametrize("flows", [5, 10])
@pytest.mark.parametrize("data", [marked(data) for data in HIDDEN])
def test_published_counts_of_naf(data, flows):
    assert naf_parameters(build(f"maf-ddsf-{flows}", data)) == PUBLISHED_COUNTS[data][flows == 10]


@pytest.mark.parametrize("data", HIDDEN)
def test_published_ratios_of_bnaf(data):
    ours = build("bnaf", data).n_params
    five, ten, *ratios = PUBLISHED_COUNTS[data]
    assert ratios == pytest.approx([five / ours, ten / ours], abs=0.006)


def test_what_the_count_is_made_of():
    """Spelt out for POWER, a term for each array of the authors' program."""
    dim, width, channels, units, flows = 6, 100, 96, 16, 5
    linear = [(width, dim), (width, width), (dim * channels, width)]  # of the conditioner, without its masks
    conditioner = sum(out * below + 4 * out for out, below in linear)  # context: weight, bias, and those of a scale
    pseudo = (1 + 3 * units) + (units + 3 * units)
    shared = units * 1 + units * units + units * units + 1 * units
    last = 2 * (dim * 1 + 2 * dim + dim * dim + 2 * dim + dim * 1 + 2 * dim)
    assert flows * (conditioner + pseudo * (channels + 1) + shared) + last == 414_213


def test_the_count_needs_channels():
    for flow in (refnaf.build("maf-ddsf", 6, flows=1), refnaf.build("maf", 6, flows=1)):
        assert flow.model in refusal(naf_parameters, flow)


@pytest.mark.parametrize("data", [marked(data) for data in HIDDEN])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "tan" else ()) for n in RECIPES])
def test_twenty_steps(name, data):
    build(name, data)  # skips where there is no such model
    found, dim = recipe(name, data), PUBLISHED[data].dim
    rows = np.random.default_rng(3).normal(size=(160, dim)).astype(np.float32)
    training = {**found.training, "epochs": 20, "batch_size": 128}
    flow = refnaf.fit(rows, found.model, validation=None, backend="numpy", **training, **found.options)
    record = flow.provenance["training"]
    assert record["epochs"] == 20  # of one step each
    assert record["averaging"] == found.training["averaging"]
    assert record["learning_rate"] == found.training["learning_rate"]
    assert record["failed_steps"] == 0
    nats = flow.log_prob(rows)
    assert np.isfinite(nats).all()
    assert nats.mean() > -0.5 * dim * math.log(2 * math.pi * math.e) - 0.1 * dim  # no worse than where it began


def test_architectures():
    assert recipe("maf-10", "gas").options == {"flows": 10, "hidden": [100, 100], "activation": "tanh"}
    assert recipe("maf-5", "power").options == {"flows": 5, "hidden": [100, 100], "activation": "relu"}
    found = recipe("maf-mog-5", "miniboone")
    assert found.model == "maf-mog"
    assert found.options == {"flows": 5, "hidden": [512, 512], "activation": "relu", "components": 10}
    assert recipe("made-mog", "bsds300").model == "made-mog"
    found = recipe("maf-ddsf-5", "miniboone")
    assert found.options["channels"] == 3 * (512 // 43) * 2 == 66
    assert found.options["hidden"] == [512]
    assert recipe("bnaf", "hepmass").options == {"flows": 5, "hidden": [20, 20], "residual": "published"}


def test_unknown_names():
    assert "maf-ddsf-5" in refusal(recipe, "maf", "power")
    assert "hepmass" in refusal(recipe, "maf-5", "data.npy")
    assert "hepmass" in refusal(recipe, "maf-5", "mnist")
