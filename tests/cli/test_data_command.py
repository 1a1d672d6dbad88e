"""``refnaf data``, and ``refnaf fit`` on what it prepares."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import refnaf
from refnaf.datasets import published
from tests.datasets import original_files as originals
from tests.datasets.test_fetch import Server, direct, server  # noqa: F401


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
    """An empty cache folder; nothing of the user's."""
    monkeypatch.setenv("REFNAF_DATA", str(folder / "cache"))
    return folder / "cache"


@pytest.fixture
def power(cache, folder):
    """Small prepared POWER."""
    originals.write_power(folder)
    published.prepare("power", folder, cache)


def test_list(ok, power, cache):
    lines = ok("data", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(published.PUBLISHED)
    by_name = {line.split()[0]: line.split()[1:6] for line in lines}
    assert by_name["power"] == ["1,659,917", "184,435", "204,928", "6", "yes"]
    assert by_name["gas"][-1] == "no"
    assert str(cache) in lines[-1]
    assert " yes " not in ok("data", "list", "--cache", "elsewhere").stdout


def test_help(ok):
    assert ok("data").stdout == ok("data", "--help").stdout
    for name in ("list", "prepare", "fetch", "check"):
        assert "Example: refnaf data" in ok("data", name, "--help").stdout


def test_prepare(ok, cache, folder):
    originals.write_power(folder)
    result = ok("data", "prepare", "power", "--from", "household_power_consumption.txt")
    assert "power: 243 training, 27 validation, 30 test rows" in result.stdout
    assert f"wrote       {cache / 'power.npz'}" in result.stdout
    assert "refnaf data check power" in result.stderr
    with np.load(cache / "power.npz") as archive:
        assert {name: archive[name].shape for name in archive} == {
            "train": (243, 6),
            "validation": (27, 6),
            "test": (30, 6),
        }


def test_prepare_refuses(refused, folder):
    refused("data", "prepare", "power", "--from", ".", words="household_power_consumption.txt")
    refused("data", "prepare", "adult", "--from", ".", words="hepmass")
    (folder / "ethylene_CO.pickle").write_bytes(b"\x80\x04.")
    refused("data", "prepare", "gas", "--from", ".", words="ethylene_CO.txt instead")


def test_check(run, power, monkeypatch):
    result = run("data", "check", "power")
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "train rows" in result.stderr
    assert result.stderr.count("\n") == 1
    rows = tuple(len(part) for part in published.load("power"))
    nats, _ = published.gaussian_nats(published.load("power"))
    entry = published.Published(**{**vars(published.PUBLISHED["power"]), "rows": rows, "nats": (nats, 0.02)})
    monkeypatch.setitem(published.PUBLISHED, "power", entry)
    result = run("data", "check", "power")
    assert result.exit_code == 0
    assert "differs" not in result.stdout
    assert f"{nats:.2f} +- 0.02" in result.stdout


def test_check_without_data(refused):
    refused("data", "check", "gas", words="refnaf data fetch gas")


def test_fetch(ok, server, cache, folder):  # noqa: F811
    originals.write_power(folder)
    server.body = (folder / "household_power_consumption.txt").read_bytes()
    digest = hashlib.sha256(server.body).hexdigest()
    url = server.url("household_power_consumption.txt")
    result = ok("data", "fetch", "power", "--url", url, "--sha256", digest)
    assert digest in result.stdout
    assert "243 training" in result.stdout
    assert (cache / "downloads" / "power" / "household_power_consumption.txt").read_bytes() == server.body
    assert (cache / "power.npz").exists()
    ok("data", "fetch", "power", "--url", url)
    assert server.requests == [None]


def test_fetch_of_two_files(ok, refused, server, folder):  # noqa: F811
    originals.write_hepmass(folder)
    refused("data", "fetch", "hepmass", "--url", server.url("1000_train.csv"), words="expected 2")
    bodies = {name: (folder / name).read_bytes() for name in ("1000_train.csv", "1000_test.csv")}

    urls = []
    for name, body in bodies.items():
        server.body = body
        urls += ["--url", server.url(name)]
    # the server has one body at a time: the first file is there before the second is asked for
    target = folder / "cache" / "downloads" / "hepmass"
    target.mkdir(parents=True)
    (target / "1000_train.csv").write_bytes(bodies["1000_train.csv"])
    digest = hashlib.sha256(bodies["1000_train.csv"]).hexdigest()
    (target / "1000_train.csv.sha256").write_text(f"{digest}  1000_train.csv\n")
    assert "hepmass: 225 training" in ok("data", "fetch", "hepmass", *urls).stdout
    assert server.requests == [None]


def test_fetch_fails_in_one_line(run, server):  # noqa: F811
    for args, words in (
        (("--url", server.url("missing")), "404"),
        (("--url", server.url("data.zip"), "--sha256", "0" * 64), "SHA-256"),
        (("--url", "http://127.0.0.1:9/data.zip"), "check the network"),
    ):
        result = run("data", "fetch", "power", *args)
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("data", "fetch", "power", "--url", "ftp://a.example/x").exit_code == 2


FAST = ("--backend", "numpy", "--option", "flows=1", "--option", "hidden=8,", "--epochs", "2", "--batch-size", "64")


def test_fit_takes_the_split_as_it_is(ok, power):
    result = ok("fit", "power", "--model", "maf", *FAST, "--seed", 5)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["data", "power:", "300", "rows,", "6", "columns"]
    data, flow = published.load("power"), refnaf.load("power.safetensors")
    for name, rows in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert flow.provenance["scores"][name][0] == pytest.approx(flow.log_prob(rows).mean(), rel=1e-6)
    assert flow.provenance["training"]["rows"] == 243
    assert "recipe" not in flow.provenance


def test_fit_by_recipe(ok, power):
    ok("fit", "power", "--recipe", "maf-ddsf-5", "--option", "flows=1", "--epochs", "1", "--backend", "numpy")
    flow = refnaf.load("power.safetensors")
    assert flow.model == "maf-ddsf"
    layers = [layer for layer in flow.layers if layer.kind == "autoregressive"]
    assert [(layer.hidden, layer.channels) for layer in layers] == [([100, 100], 96)]
    training = flow.provenance["training"]
    assert (training["learning_rate"], training["averaging"], training["epochs"]) == (5e-3, 0.998, 1)
    assert flow.provenance["recipe"] == "maf-ddsf-5"


def test_what_is_given_goes_before_the_recipe(ok, power):
    given = (
        "--backend",
        "numpy",
        "--option",
        "hidden=8,",
        "--option",
        "averaging=0.9",
        "--batch-size",
        "50",
        "--learning-rate",
        "0.01",
    )
    ok("fit", "power", "--recipe", "maf-5", "--model", "maf", "--epochs", "1", *given, "--option", "flows=2")
    flow = refnaf.load("power.safetensors")
    training = flow.provenance["training"]
    assert (training["learning_rate"], training["averaging"], training["batch_size"]) == (0.01, 0.9, 50)
    layers = [layer for layer in flow.layers if layer.kind == "autoregressive"]
    assert [(layer.hidden, layer.activation) for layer in layers] == [([8], "relu")] * 2


def test_fit_refuses(refused, power, no_training):
    np.save("data.npy", np.zeros((20, 6)))
    refused("fit", "gas", words="refnaf data prepare gas")
    refused("fit", "mnist", words="bits")
    refused("fit", "power", "--validation", "0.2", words="split of its own")
    refused("fit", "power", "--test", "data.npy", words="split of its own")
    refused("fit", "power", "--recipe", "maf", words="maf-ddsf-10")
    refused("fit", "power", "--recipe", "maf-5", "--model", "made", words="leave one of them out")
    refused("fit", "power", "--recipe", "maf-5", "--option", "flows=1", "--option", "flows=2", words="given twice")
    refused("fit", "data.npy", "--recipe", "maf-5", words="published data sets")
