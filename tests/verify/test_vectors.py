"""Golden vectors: the shipped files made again, the layout, and what any reader sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import refnaf
from refnaf.flows.catalogue import model_options
from refnaf.persistence import FileFormatError, write_archive
from refnaf.verify import oracle, read_vectors, write_vectors
from refnaf.verify.vectors import CORNERS, SHIPPED, example_flow, flow_of, shipped, vectors, write_shipped

#: Made of correctly rounded operations and of the oracle alone: the same on any machine.
EXACT = ("inputs/", "oracle/", "params/", "buffers/", "inverse/z")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The shipped files, made again."""
    folder = tmp_path_factory.mktemp("golden")
    return {path.stem: path for path in write_shipped(folder)}


@pytest.fixture(scope="module")
def golden():
    return {name: read_vectors(path) for name, path in shipped().items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_are_what_the_command_makes(name, made, golden):
    again, header = read_vectors(made[name])
    tensors, shipped_header = golden[name]
    assert again.keys() == tensors.keys()
    for key, array in tensors.items():
        if key.startswith(EXACT):
            np.testing.assert_array_equal(again[key], array, err_msg=key)
        else:
            # refnaf's own numbers, whose last bits are the BLAS's
            np.testing.assert_allclose(again[key], array, rtol=1e-10, atol=1e-10, err_msg=key)
    for entry in ("kind", "config", "digits", "seed", "objective"):
        assert header[entry] == shipped_header[entry]
    if header["versions"] == shipped_header["versions"] and all(np.array_equal(again[k], tensors[k]) for k in tensors):
        assert made[name].read_bytes() == shipped()[name].read_bytes()


def test_the_shipped_files_are_small_and_nothing_lies_beside_them():
    paths = list(shipped().values())
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)
    assert sum(path.stat().st_size for path in paths) < 300_000


