"""Pictures: they come out whole, quietly, alike, and without touching what the caller's matplotlib is set to."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib as mpl

from refnaf.plotting import plot_flow
from tests.plotting.gaussian_flow import HISTORY, GaussianFlow, flow_of, rows_of


def png_size(path):
    """(width, height) of a whole PNG file."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


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
from gaussian_flow import flow_of, rows_of
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
