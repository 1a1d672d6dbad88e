"""Pictures: they come out whole, quietly, alike, and without touching what the caller's matplotlib is set to."""

import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib as mpl

from refnaf import plotting
from refnaf.plotting import plot_flow, robust_limits


class GaussianFlow:
    """What a picture needs of a flow, for a Gaussian with independent columns."""

    model = "gaussian"

    def __init__(self, mean, sd, context_dim=0, history=(), provenance=None):
        self.mean, self.sd = np.asarray(mean, dtype=float), np.asarray(sd, dtype=float)
        self.dim, self.context_dim = len(self.mean), context_dim
        self.n_params = 2 * self.dim
        self.history = list(history)
        self.provenance = provenance or {}
        self.contexts = []

    def check(self, rows, context):
        assert (context is None) == (self.context_dim == 0)
        if context is not None:
            assert context.shape == (rows, self.context_dim)
            self.contexts.append(context)

    def log_prob(self, x, context=None):
        assert x.shape[1] == self.dim
        self.check(len(x), context)
        z = (x - self.mean) / self.sd
        return -0.5 * (z**2).sum(axis=1) - np.log(self.sd).sum() - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(self, n, seed=0, context=None):
        self.check(n, context)
        return self.mean + self.sd * np.random.default_rng(seed).normal(size=(n, self.dim))

    def rosenblatt(self, x, context=None):
        self.check(len(x), context)
        return np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), otypes=[float])((x - self.mean) / self.sd)


HISTORY = [
    {"epoch": i + 1, "train": 2 - 3 * math.exp(-i / 3), "validation": 1.5 - 3 * math.exp(-i / 3) - 0.01 * max(0, i - 6)}
    for i in range(12)
]


def flow_of(dim, **options):
    options.setdefault("history", HISTORY)
    return GaussianFlow(np.arange(dim), np.linspace(1.0, 2.0, dim), **options)


def rows_of(dim, n=150, seed=1):
    return np.arange(dim) + np.random.default_rng(seed).normal(size=(n, dim))


