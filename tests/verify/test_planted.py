"""Every planted bug is caught by the check that is there for it, and named where it leaves a signature."""

from __future__ import annotations

import pytest

from refnaf.verify import check_flow
from refnaf.verify.conformance import CHECKS
from tests.verify.planted import Planted

# bug -> (layers, the check that must fail, words of its likely cause)
BUGS = {
    # log-determinants
    "sign": (2, "log-determinant", "the sign is wrong"),
    "mean over dimensions": (2, "log-determinant", "factor 1/D"),
    "bits": (2, "log-determinant", "factor 1/ln 2"),
    "log10": (2, "log-determinant", "factor 1/ln 10"),
    "twice": (2, "log-determinant", "counted twice"),
    "half": (2, "log-determinant", "half of it"),
    "zero": (2, "log-determinant", "does not change with x"),
    "clipped": (1, "log-determinant", "clipped to [-3"),
    "determinant, not its log": (2, "log-determinant", "a log is missing"),
    "absolute value": (2, "log-determinant", "the sign is wrong"),
    "base constant added": (2, "log-determinant", "D/2 log 2 pi"),
    "base log-density added": (2, "log-determinant", "the base's log-density is added"),
    "standardisation not counted": (2, "log-determinant", "a standardisation"),
    "standardisation with the wrong sign": (2, "log-determinant", "with the wrong sign"),
    "standardisation counted as variance": (2, "log-determinant", "off by the constant -0.53"),
    "one coordinate missing": (1, "log-determinant", "dz_2/dx_2 of one coordinate is missing"),
    "one coordinate with the wrong sign": (1, "log-determinant", "dz_1/dx_1 of one coordinate has the wrong sign"),
    "overwritten, not added": (2, "log-determinant", "a layer"),
    "last layer not counted": (2, "log-determinant", "a layer"),
    "slope without log a": (2, "log-determinant", "factor of its derivative"),
    "slope without the logit's": (2, "log-determinant", "factor of its derivative"),
    "slope with S+ only": (2, "log-determinant", "factor of its derivative"),
    "slope of one unit only": (2, "log-determinant", "factor of its derivative"),
    "weights not normalised": (2, "log-determinant", "factor of its derivative"),
    "softmax over dimensions": (1, "log-determinant", "factor of its derivative"),
    "output mask not strict": (1, "log-determinant", "a mask that is off by one"),
    "no output mask": (1, "log-determinant", "a mask"),
    "no hidden mask": (1, "log-determinant", "a mask"),
    "hidden mask reversed": (1, "log-determinant", "a mask"),
    "output rows of theta in the wrong order": (1, "log-determinant", "a mask"),
    # shapes, dtypes, purity
    "per dimension": (1, "shapes", "one number per dimension"),
    "keepdims": (1, "shapes", "keepdims"),
    "scalar": (1, "shapes", "one number for the whole batch"),
    "summed over rows": (1, "shapes", "summed over the rows"),
    "transposed z": (1, "shapes", "transposed"),
    "stale cache of another size": (1, "shapes", "a stale cache"),
    "one sample too few": (1, "shapes", "the number of rows is not n"),
    "integers": (1, "dtypes", "rounded to whole ones"),
    "float32 output": (1, "dtypes", "float32 leak"),
    "float32 samples": (1, "dtypes", "float32 leak"),
    "float32 in between": (1, "precision", "float32 leak"),
    "float32 network": (1, "precision", "float32 leak"),
    "slopes not positive": (1, "precision", "not kept positive"),
    "float32 overflow": (1, "float32", "overflows or cancels in float32"),
    "dropout": (1, "deterministic", "dropout"),
    "stale cache": (1, "deterministic", "a stale cache"),
    "seed ignored": (1, "deterministic", "the seed or generator is not used"),
    "global random numbers": (1, "deterministic", "a global one is"),
    "input changed": (1, "input kept", "in place"),
    "empty batch": (1, "empty batch", ""),
    "squeeze": (1, "batch of one", "squeeze"),
    "batch normalisation": (1, "batch independence", "batch normalisation"),
    "maximum over the batch": (1, "batch independence", "maximum over axis 0"),
    "theta smoothed along the batch": (1, "batch independence", "depend on the rest of the batch"),
    "rows reversed": (1, "batch independence", "depend on the rest of the batch"),
    "summed over the batch": (1, "batch independence", "forward has one number for all rows"),
    "mean over the batch": (1, "batch independence", "log_prob has one number for all rows"),
    "buffer order": (1, "memory layout", "C-contiguous"),
    "context ignored": (1, "context", "ignored"),
    "context averaged over the batch": (1, "context", "an average over the batch"),
    "context of row 0 for all": (1, "context", "row 0 used for all"),
    "context rows shifted": (1, "context", "rows out of step"),
    # the map and its inverse
    "clipped outputs": (1, "monotone", "a clipped output"),
    "bounded output": (1, "image", "bounded"),
    "clipped to 14.5": (1, "tails", "a clipped output"),
    "naive logit": (1, "tails", "log(0)"),
    "permutation not inverted": (2, "round trip", "not the inverse of this forward"),
    "layers in the wrong order": (2, "round trip", "layers in the wrong order"),
    "inverse columns permuted": (2, "round trip", "come back as [1, 0, 2]"),
    "inverse is forward": (2, "round trip", "the forward map once more"),
    "inverse not destandardised": (1, "round trip", "the standardisation is not undone"),
    "mean forgotten in inverse": (1, "round trip", "the standardisation is not undone"),
    "one pass of the conditioner": (1, "round trip", "right up to x_0 and wrong from x_1 on"),
    "coordinates solved in the wrong order": (1, "round trip", "right up to x_0 and wrong from x_1 on"),
    "few solver steps": (1, "round trip", "too few steps"),
    "small bracket": (1, "round trip", "a bracket that is too small"),
    "inverse's logdet with forward's sign": (2, "inverse log-determinant", "the sign is wrong"),
    "inverse's logdet without standardisation": (2, "inverse log-determinant", "a standardisation"),
    "inverse's logdet before the last step": (2, "inverse log-determinant", "at another point"),
    # densities
    "log_prob without constant": (2, "log_prob", "D/2 log 2 pi"),
    "log_prob with one dimension's constant": (2, "log_prob", "counted for one dimension only"),
    "log_prob minus logdet": (2, "log_prob", "subtracted, not added"),
    "log_prob without logdet": (2, "log_prob", "the log-determinant is not added"),
    "log_prob without base": (2, "log_prob", "the base's log-density is not added"),
    "log_prob per dimension": (2, "log_prob", "averaged over dimensions"),
    "log_prob in bits": (2, "log_prob", "in bits"),
    "negative log-likelihood": (2, "log_prob", "the negative log-likelihood"),
    "the density itself": (2, "log_prob", "a log is missing"),
    "logistic base": (2, "log_prob", "the base is logistic"),
    "Laplace base": (2, "log_prob", "the base is Laplace"),
    "base of variance e": (2, "log_prob", "a normal of variance 2.7183"),
    "base without the half": (2, "log_prob", "a normal of variance 0.5"),
    # samples
    "samples of temperature 0.9": (2, "samples", "standard deviation 0.9"),
    "uniform noise": (2, "samples", "uniform"),
    "one column of noise": (2, "samples", "one column of noise is used for all"),
    "truncated noise": (1, "samples", "clipped"),
    "samples clipped": (1, "samples", "clipped"),
    "samples repeated": (2, "samples", "repeated"),
    "samples are noise": (2, "samples", "the inverse is not applied"),
    "samples by forward": (2, "samples", "sample runs forward"),
    "samples in standard units": (2, "samples", "the standardisation is not undone"),
    "samples' columns reversed": (2, "samples", "reversed"),
}
#: These are no more than limitations, and are noted.
NOTED = {"empty batch"}


