"""Every planted bug is caught by the check that is there for it, and named where it leaves a signature."""

from __future__ import annotations

import pytest

from refnaf.verify import check_flow
from refnaf.verify.conformance import CHECKS
from tests.verify.bugs import BUGS, NOTED, planted
from tests.verify.planted import Planted


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