@pytest.mark.parametrize("name", SHIPPED)
def test_refnaf_agrees_with_the_oracle_on_every_row(name, golden):
    tensors, _ = golden[name]
    assert sorted(set(tensors["inputs/kind"])) == [0, 1, 2]
    for key, true in tensors.items():
        if key.startswith("oracle/"):
            ours = tensors.get(key.removeprefix("oracle/"), tensors.get(key.replace("oracle/", "outputs/")))
            assert np.isfinite(true).all() and np.isfinite(ours).all()
            # a whole flow: each layer passes on what the one below was off by
            np.testing.assert_allclose(ours, true, rtol=1e-12, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_holds_its_flow(name, golden):
    tensors, header = golden[name]
    flow = flow_of(tensors, header)
    context = tensors.get("inputs/context")
    z, logdet = flow.forward(tensors["inputs/x"], context)
    np.testing.assert_allclose(z, tensors["outputs/z"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(logdet, tensors["outputs/logdet"], rtol=1e-10, atol=1e-10)
    total = sum(tensors[f"layers/{k}/logdet"] for k in range(len(flow.layers)))
    np.testing.assert_allclose(total, tensors["outputs/logdet"], rtol=1e-10, atol=1e-10)
    few = None if context is None else context[: len(tensors["inverse/z"])]
    np.testing.assert_allclose(flow.forward(tensors["inverse/x"], few)[0], tensors["inverse/z"], rtol=1e-10, atol=1e-10)
    # the oracle from the file alone
    true = oracle.evaluate(flow, tensors["inputs/x"][:2], None if context is None else context[:2]).rounded()
    np.testing.assert_array_equal(true.log_prob, tensors["oracle/log_prob"][:2])


def test_gradients_are_those_of_the_objective(golden):
    tensors, header = golden["maf-ddsf-context"]
    flow = flow_of(tensors, header)
    assert header["objective"] == "0.7 * sum(z) + 1.3 * sum(logdet) over the rows of kind 0"
    usual = tensors["inputs/kind"] == 0
    x, context = tensors["inputs/x"][usual], tensors["inputs/context"][usual]

    def objective(x, context, params):
        z, logdet = flow.forward(x, context, params)
        return 0.7 * z.sum() + 1.3 * logdet.sum()

    def slope(move, size=1e-6):
        high, low = (objective(*move(sign * size)) for sign in (1, -1))
        return (high - low) / (2 * size)

    rng = np.random.default_rng(0)
    params = dict(flow.params)
    for what in ("x", "context"):
        direction = rng.normal(size=(usual.sum(), 2))
        moved = {"x": lambda e, d=direction: (x + e * d, context, params)}
        moved["context"] = lambda e, d=direction: (x, context + e * d, params)
        expected = np.sum(tensors[f"grads/{what}"][usual] * direction)
        assert slope(moved[what]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert not tensors[f"grads/{what}"][~usual].any()
    masks = flow.masks()
    for name, array in params.items():
        direction = rng.normal(size=array.shape) * masks.get(name, 1.0)
        expected = np.sum(tensors[f"grads/params/{name}"] * direction)
        got = slope(lambda e, n=name, d=direction: (x, context, {**params, n: params[n] + e * d}))
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5), name


def test_any_reader_opens_a_file(made):
    tensors = load_file(made["maf"])
    assert tensors["inputs/x"].dtype == np.float64
    data = made["maf"].read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    begin, end = header["inputs/x"]["data_offsets"]
    np.testing.assert_array_equal(np.frombuffer(data[8 + n + begin : 8 + n + end]), tensors["inputs/x"].reshape(-1))


def test_inputs_are_random_rows_tails_and_corners():
    flow = example_flow("maf-dsf", 2, seed=3, flows=1, hidden=(4,), units=2)
    tensors, _ = vectors(flow, rows=44, seed=5, digits=30)
    x, kind = tensors["inputs/x"], tensors["inputs/kind"]
    assert [int(np.sum(kind == k)) for k in (0, 1, 2)] == [22, 11, 11]
    corners = x[kind == 2, 0]
    mean = flow.buffers["0.mean"][0]
    assert [value if value != mean else None for value in corners[: len(CORNERS)].tolist()] == list(CORNERS)
    assert np.signbit(corners[2]) and not np.signbit(corners[0])
    np.testing.assert_array_equal(tensors["layers/0/y"][kind == 2][1], 0)
    tails = np.abs(x[kind == 1]).max(axis=1)
    assert tails.max() >= 1e100 and np.sum(tails == 1e30) >= 1
    np.testing.assert_array_equal(x[kind == 0], x[kind == 0].astype(np.float32))


#: Options that keep a model small.
SMALL = {"flows": 1, "hidden": (3,), "units": 2, "components": 2}


@pytest.mark.parametrize("model", refnaf.models())
def test_every_model_has_vectors(model):
    options = {name: SMALL[name] for name in SMALL if name in model_options(model)}
    flow = example_flow(model, 2, 1, **options)
    tensors, _ = vectors(flow, rows=8, seed=1, digits=20)
    assert {"inputs/context", "oracle/inverse/x", "oracle/log_prob"} <= tensors.keys()
    for key in [key for key in tensors if key.startswith("oracle/")]:
        ours = tensors.get(key.removeprefix("oracle/"), tensors.get(key.replace("oracle/", "outputs/")))
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, tensors[key], rtol=1e-12, atol=1e-12, err_msg=key)


def test_the_same_arguments_give_the_same_bytes_and_a_seed_moves_the_inputs(tmp_path):
    flow = example_flow("gaussian", 2)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write_vectors(flow, path, rows=4, seed=seed, digits=20)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not np.array_equal(read_vectors(paths[0])[0]["inputs/x"], read_vectors(paths[2])[0]["inputs/x"])


def test_a_float32_flow_is_taken_exactly(tmp_path):
    flow = refnaf.build("maf", 2, flows=1, hidden=(3,), dtype="float32", seed=1)
    write_vectors(flow, tmp_path / "v.safetensors", rows=4, digits=20)
    tensors, header = read_vectors(tmp_path / "v.safetensors")
    assert header["config"]["dtype"] == "float64"
    for name, array in flow.params.items():
        np.testing.assert_array_equal(tensors[f"params/{name}"], array)


def test_what_is_refused(tmp_path):
    flow = example_flow("gaussian", 2)
    with pytest.raises(ValueError, match="at least one row, got rows=0"):
        write_vectors(flow, tmp_path / "v.safetensors", rows=0)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_vectors(flow, tmp_path / "nowhere" / "v.safetensors")
    assert not list(tmp_path.iterdir())
    flow.save(tmp_path / "flow.safetensors")
    with pytest.raises(FileFormatError, match="holds a flow, not golden vectors"):
        read_vectors(tmp_path / "flow.safetensors")
    write_archive(tmp_path / "other.safetensors", {"x": np.zeros(1)}, {})
    with pytest.raises(FileFormatError, match="holds a None"):
        read_vectors(tmp_path / "other.safetensors")