def planted(bug):
    layers = BUGS[bug][0]
    context_dim = 2 if bug.startswith("context") else 0
    return Planted(bug, context_dim, layers), {"dim": 3, "context_dim": context_dim}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_named(bug):
    _, check, words = BUGS[bug]
    flow, options = planted(bug)
    result = check_flow(flow, checks=[check], rows=2000 if check == "samples" else 400, **options)[check]
    assert result.status == ("noted" if bug in NOTED else "failed"), result
    assert result.detail
    assert words in result.cause


@pytest.mark.slow
@pytest.mark.parametrize("bug", sorted(set(BUGS) - NOTED))
def test_the_whole_kit_catches_it_as_well(bug):
    flow, options = planted(bug)
    report = check_flow(flow, **options)
    assert BUGS[bug][1] in [result.name for result in report.failed], report


def test_every_check_but_the_informative_ones_catches_something():
    caught = {check for _, check, _ in BUGS.values()}
    assert set(CHECKS) - caught == {
        "triangular",  # a failure only where it is asked for
        "positive diagonal",
        "round trip of noise",
        "normalisation",
        "sample log_prob",
    }


@pytest.mark.parametrize(
    ("bug", "check"),
    [
        ("output mask not strict", "positive diagonal"),
        ("output mask not strict", "monotone"),
        ("bounded output", "round trip of noise"),
        ("sign", "normalisation"),
        ("standardisation not counted", "normalisation"),
        ("samples of temperature 0.9", "sample log_prob"),
    ],
)
def test_bugs_are_caught_a_second_time(bug, check):
    assert check_flow(Planted(bug, layers=1), dim=3, checks=[check], rows=4000)[check].status == "failed"


def test_a_mask_that_leaks_is_no_autoregressive_flow():
    flow = Planted("no output mask", layers=1)
    report = check_flow(flow, dim=3, autoregressive=True, checks=["triangular"])
    assert "a mask" in report["triangular"].cause
