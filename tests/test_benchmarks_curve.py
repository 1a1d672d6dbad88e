"""Nats against seconds: the curve is that of refnaf.fit, torch takes the same steps, and the table says when."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import refnaf
from refnaf.datasets.published import Data
from refnaf.datasets.recipes import Recipe

SPEED = Path(__file__).resolve().parents[1] / "benchmarks" / "speed"


@pytest.fixture
def speed(monkeypatch):
    """The modules of benchmarks/speed by name."""
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module


def small(speed, dtype="float32"):
    """A few steps of a small flow of the recipe's kind on rows that bend."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 3))
    x[:, 1] += x[:, 0] ** 2
    x[:, 2] = 300 * x[:, 2] + 1000
    options = {"flows": 2, "hidden": [12, 12], "activation": "elu", "units": 5, "layers": 2, "channels": 8}
    training = {"epochs": 8, "batch_size": 64, "learning_rate": 5e-2, "averaging": 0.9}
    data = Data(*np.split(x, [600, 750]))
    settings = Recipe("maf-ddsf", {**options, "dtype": dtype}, training)
    return data, options, training, speed("power_curve_work").Work.of(data, settings, threads=1)


def test_the_curve_is_that_of_fit(speed, tmp_path):
    data, options, training, work = small(speed)
    script = speed("power_curve")
    script.run(script.trainer("refnaf", work), work, tmp_path / "log")
    lines = speed("power_curve_plot").read_log(tmp_path / "log")
    fitted = refnaf.fit(data.train, "maf-ddsf", validation=data.validation, seed=0, threads=1, **options, **training)
    assert work.plan.steps == 72 and [line["step"] for line in lines] == [9 * k for k in range(1, 9)]
    assert [line["validation"] for line in lines] == [row["validation"] for row in fitted.history]
    best = max(lines, key=lambda line: line["validation"])
    assert best["test"] == np.mean(fitted.log_prob(data.test))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


@pytest.mark.peers
def test_torch_takes_the_same_steps(speed):
    pytest.importorskip("torch")
    _, _, _, work = small(speed, "float64")
    work.plan.clip = 1.0
    trainers = [speed("power_curve").trainer(name, work) for name in ("refnaf", "torch-eager")]
    start = trainers[0].adam.flat.copy()
    norms = []
    for step in range(work.plan.steps):
        norms.append(np.linalg.norm(trainers[0].gradient(step)[1]))
        for one in trainers:
            one.step(step)
    (loss, grad), (their_loss, their_grad) = (one.gradient(0) for one in trainers)
    assert abs(loss - their_loss) < 1e-9
    assert np.max(np.abs(grad - their_grad)) < 1e-8 * np.max(np.abs(grad))
    assert np.max(np.abs(trainers[0].adam.flat - start)) > 0.1
    assert min(norms) < work.plan.clip < max(norms)  # some gradients were clipped, some not
    ours, theirs = (one.score(work.test) for one in trainers)
    assert theirs == pytest.approx(ours, abs=1e-9)


def test_steps_in_turn(speed):
    """Every block starts with another library; no step of one is taken twice or left out."""
    _, _, _, work = small(speed)
    taken = []

    class Spy(speed("power_curve_work").Refnaf):
        def __init__(self, name):
            super().__init__(work)
            self.name = name

        def step(self, step):
            taken.append((self.name, step))
            super().step(step)

    found = speed("power_curve").measure([Spy("a"), Spy("b")], blocks=3, steps=2)
    order = [(name, 3 * block + k) for block in range(3) for name in ("ab", "ba")[block % 2] for k in range(3)]
    assert taken == order
    assert all(0 < found["seconds"][name] < 1 and found["spread"][name] >= 0 for name in "ab")


