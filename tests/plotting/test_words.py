"""What a picture says in words: which columns, which rows, under which names."""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from refnaf.plotting import plot_flow
from refnaf.plotting.marks import named, ticks
from tests.plotting.gaussian_flow import GaussianFlow, flow_of, rows_of


def test_many_columns_show_the_first_eight(tmp_path, page, texts):
    plot_flow(flow_of(11), rows_of(11), tmp_path / "a.png")
    words = texts()
    assert any("first 8 of 11 columns" in text for text in words)
    assert any("8 worst of 11 columns" in text for text in words)
    assert len(page().axes) == 8 * 8 + 2


def test_rows_shown_and_title(tmp_path, texts):
    provenance = {"scores": {"test": [-1.25, 0.03]}}
    plot_flow(flow_of(2, provenance=provenance), rows_of(2, 500), tmp_path / "a.png", max_points=60, title="my $x$")
    words = texts()
    assert r"my \$x\$" in words
    assert any("60 of 500 rows shown" in text and "test -1.250 ± 0.030 nats" in text for text in words)
    assert "60 rows" in words


def test_column_names(tmp_path, texts):
    names = ["_id", "price $ & $ tax", "温度 \n °C", "a name that is much too long for a panel", ""]
    plot_flow(flow_of(5, provenance={"columns": names}), rows_of(5), tmp_path / "a.png")
    words = texts()
    for name in (" _id", r"price \$ & \$ tax", "温度 °C", "a name that is …", "x5"):
        assert name in words


@pytest.mark.parametrize("columns", [None, [], ["a"], "abc", 3])
def test_wrong_column_names_are_not_used(tmp_path, texts, columns):
    plot_flow(flow_of(2, provenance={"columns": columns, "scores": None, "training": None}), None, tmp_path / "a.png")
    assert "x2" in texts()


@pytest.mark.parametrize("dim", [2, 4])
@pytest.mark.parametrize("n", [30, 2000])
def test_what_is_outside_is_counted(tmp_path, page, texts, n, dim):
    flow = GaussianFlow(np.zeros(dim), np.full(dim, 3.0))
    x = np.random.default_rng(0).uniform(-1, 1, size=(n, dim))
    far = 5 if n == 2000 else 0
    x[:far, 1] = 1e6
    plot_flow(flow, x, tmp_path / "a.png")
    samples = max(n, 100)
    (words,) = [text for text in texts() if "parameters" in text]
    assert f"{n:,} rows" + (f" ({far} outside the panels)" if far else "") + f", {samples:,} samples" in words
    outside = re.search(r"samples(?: \(([\d,]+) outside the panels\))?$", words).group(1)
    kept = samples - int((outside or "0").replace(",", ""))
    shown = [len(c.get_offsets()) for a in page().axes for c in a.collections if isinstance(c, PathCollection)]
    assert (kept < samples) == (n == 2000)
    assert shown == [n - far, kept] if dim == 2 else min(shown) >= min(n - far, kept)


def test_a_curve_draws_no_samples_and_counts_none(tmp_path, texts):
    plot_flow(flow_of(1), rows_of(1), tmp_path / "a.png")
    assert not any("samples" in text for text in texts())
    plot_flow(flow_of(1), None, tmp_path / "a.png", max_points=70)
    assert any("70 samples" in text and "no data" in text for text in texts())


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("far", "words"), [(1e9, "- 1000000000"), (-1e9, "+ 1000000000")])
def test_numbers_far_from_zero_are_short(tmp_path, page, texts, dim, far, words):
    flow = GaussianFlow(np.full(dim, far), np.full(dim, 1e-3))
    plot_flow(flow, far + 1e-3 * np.random.default_rng(0).normal(size=(200, dim)), tmp_path / "a.png")
    assert any(text.startswith("x1") and text.endswith(words) for text in texts())
    labels = [label.get_text() for axes in page().axes for label in axes.get_xticklabels() + axes.get_yticklabels()]
    assert max(map(len, labels)) <= 7
    assert "-0" not in labels


@pytest.mark.parametrize("limits", [
    (0.0, 1.0), (-3.0, 4.0), (10_000.0, 10_001.1), (-10_001.1, -10_000.0), (1e9, 1e9 + 0.01),
    (-1e9 - 7, -1e9), (1e16, 1e16 + 640), (0.0, 5e8), (-2e-5, 3e-5), (-3e300, 3e300),
])  # fmt: skip
@pytest.mark.parametrize("count", [3, 8])
def test_labels_are_the_numbers_where_they_stand(limits, count):
    axes = Figure().add_subplot()
    axes.set_xlim(limits)
    ticks(axes.xaxis, limits, count)
    label = axes.xaxis.get_major_formatter()
    far = named("x", limits, "").replace("x", "").replace(" ", "")
    offset = -float(far) if far else 0.0
    inside = [tick for tick in axes.get_xticks() if limits[0] <= tick <= limits[1]]
    assert 2 <= len(inside) <= count + 1
    for tick in inside:
        assert float(label(tick, 0)) + offset == pytest.approx(tick, rel=1e-15, abs=1e-4 * (limits[1] - limits[0]))


def test_the_bar_shows_that_the_map_ends_before_the_density_does(tmp_path, page):
    for sd, ends in ((0.2, True), (5.0, False)):
        plot_flow(
            GaussianFlow(np.zeros(2), np.full(2, sd)),
            np.random.default_rng(0).normal(size=(300, 2)),
            tmp_path / "a.png",
        )
        (bar,) = [axes for axes in page().axes if axes.get_ylabel() == "log-density (nats)"]
        assert bool(bar.patches) == ends


@pytest.mark.parametrize(("n", "words"), [(1, "mean over 1 context,"), (150, "mean over 16 contexts,")])
def test_the_map_says_what_it_is_the_mean_of(tmp_path, texts, n, words):
    context = np.random.default_rng(2).normal(size=(n, 2))
    plot_flow(flow_of(2, context_dim=2), rows_of(2, n), tmp_path / "a.png", context=context)
    assert any(f"log of the model's density, {words} and data" == text for text in texts())


def test_numbers_below_a_grid_do_not_touch(tmp_path, page):
    x = np.random.default_rng(0).uniform(-5e-4, 5e-4, size=(200, 8))
    plot_flow(GaussianFlow(np.zeros(8), np.full(8, 3e-4)), x, tmp_path / "a.png")
    page().canvas.draw()
    lowest = [axes for axes in page().axes if axes.get_xlabel().startswith("x")]
    boxes = [label.get_window_extent() for axes in lowest for label in axes.get_xticklabels()]
    assert len(lowest) == 8
    assert len(boxes) >= 16
    assert all(left.x1 + 2 < right.x0 for left, right in itertools.pairwise(boxes))
