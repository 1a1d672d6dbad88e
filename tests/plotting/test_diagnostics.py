"""The training curve and the calibration."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from refnaf.plotting import plot_flow
from refnaf.plotting.marks import DATA, MODEL
from tests.plotting.gaussian_flow import HISTORY, flow_of, rows_of


def test_best_epoch(tmp_path, texts):
    plot_flow(flow_of(1), None, tmp_path / "a.png")
    assert "best epoch: 12 (1.373 nats)" in texts()
    plot_flow(flow_of(1, provenance={"training": {"best_epoch": 9}}), None, tmp_path / "a.png")
    assert "best epoch: 9 (1.272 nats)" in texts()
    only_train = [{**row, "validation": None} for row in HISTORY]
    plot_flow(flow_of(1, history=only_train), None, tmp_path / "a.png")
    assert "validation" not in texts()
    assert "best epoch: 12 (1.923 nats)" in texts()


@pytest.mark.parametrize("history", [
    [], [{"epoch": 1, "train": None, "validation": None}], [{"epoch": 1, "train": math.nan}], [{}],
])  # fmt: skip
def test_no_training_history(tmp_path, texts, history):
    plot_flow(flow_of(1, history=history), None, tmp_path / "a.png")
    assert "no training history" in texts()


def test_a_bad_start_does_not_flatten_the_curve(tmp_path, panel):
    start = [{"epoch": 0, "train": -1e9, "validation": -math.inf}]
    plot_flow(flow_of(1, history=start + HISTORY), None, tmp_path / "a.png")
    axes = panel("training")
    low, high = axes.get_ylim()
    assert -10 < low < 0
    assert 1.9 < high < 3


@pytest.mark.parametrize(("shift", "outside"), [(0.0, False), (0.5, True)])
def test_calibration_band(tmp_path, panel, shift, outside):
    plot_flow(flow_of(1), shift + rows_of(1, 1000), tmp_path / "a.png")
    axes = panel("calibration")
    band = 1.63 / math.sqrt(1000)
    reach = np.abs(axes.lines[-1].get_ydata()).max()
    assert (reach > band) == outside
    assert axes.patches[0].get_height() == pytest.approx(2 * band, rel=0.01)


def test_calibration_is_the_kolmogorov_distance(tmp_path, panel):
    from scipy.stats import kstest, kstwo

    x = rows_of(2, 40)
    plot_flow(flow_of(2), x, tmp_path / "a.png")
    axes = panel("calibration")
    for column, line in enumerate(axes.lines[-2:]):
        expected = kstest(flow_of(2).rosenblatt(x)[:, column], "uniform").statistic
        assert np.abs(line.get_ydata()).max() == pytest.approx(expected, rel=1e-12)
    assert axes.patches[0].get_height() / 2 == pytest.approx(kstwo.ppf(0.99, 40), rel=0.01)


def test_the_kept_epoch_has_a_score(tmp_path, texts):
    history = [{"epoch": 1, "validation": 0.5}, {"epoch": 2, "validation": None}]
    plot_flow(flow_of(1, history=history, provenance={"training": {"best_epoch": 2}}), None, tmp_path / "a.png")
    assert "best epoch: 1 (0.500 nats)" in texts()


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_are_whole_numbers(tmp_path, page, panel, epochs):
    plot_flow(flow_of(1, history=HISTORY[:epochs]), None, tmp_path / "a.png")
    page().canvas.draw()
    assert [label.get_text() for label in panel("training").get_xticklabels()][-1] in {str(epochs), str(epochs + 1)}
    assert all(tick == round(tick) for tick in panel("training").get_xticks())


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_legends_hide_no_curve(tmp_path, page, panel, dim):
    plot_flow(flow_of(dim), rows_of(dim), tmp_path / "a.png")
    page().canvas.draw()
    for axes in (panel("training"), panel("calibration")):
        legend = axes.get_legend().get_window_extent()
        assert axes.bbox.y1 <= legend.y0 < legend.y1 <= axes._left_title.get_window_extent().y0


def test_colours_of_data_and_model_are_the_last_to_be_a_column(tmp_path, panel):
    plot_flow(flow_of(6), rows_of(6), tmp_path / "a.png")
    colours = [line.get_color() for line in panel("calibration").lines]
    assert not {DATA, MODEL} & set(colours)
    assert len(set(colours)) == 7
