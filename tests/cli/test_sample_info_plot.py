"""``refnaf sample``, ``refnaf info`` and ``refnaf plot``."""

import csv
import json

import numpy as np
import pytest

import refnaf
from tests.cli.small_tables import table


def test_sample_npy(ok, model):
    result = ok("sample", model, "-n", 7, "--seed", 3)
    x = np.load("samples.npy")
    np.testing.assert_array_equal(x, refnaf.load(model).sample(7, seed=3))
    assert result.stdout.splitlines()[-1] == "wrote    samples.npy"
    ok("sample", model)
    assert np.load("samples.npy").shape == (1000, 3)


@pytest.mark.parametrize("name", ["s.npy", "s.npz", "s.csv"])
def test_sample_twice_gives_the_same_file(ok, folder, model, name):
    ok("sample", model, "-n", 5, "--out", name)
    first = (folder / name).read_bytes()
    ok("sample", model, "-n", 5, "--out", name)
    assert (folder / name).read_bytes() == first
    ok("sample", model, "-n", 5, "--out", name, "--seed", 1)
    assert (folder / name).read_bytes() != first


def test_sample_with_log_prob(ok, refused, model):
    ok("sample", model, "-n", 50, "--log-prob")
    with np.load("samples.npz") as archive:
        arrays = dict(archive)
    assert sorted(arrays) == ["log_prob", "x"]
    np.testing.assert_allclose(arrays["log_prob"], refnaf.load(model).log_prob(arrays["x"]), atol=1e-3)
    ok("score", model, "samples.npz", "--key", "x")
    np.testing.assert_allclose(np.load("samples.nats.npy"), arrays["log_prob"], atol=1e-3)
    refused("sample", model, "--log-prob", "--out", "s.npy", words=".npz or .csv")


def test_sample_csv(ok, model):
    ok("sample", model, "-n", 6, "--out", "s.csv", "--log-prob")
    with open("s.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["x1", "x2", "x3", "log_prob"]
    x, nats = refnaf.load(model).sample(6, return_log_prob=True)
    np.testing.assert_array_equal(np.array(lines[1:], float), np.column_stack([x, nats]))


def test_sample_csv_has_the_names_of_the_data(ok, model):
    flow = refnaf.load(model)
    flow.provenance["columns"] = ["height", "weight, kg", "age"]
    flow.save("named.safetensors")
    ok("sample", "named.safetensors", "-n", 6, "--out", "s.csv")
    with open("s.csv", newline="") as file:
        assert next(csv.reader(file)) == ["height", "weight, kg", "age"]
    ok("score", model, "s.csv")


def test_sample_given_a_context(ok, context_model):
    c = np.array([-1.0, 0.0, 2.0])
    np.save("c.npy", c)
    result = ok("sample", context_model, "--context", "c.npy", "-n", 4, "--log-prob")
    with np.load("samples.npz") as archive:
        arrays = dict(archive)
    np.testing.assert_array_equal(arrays["c"][:, 0], np.repeat(c, 4))
    flow = refnaf.load(context_model)
    np.testing.assert_array_equal(arrays["x"], flow.sample(12, context=np.repeat(c, 4)[:, None]))
    np.testing.assert_allclose(arrays["log_prob"], flow.log_prob(arrays["x"], arrays["c"]), atol=1e-3)
    assert "rows     12" in result.stdout
    ok("score", context_model, "samples.npz")
    np.savez("pair.npz", x=table(3, 2), c=c)
    ok("sample", context_model, "--context", "pair.npz", "-n", 4, "--out", "s.csv")
    with open("s.csv") as file:
        assert next(file) == "x1,x2,c1\n"


def test_sample_bad_use(refused, model):
    refused("sample", model, "-n", 0, words="-n")
    refused("sample", model, "--seed", -1, words="--seed")


def test_info(ok, model):
    flow = refnaf.load(model)
    text = ok("info", model).stdout
    assert f"{model.stat().st_size:,} bytes" in text
    assert f"maf, {flow.n_params:,} parameters, float32" in text
    assert "1 x standardise" in text
    assert "1 x autoregressive" in text
    assert "hidden=[8]" in text
    for word in ("SHA-256", "seed", "training", "validation", "numpy="):
        assert word in text


def test_info_json(ok, model):
    flow = refnaf.load(model)
    facts = json.loads(ok("info", model, "--json").stdout, parse_constant=pytest.fail)
    assert facts["model"] == "maf"
    assert facts["dim"] == 3
    assert facts["context_dim"] == 0
    assert facts["parameters"] == flow.n_params
    assert facts["bytes"] == model.stat().st_size
    assert len(facts["sha256"]) == 64
    assert facts["provenance"] == flow.provenance
    assert facts["tensors"] == {name: list(array.shape) for name, array in flow.params.items()}


def test_info_json_has_no_nan(ok, model):
    flow = refnaf.load(model)
    flow.provenance["scores"] = {"test": [1.0, float("nan")]}
    flow.save("m.safetensors")
    facts = json.loads(ok("info", "m.safetensors", "--json").stdout, parse_constant=pytest.fail)
    assert facts["provenance"]["scores"] == {"test": [1.0, None]}


def test_info_of_a_model_that_was_never_fitted(ok):
    refnaf.build("maf-ddsf", dim=2).save("new.safetensors")
    assert "maf-ddsf" in ok("info", "new.safetensors").stdout
    ok("info", "new.safetensors", "--json")


def test_info_of_a_checkpoint_is_refused(refused, model):
    from refnaf.persistence import write_archive

    write_archive("c.checkpoint", {"a": np.zeros(3)}, {"kind": "checkpoint"})
    refused("info", "c.checkpoint", words="checkpoint")


def test_plot(ok, folder, model):
    pytest.importorskip("matplotlib")
    np.save("data.npy", table())
    assert ok("plot", model, "data.npy", "--out", "p.png", "--title", "rows").stdout == "wrote  p.png\n"
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert ok("plot", model).stdout == "wrote  plain.png\n"
    assert (folder / "plain.png").read_bytes().startswith(b"\x89PNG")


def test_plot_given_a_context(ok, folder, context_model):
    pytest.importorskip("matplotlib")
    np.savez("pair.npz", x=table()[:, :2], c=table()[:, 2])
    ok("plot", context_model, "pair.npz", "--out", "p.png")
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


def test_plot_bad_use(refused, model):
    refused("plot", model, "--key", "x", words="go with DATA")
    refused("plot", model, "--out", "p.pdf", words="named .png")
