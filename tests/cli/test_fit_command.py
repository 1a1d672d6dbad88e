"""``refnaf fit``."""

import re
import warnings

import numpy as np
import pytest

import refnaf
from tests.cli.small_tables import table

FAST = ("--model", "maf", "--option", "flows=1", "--option", "hidden=8,", "--epochs", "2")


def test_table_at_the_end(ok, x):
    result = ok("fit", "data.npy", *FAST)
    lines = result.stdout.splitlines()
    assert lines[0] == "data        data.npy: 200 rows, 3 columns"
    assert re.match(r"model       maf: [\d,]+ parameters, float32", lines[1])
    assert lines[2].split() == ["nats", "s.e.", "rows"]
    number = r" +-?\d+\.\d{4}"
    for line, label, rows in zip(
        lines[3:7], ("training  ", "validation", "test      ", "Gaussian  "), (162, 18, 20, 20), strict=True
    ):
        assert re.match(rf"{label}{number}  \+-{number} +{rows}\b", line), line
    assert "full covariance" in lines[6]
    assert re.match(r"time +\S+ s, 2 epochs", lines[7])
    assert lines[8] == "wrote       data.safetensors"
    assert len({line.index("+-") for line in lines[3:7]}) == 1


def test_one_line_an_epoch_without_a_terminal(ok, x):
    lines = ok("fit", "data.npy", *FAST).stderr.splitlines()
    assert len(lines) == 2
    assert all(re.match(r"epoch \d/2  train -?\d.*validation -?\d.*left", line) for line in lines)


def test_model_file_and_scores(ok, folder, x):
    ok("fit", "data.npy", *FAST, "--out", "m.safetensors", "--seed", 3)
    flow = refnaf.load("m.safetensors")
    train, validation, test = (x[index] for index in refnaf.split_rows(len(x), 3))
    scores = flow.provenance["scores"]
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        nats = flow.log_prob(rows)
        np.testing.assert_allclose(scores[name], [nats.mean(), nats.std(ddof=1) / len(nats) ** 0.5], rtol=1e-9)
    gaussian = refnaf.fit(train, "gaussian", validation=None).log_prob(test)
    np.testing.assert_allclose(scores["gaussian_test"][0], gaussian.mean(), rtol=1e-9)
    assert flow.provenance["data"]["rows"] == len(train)
    assert sorted(p.name for p in folder.iterdir()) == ["data.npy", "m.safetensors"]  # the checkpoint is gone


def test_same_seed_same_bytes(ok, folder, x):
    for name in ("a", "b"):
        ok("fit", "data.npy", *FAST, "--out", f"{name}.safetensors")
    ok("fit", "data.npy", *FAST, "--out", "c.safetensors", "--seed", 1)
    a, b, c = ((folder / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_quiet(ok, x):
    result = ok("fit", "data.npy", *FAST, "--quiet")
    assert result.stdout == "wrote       data.safetensors\n"
    assert result.stderr == ""


def test_options_reach_the_library(ok, x, monkeypatch):
    seen = {}
    real = refnaf.fit

    def fit(rows, model, **options):
        seen.setdefault(model, options)
        return real(rows, model, **options)

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)
    ok(
        "fit",
        "data.npy",
        *FAST,
        "--option",
        "activation=tanh",
        "--max-time",
        "2m",
        "--patience",
        7,
        "--batch-size",
        32,
        "--learning-rate",
        "1e-3",
        "--weight-decay",
        0,
        "--seed",
        5,
        "--dtype",
        "float64",
        "--threads",
        1,
    )
    want = {
        "flows": 1,
        "hidden": [8],
        "activation": "tanh",
        "epochs": 2,
        "max_time": 120.0,
        "patience": 7,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "seed": 5,
        "dtype": "float64",
        "threads": 1,
        "resume": False,
    }
    assert {name: seen["maf"][name] for name in want} == want
    assert refnaf.load("data.safetensors").dtype == np.float64


def test_defaults_are_the_librarys(ok, x, monkeypatch):
    seen = {}
    real = refnaf.fit

    def fit(rows, model, **options):
        seen.setdefault(model, dict(options))
        return real(rows, "gaussian", validation=options["validation"])

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)
    ok("fit", "data.npy")
    assert not {"epochs", "max_time", "patience", "batch_size", "learning_rate", "weight_decay"} & set(seen["maf-ddsf"])


def test_parts_from_files_and_none(ok, x):
    np.save("v.npy", table(40, seed=1))
    np.save("t.npy", table(30, seed=2))
    result = ok("fit", "data.npy", *FAST, "--validation", "v.npy", "--test", "t.npy")
    rows = dict(re.findall(r"^(training|validation|test|Gaussian) .* (\d+)(?:  full.*)?$", result.stdout, re.MULTILINE))
    assert rows == {"training": "200", "validation": "40", "test": "30", "Gaussian": "30"}
    result = ok("fit", "data.npy", *FAST, "--validation", 0, "--test", 0)
    assert "validation" not in result.stdout
    assert "Gaussian" not in result.stdout
    assert "training" in result.stdout


