"""``refnaf import``."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnaf
from refnaf.interop import from_pyro, to_torchkit
from tests.interop import stored


def told(result):
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines())


def written(library, name, file):
    """A stored case, its state written to a file of the current folder, and what the importer is told."""
    numbers = stored.load(library, name)
    if file.endswith(".npz"):
        np.savez(file, **stored.state(numbers))
    else:
        save_file(stored.state(numbers), file)
    return numbers, json.dumps(stored.config(numbers))


@pytest.mark.parametrize("file", ["state.npz", "state.safetensors"])
@pytest.mark.parametrize(("library", "name"), [("pyro", "stack"), ("nflows", "context"), ("pyro", "affine-one")])
def test_the_librarys_numbers_from_the_file(ok, library, name, file):
    numbers, config = written(library, name, file)
    result = ok("import", file, "--from", library, "--config", config, "--out", "model.safetensors")
    flow = refnaf.load("model.safetensors")
    start, end, context = (numbers.get(k) for k in ("x", "y", "context"))
    got = flow.inverse(start, context) if library == "pyro" else flow.forward(start, context)
    stored.agree(got[0], end)
    stored.agree(got[1], numbers["logdet"])
    facts = told(result)
    assert facts["model"] == flow.model
    assert facts["columns"] == str(flow.dim)
    assert facts.get("context", "0") == str(flow.context_dim)
    assert facts["parameters"] == f"{flow.n_params:,}"
    assert facts["wrote"] == "model.safetensors"
    assert result.stderr == ""


def test_the_model_goes_on_like_a_fitted_one(ok):
    _, config = written("nflows", "tanh", "state.npz")
    ok("import", "state.npz", "--from", "nflows", "--config", config, "--out", "m.safetensors")
    ok("info", "m.safetensors")
    np.savez("rows.npz", x=np.ones((4, 5)), c=np.ones((4, 1)))
    ok("score", "m.safetensors", "rows.npz")
    assert np.isfinite(np.load("rows.nats.npy")).all()


def test_a_config_in_a_file(ok, folder):
    numbers, config = written("pyro", "affine-stable", "state.npz")
    (folder / "how.json").write_text(config)
    ok("import", "state.npz", "--from", "pyro", "--config", "how.json", "--out", "m.safetensors")
    stored.agree(refnaf.load("m.safetensors").inverse(numbers["x"])[0], numbers["y"])


def test_exact(ok):
    numbers, config = written("pyro", "neural", "state.npz")
    for flags in ([], ["--exact"]):
        ok("import", "state.npz", "--from", "pyro", "--config", config, *flags, "--out", "m.safetensors")
        expected = from_pyro(stored.state(numbers), **stored.config(numbers), exact=bool(flags))
        got = refnaf.load("m.safetensors").inverse(numbers["x"])[1]
        np.testing.assert_array_equal(got, expected.inverse(numbers["x"])[1])


def test_what_was_exported_to_torchkit(ok):
    flow = refnaf.build("maf-dsf", 3, dtype="float64", seed=3, flows=2, hidden=(6,), units=4, bound=None)
    np.savez("state.npz", **to_torchkit(flow))
    ok("import", "state.npz", "--from", "torchkit", "--exact", "--out", "m.safetensors")
    x = np.random.default_rng(0).normal(size=(5, 3))
    stored.agree(refnaf.load("m.safetensors").log_prob(x), flow.log_prob(x), 1e-12)


def test_every_importer_is_offered(ok):
    text = ok("import", "--help").stdout
    for name in refnaf.interop.__all__:
        assert not name.startswith("from_") or name.removeprefix("from_") in text
    assert "Example: refnaf import" in text


def test_the_help_needs_no_numpy():
    code = "import sys, refnaf_cli.import_; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FROM = ("--from", "pyro", "--out", "m.safetensors")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("state.npz", *FROM, "--config", '{"speed": 3}'), "does not take 'speed'; it takes transforms, exact, dtype"),
        (("state.npz", *FROM, "--config", "{oops}"), "--config: expected JSON"),
        (("state.npz", *FROM, "--config", "missing.json"), "missing.json: No such file"),
        (
            ("state.npz", *FROM, "--config", "list.json"),
            "list.json: expected a JSON object of keyword arguments, got list",
        ),
        (("state.npz", *FROM, "--config", '{"transforms": ["Planar"]}'), "but the state holds AffineAutoregressive"),
        (("state.npz", "--from", "nflows", "--exact", "--out", "m.safetensors"), "leave --exact out"),
        (("state.npz", "--from", "nflows", "--out", "m.safetensors"), "only MaskedAffineAutoregressiveTransform"),
        (("state.npz", "--from", "pickle", "--out", "m.safetensors"), "'pickle' is not one of"),
        (("state.npz", "--from", "pyro"), "Missing option '--out'"),
        (("state.npz", "--from", "pyro", "--out", "m.npz"), "expected an output file named .safetensors"),
        (("state.pt", *FROM), "expected a state in .npz or .safetensors, got .pt"),
        (("missing.npz", *FROM), "missing.npz: No such file"),
        (("missing.safetensors", *FROM), "missing.safetensors: No such file"),
        (("broken.npz", *FROM), "broken.npz is not a readable .npz"),
        (("broken.safetensors", *FROM), "broken.safetensors is not a readable .safetensors"),
        (("objects.npz", *FROM), "objects.npz is not a readable .npz"),
        (("one.safetensors", "--from", "pyro", "--out", "one.safetensors"), "the output would replace the input"),
    ],
)
def test_bad_use_is_one_line(refused, folder, arguments, words):
    written("pyro", "affine", "state.npz")
    written("pyro", "affine", "one.safetensors")
    (folder / "list.json").write_text("[1]")
    for name in ("broken.npz", "broken.safetensors", "state.pt"):
        (folder / name).write_bytes(b"not at all")
    np.savez("objects.npz", a=np.array([None]))
    refused("import", *arguments, words=words)