def png_size(path):
    """(width, height) of a whole PNG file."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def page(monkeypatch):
    """The figure of the last picture, to look at what it says."""
    pages = []
    draw = plotting._draw
    monkeypatch.setattr(plotting, "_draw", lambda *args: pages.append(draw(*args)) or pages[-1])
    return lambda: pages[-1]


def texts(figure):
    import matplotlib.text

    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]


# ---- every number of columns, with and without data, contexts and history


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1], []])
@pytest.mark.parametrize("given", ["data", "none"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_pictures(tmp_path, dim, given, history):
    x = rows_of(dim) if given == "data" else None
    plot_flow(flow_of(dim, history=history), x, tmp_path / "a.png")
    width, height = png_size(tmp_path / "a.png")
    assert 900 < width < 2400
    assert 600 < height < 1600
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_contexts_of_the_rows(tmp_path, dim):
    flow = flow_of(dim, context_dim=2)
    context = np.random.default_rng(2).normal(size=(150, 2))
    plot_flow(flow, rows_of(dim), tmp_path / "a.png", context=context)
    png_size(tmp_path / "a.png")
    assert np.array_equal(flow.contexts[0], context)
    for used in flow.contexts:
        assert set(map(tuple, used)) <= set(map(tuple, context))
    plot_flow(flow, None, tmp_path / "a.png", context=context[:7])


def test_many_columns_show_the_first_eight(tmp_path, page):
    plot_flow(flow_of(11), rows_of(11), tmp_path / "a.png")
    words = texts(page())
    assert any("first 8 of 11 columns" in text for text in words)
    assert any("8 worst of 11 columns" in text for text in words)
    assert len(page().axes) == 8 * 8 + 2


def test_rows_shown_and_title(tmp_path, page):
    provenance = {"scores": {"test": [-1.25, 0.03]}}
    plot_flow(flow_of(2, provenance=provenance), rows_of(2, 500), tmp_path / "a.png", max_points=60, title="my $x$")
    words = texts(page())
    assert r"my \$x\$" in words
    assert any("60 of 500 rows shown" in text and "test -1.250 ± 0.030 nats" in text for text in words)
    assert "60 rows" in words


def test_column_names(tmp_path, page):
    names = ["_id", "price $ & $ tax", "温度 \n °C", "a name that is much too long for a panel", ""]
    plot_flow(flow_of(5, provenance={"columns": names}), rows_of(5), tmp_path / "a.png")
    words = texts(page())
    for name in (" _id", r"price \$ & \$ tax", "温度 °C", "a name that is …", "x5"):
        assert name in words


@pytest.mark.parametrize("columns", [None, [], ["a"], "abc", 3])
def test_wrong_column_names_are_not_used(tmp_path, page, columns):
    plot_flow(flow_of(2, provenance={"columns": columns, "scores": None, "training": None}), None, tmp_path / "a.png")
    assert "x2" in texts(page())


# ---- the training curve and the calibration


def test_best_epoch(tmp_path, page):
    plot_flow(flow_of(1), None, tmp_path / "a.png")
    assert "best epoch: 12 (1.373 nats)" in texts(page())
    plot_flow(flow_of(1, provenance={"training": {"best_epoch": 9}}), None, tmp_path / "a.png")
    assert "best epoch: 9 (1.272 nats)" in texts(page())
    only_train = [{**row, "validation": None} for row in HISTORY]
    plot_flow(flow_of(1, history=only_train), None, tmp_path / "a.png")
    assert "validation" not in texts(page())
    assert "best epoch: 12 (1.923 nats)" in texts(page())


@pytest.mark.parametrize("history", [
    [], [{"epoch": 1, "train": None, "validation": None}], [{"epoch": 1, "train": math.nan}], [{}],
])  # fmt: skip
def test_no_training_history(tmp_path, page, history):
    plot_flow(flow_of(1, history=history), None, tmp_path / "a.png")
    assert "no training history" in texts(page())


def test_a_bad_start_does_not_flatten_the_curve(tmp_path, page):
    start = [{"epoch": 0, "train": -1e9, "validation": -math.inf}]
    plot_flow(flow_of(1, history=start + HISTORY), None, tmp_path / "a.png")
    (axes,) = [a for a in page().axes if a.get_title(loc="left") == "training"]
    low, high = axes.get_ylim()
    assert -10 < low < 0
    assert 1.9 < high < 3


@pytest.mark.parametrize(("shift", "outside"), [(0.0, False), (0.5, True)])
def test_calibration_band(tmp_path, page, shift, outside):
    plot_flow(flow_of(1), shift + rows_of(1, 1000), tmp_path / "a.png")
    (axes,) = [a for a in page().axes if "calibration" in a.get_title(loc="left")]
    band = 1.63 / math.sqrt(1000)
    reach = np.abs(axes.lines[-1].get_ydata()).max()
    assert (reach > band) == outside
    assert axes.patches[0].get_height() == pytest.approx(2 * band, rel=0.01)


def test_calibration_is_the_kolmogorov_distance(tmp_path, page):
    from scipy.stats import kstest, kstwo

    x = rows_of(2, 40)
    plot_flow(flow_of(2), x, tmp_path / "a.png")
    (axes,) = [a for a in page().axes if "calibration" in a.get_title(loc="left")]
    for column, line in enumerate(axes.lines[-2:]):
        expected = kstest(flow_of(2).rosenblatt(x)[:, column], "uniform").statistic
        assert np.abs(line.get_ydata()).max() == pytest.approx(expected, rel=1e-12)
    assert axes.patches[0].get_height() / 2 == pytest.approx(kstwo.ppf(0.99, 40), rel=0.01)


# ---- odd data


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("make", [
    lambda rng, n, d: rng.standard_cauchy((n, d)),
    lambda rng, n, d: np.where(rng.random((n, d)) < 0.02, 1e30, rng.normal(size=(n, d))),
    lambda rng, n, d: 1e30 * rng.normal(size=(n, d)),
    lambda rng, n, d: 1e9 + 1e-3 * rng.normal(size=(n, d)),
    lambda rng, n, d: np.full((n, d), 3.25),
    lambda rng, n, d: np.zeros((1, d)),
    lambda rng, n, d: rng.normal(size=(4, d)),
    lambda rng, n, d: rng.integers(0, 3, size=(n, d)),
    lambda rng, n, d: rng.normal(size=(n, d)).astype(">f4"),
    lambda rng, n, d: np.asfortranarray(rng.normal(size=(n, d)).astype(np.float32)),
    lambda rng, n, d: rng.normal(size=(n, d)).tolist(),
])  # fmt: skip
def test_odd_data(tmp_path, make, dim):
    x = make(np.random.default_rng(0), 200, dim)
    array = np.asarray(x, dtype=float)
    flow = GaussianFlow(array.mean(axis=0), array.std(axis=0) + 1e-6, history=HISTORY[:2])
    plot_flow(flow, x, tmp_path / "a.png")
    png_size(tmp_path / "a.png")


def test_limits():
    rng = np.random.default_rng(0)
    normal, cauchy = rng.normal(size=20_000), rng.standard_cauchy(20_000)
    low, high = robust_limits(normal)
    assert low < normal.min() < normal.max() < high
    assert high - low < 1.1 * np.ptp(normal)
    low, high = robust_limits(cauchy)
    assert np.mean((cauchy > low) & (cauchy < high)) > 0.95
    assert high - low < 60
    spikes = np.where(rng.random(20_000) < 0.05, 40 + normal, 0.0)  # a rare second value is no tail
    assert robust_limits(spikes)[1] > spikes.max()
    for constant in (0.0, -3.0, 1e30, 1e-300):
        low, high = robust_limits(np.full(5, constant))
        assert low < constant < high
    for extreme in ([-1.7e308, 1.7e308], [5e-324, 0.0], [1e16, 1e16 + 2]):
        low, high = robust_limits(np.array(extreme))
        assert low < high
        assert math.isfinite(high - low)


def test_a_memory_map_and_one_column_as_a_vector(tmp_path):
    np.save(tmp_path / "x.npy", rows_of(2, 300))
    plot_flow(flow_of(2), np.load(tmp_path / "x.npy", mmap_mode="r"), tmp_path / "a.png", max_points=50)
    plot_flow(flow_of(1), rows_of(1)[:, 0], tmp_path / "b.png")


# ---- bad arguments: one line each, before anything is written


@pytest.mark.parametrize(("x", "context", "context_dim", "word"), [
    (np.zeros((5, 3)), None, 0, "2 columns as in the flow, got 3"),
    (np.zeros(5), None, 0, "2 columns as in the flow, got 1"),
    (np.zeros((0, 2)), None, 0, "at least one row"),
    (np.zeros((5, 2, 2)), None, 0, "shape"),
    (np.array([["a", "b"]]), None, 0, "strings"),
    (np.array([[0.0, np.nan]]), None, 0, "NaN"),
    (np.zeros((5, 2)), np.zeros((5, 1)), 0, "no context"),
    (np.zeros((5, 2)), None, 1, "got None"),
    (None, None, 1, "got None"),
    (np.zeros((5, 2)), np.zeros((4, 1)), 1, "one context row"),
    (np.zeros((5, 2)), np.zeros((5, 2)), 1, "context: expected 1 columns"),
    (None, np.full((5, 1), np.inf), 1, "context: expected finite"),
])  # fmt: skip
def test_bad_arguments(tmp_path, x, context, context_dim, word):
    with pytest.raises(ValueError, match=word) as caught:
        plot_flow(flow_of(2, context_dim=context_dim), x, tmp_path / "a.png", context=context)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_bad_max_points(tmp_path):
    with pytest.raises(ValueError, match="max_points"):
        plot_flow(flow_of(2), None, tmp_path / "a.png", max_points=0)


def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        plot_flow(None, None, tmp_path / "missing" / "a.png")
    with pytest.raises(IsADirectoryError, match="folder"):
        plot_flow(None, None, tmp_path)


def test_failure_keeps_the_old_picture(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "a.png"
    plot_flow(flow_of(1), None, path)
    before = path.read_bytes()

    def fail(self, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        plot_flow(flow_of(1), rows_of(1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_without_matplotlib(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "refnaf\[plot\]"') as caught:
        plot_flow(flow_of(1), None, tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


# ---- a good neighbour


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_same_bytes(tmp_path, dim):
    x, flow = rows_of(dim, 300), flow_of(dim)
    plot_flow(flow, x, tmp_path / "a.png", max_points=100)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "figure.dpi": 33}):
        plot_flow(flow, x, tmp_path / "b.png", max_points=100)
    plot_flow(flow, x, tmp_path / "c.png", max_points=100, seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_the_data_and_the_settings_are_left_alone(tmp_path):
    x = rows_of(3)
    before, settings, state = x.copy(), dict(mpl.rcParams), np.random.get_state()[1].copy()  # noqa: NPY002
    plot_flow(flow_of(3), x, tmp_path / "a.png")
    assert np.array_equal(x, before)
    assert dict(mpl.rcParams) == settings
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_no_pyplot_no_display_no_early_import(tmp_path):
    code = """
import sys
import numpy as np
from refnaf.plotting import plot_flow
assert "matplotlib" not in sys.modules
sys.path.insert(0, sys.argv[2])
from test_plotting import flow_of, rows_of
for dim in (1, 2, 3):
    plot_flow(flow_of(dim), rows_of(dim), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MPLBACKEND": "tkagg"}
    folder = os.path.dirname(__file__)
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.png"), folder], check=True, env=env, cwd=tmp_path
    )
    png_size(tmp_path / "a.png")
