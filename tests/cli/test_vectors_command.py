"""``refnaf vectors``."""

import numpy as np
import pytest

import refnaf
from refnaf.verify import read_vectors
from refnaf.verify.vectors import SHIPPED, example_flow


def test_of_a_model_file(ok, folder, context_model):
    text = ok("vectors", context_model, "--rows", 8, "--digits", 30).stdout
    assert text == "wrote  context.vectors.safetensors\n"
    tensors, header = read_vectors("context.vectors.safetensors")
    flow = refnaf.load(context_model)
    assert header["config"]["model"] == flow.model and header["digits"] == 30
    assert tensors["inputs/x"].shape == (8, 2) and tensors["inputs/context"].shape == (8, 1)
    for name, array in flow.params.items():
        np.testing.assert_array_equal(tensors[f"params/{name}"], array)


def test_of_a_models_name(ok, folder):
    ok("vectors", "maf", "--dim", 2, "--context-dim", 1, "--option", "flows=1", "--option", "hidden=3,",
       "--seed", 4, "--rows", 4, "-o", "v.safetensors")  # fmt: skip
    tensors, header = read_vectors("v.safetensors")
    flow = example_flow("maf", 2, 1, seed=4, flows=1, hidden=[3])
    assert header["config"] == flow.config and header["seed"] == 4
    for name, array in flow.params.items():
        np.testing.assert_array_equal(tensors[f"params/{name}"], array)


def test_the_shipped_files(ok, folder, monkeypatch):
    monkeypatch.setattr("refnaf.verify.vectors.SHIPPED", {"maf": SHIPPED["maf"]})
    (folder / "golden").mkdir()
    assert ok("vectors", "--shipped", "golden").stdout == "wrote  golden/maf.safetensors\n"
    assert read_vectors("golden/maf.safetensors")[1]["config"]["model"] == "maf"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing argument 'MODEL'"),
        (("maf",), "say how many columns with --dim"),
        (("nothing.safetensors",), "nothing.safetensors"),
        (("nothing.safetensors", "--dim", 2), "--dim cannot be combined with the model file"),
        (("maf", "--dim", 2, "--option", "wings=2"), "no option 'wings'"),
        (("maf", "--dim", 2, "--option", "seed=2"), "no option of a model"),
        (("maf", "--dim", 2, "--option", "flows=1", "--option", "flows=2"), "given twice"),
        (("maf", "--dim", 2, "--out", "v.npy"), "expected an output file named .safetensors"),
        (("maf", "--shipped", "."), "MODEL cannot be combined with --shipped"),
        (("--shipped", "nowhere"), "expected a folder that exists"),
    ],
)
def test_bad_use_is_one_line(refused, folder, arguments, words):
    refused("vectors", *arguments, words=words)