def test_context(ok, x):
    np.savez("pair.npz", x=x[:, :2], c=x[:, 2])
    result = ok("fit", "pair.npz", *FAST)
    assert "2 columns, context of 1" in result.stdout
    assert "array 'c' the context" in result.stderr
    assert refnaf.load("pair.safetensors").context_dim == 1
    np.save("c.npy", x[:, 1:])
    np.save("one.npy", x[:, :1])
    assert "1 column, context of 2" in ok("fit", "one.npy", *FAST, "--context", "c.npy").stdout
    assert "context" not in ok("fit", "pair.npz", *FAST, "--key", "x").stdout
    ok("fit", "pair.npz", *FAST, "--validation", "pair.npz", "--test", "pair.npz")


def test_column_names_are_kept(ok, x):
    lines = "\n".join(",".join(map(repr, row)) for row in x.tolist())
    with open("named.csv", "w") as file:
        file.write(f"height,weight,age\n{lines}\n")
    ok("fit", "named.csv", *FAST)
    assert refnaf.load("named.safetensors").provenance["columns"] == ["height", "weight", "age"]


def test_gaussian_is_not_compared_with_itself(ok, x):
    assert "Gaussian" not in ok("fit", "data.npy", "--model", "gaussian").stdout


def test_picture(ok, folder, x):
    pytest.importorskip("matplotlib")
    result = ok("fit", "data.npy", *FAST, "--plot", "p.png")
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.endswith("wrote       data.safetensors\nwrote       p.png\n")


def test_a_failed_fit_is_exit_code_1(refused, x, monkeypatch):
    def fit(*args, **options):
        raise refnaf.FitError("training failed: no evaluation gave a finite score; lower the learning rate")

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)
    refused("fit", "data.npy", *FAST, words="no evaluation gave a finite score", code=1)


def test_a_gaussian_that_fails_does_not_cost_the_model(ok, x, monkeypatch):
    real = refnaf.fit

    def fit(rows, model, **options):
        if model == "gaussian":
            raise ValueError("singular")
        return real(rows, model, **options)

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)
    result = ok("fit", "data.npy", *FAST)
    assert "refnaf: note: no Gaussian to compare with: singular" in result.stderr
    assert "Gaussian" not in result.stdout


def test_warnings_about_the_data_are_one_line_each(ok, x):
    np.save("grades.npy", np.round(table(300)))
    lines = ok("fit", "grades.npy", *FAST, "--quiet").stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("refnaf: warning: ")
    assert "discrete" in lines[0]


def test_other_warnings_stay_as_they_are(run, x, monkeypatch):
    def fit(*args, **options):
        warnings.warn("something else", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)
    result = run("fit", "data.npy", *FAST)  # warnings are errors in the tests
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "something else" in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "glow"), "expected one of gaussian"),
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "many"), "--epochs"),
        (("--max-time", "soon"), "expected a positive time such as"),
        (("--max-time", "0"), "expected a positive time such as"),
        (("--learning-rate", "-1"), "above 0"),
        (("--learning-rate", "nan"), "above 0"),
        (("--weight-decay", "-1"), "at least 0"),
        (("--validation", "1.5"), "part of the rows"),
        (("--test", "missing.npy"), "no such file"),
        (("--option", "hidden"), "name=value"),
        (("--option", "flows=2", "--option", "flows=3"), "twice"),
        (("--option", "epochs=2"), "--epochs"),
        (("--option", "batch-size=2"), "--batch-size"),
        (("--option", "wings=2"), "wings"),
        (("--dtype", "float16"), "--dtype"),
        (("--threads", "0"), "--threads"),
        (("--context", "missing.npy"), "no such file"),
        (("--key", "x"), "--key"),
        (("--out", "m.npz"), "named .safetensors"),
        (("--out", "data.npy"), "named .safetensors"),
        (("--plot", "p.jpg"), "named .png"),
        (("--nonsense",), "--nonsense"),
        (("second.npy",), "second.npy"),
    ],
)
def test_bad_use(refused, x, args, words):
    refused("fit", "data.npy", "--model", "maf", "--epochs", "1", *args, words=words)


def test_plot_without_matplotlib_is_refused_before_training(refused, x, no_training, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a))
    refused("fit", "data.npy", "--plot", "p.png", words="pip install 'refnaf[plot]'")


def test_output_that_cannot_be_written_is_refused_before_training(refused, folder, x, no_training):
    (folder / "d.safetensors").mkdir()
    (folder / "d.png").mkdir()
    for option, path in (
        ("--out", "missing/m.safetensors"),
        ("--out", "d.safetensors"),
        ("--out", "data.npy/m.safetensors"),
        ("--plot", "missing/p.png"),
        ("--plot", "d.png"),
    ):
        refused("fit", "data.npy", option, path, words=path.split("/")[0])


def test_read_only_folder(refused, x, no_training, read_only_folder):
    refused("fit", "data.npy", "--out", read_only_folder / "m.safetensors", words="cannot write")


def test_other_parts_must_fit_the_data(refused, x, no_training):
    np.save("v.npy", table(40, 4))
    np.savez("p.npz", x=x, c=x[:, 0])
    for part in ("--validation", "--test"):
        refused("fit", "data.npy", part, "v.npy", words="expected 3 columns as in the data.npy, got 4")
        refused("fit", "data.npy", part, "p.npz", words="expected no context")
        refused("fit", "p.npz", "--context", "data.npy", part, "data.npy", words="expected a context of 3 columns")