def log(path, library, seconds, nats, torn=False):
    lines = [
        json.dumps({"library": library, "step": 10 * (k + 1), "seconds": s, "test": n, "validation": n})
        for k, (s, n) in enumerate(zip(seconds, nats, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n" + ('{"library": "to' if torn else ""))
    return str(path)


def test_picture_and_table(speed, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    ours = log(tmp_path / "ours", "refnaf", [10, 20, 30], [0.5, 0.6, 0.61])
    theirs = log(tmp_path / "theirs", "torch", [20, 40], [0.58, 0.62], torn=True)
    out = tmp_path / "curve.png"
    speed("power_curve").main(["plot", ours, theirs, "--out", str(out)])
    assert capsys.readouterr().out.splitlines() == [
        "| test nats | refnaf, s | torch, s | torch / refnaf |",
        "| ---: | ---: | ---: | ---: |",
        "| 0.55 | 15 | 20 | 1.33 |",
        "| 0.60 | 20 | 30 | 1.50 |",
        "| 0.62 | not reached | 40 |  |",
        "| at the end | 0.6100 after 30 s | 0.6200 after 40 s |  |",
    ]
    with image.open(out) as picture:
        assert min(picture.size) > 200 and len(picture.convert("RGB").getcolors(100_000)) > 20

    (tmp_path / "steps").write_text(json.dumps({"threads": 2, "seconds": {"refnaf": 2.0, "torch": 3.0}}))
    speed("power_curve").main(["plot", ours, theirs, "--steps", str(tmp_path / "steps"), "--out", str(out)])
    assert "| 0.60 | 40 | 45 | 1.12 |" in capsys.readouterr().out


def test_the_curve_of_a_model_file(speed, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).normal(size=(200, 2))
    flow = refnaf.fit(x, "maf", flows=1, hidden=(4,), epochs=4, batch_size=16)
    flow.save(tmp_path / "model.safetensors")
    theirs = log(tmp_path / "theirs", "torch", [20, 40], [0.58, 0.62])
    (tmp_path / "steps").write_text(json.dumps({"seconds": {"refnaf": 2.0, "torch": 3.0}}))
    how = ["plot", str(tmp_path / "model.safetensors"), theirs, "--out", str(tmp_path / "curve.png")]
    speed("power_curve").main([*how, "--steps", str(tmp_path / "steps"), "--nats", "validation"])
    last = flow.history[-1]
    steps = round(last["epoch"] * (180 // 16))
    printed = capsys.readouterr().out
    assert printed.startswith("| validation nats |")
    assert f"| at the end | {last['validation']:.4f} after {2 * steps} s |" in printed
    with pytest.raises(SystemExit, match="ask for --nats validation"):
        speed("power_curve").main([*how, "--steps", str(tmp_path / "steps")])
    with pytest.raises(SystemExit, match="give --steps"):
        speed("power_curve").main([*how, "--nats", "validation"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "nothing"}, "expected lines of JSON as `run` writes them"),
        ({"a": '{"library": "refnaf"}\n'}, "expected lines of JSON as `run` writes them"),
        ({"a": None, "b": None}, "there is a log of refnaf already"),
        ({"a": None, "steps": "[]"}, "expected the JSON that `steps` prints"),
        ({"a": None, "steps": '{"seconds": {"torch": 1}}'}, "has no seconds of refnaf"),
    ],
)
def test_files_that_do_not_fit(speed, tmp_path, files, message):
    for name, text in files.items():
        if text is None:
            log(tmp_path / name, "refnaf", [1, 2], [0.1, 0.2])
        else:
            (tmp_path / name).write_text(text)
    logs = [str(tmp_path / name) for name in files if name != "steps"]
    steps = ["--steps", str(tmp_path / "steps")] if "steps" in files else []
    with pytest.raises(SystemExit, match=message):
        speed("power_curve").main(["plot", *logs, *steps, "--out", str(tmp_path / "curve.png")])


def test_a_log_is_not_written_twice(speed, tmp_path):
    path = log(tmp_path / "log", "refnaf", [1], [0.1])
    with pytest.raises(SystemExit, match="is there already"):
        speed("power_curve").main(["run", "--library", "refnaf", "--out", path])


def test_steps_that_are_not_finite_are_left_out_and_counted(speed):
    work = speed("power_curve_work")
    skips = work.Skips()
    assert skips.is_good(0, 1.0, 2.0)
    assert not skips.is_good(1, float("nan"), 2.0) and not skips.is_good(2, 1.0, float("inf"))
    assert skips.total == 2 and skips.is_good(3, 1.0, 2.0)
    for step in range(work.FAILURES - 1):
        assert not skips.is_good(step, 1.0, float("nan"))
    with pytest.raises(FloatingPointError, match="the run ends here"):
        skips.is_good(99, 1.0, float("nan"))
