"""Comparison with golden vectors: names, shapes, errors, verdicts, the table."""

import dataclasses

import numpy as np
import pytest

import refnaf
from refnaf.persistence import FileFormatError, write_archive
from refnaf.verify.comparison import compare
from refnaf.verify.vectors import flow_of, read_vectors, shipped
from tests.cases import CASES, make
from tests.verify.port import Port
from tests.verify.small_vectors import outputs_of, small, vectors


@pytest.fixture(scope="module")
def golden():
    return vectors(small("maf-dsf", 3, 2))


@pytest.fixture
def right(golden):
    return outputs_of(golden[0])


def row(report, name):
    return next(row for row in report.rows if row.name == name)


# agreement


@pytest.mark.parametrize("model", refnaf.models())
def test_single_precision_agrees(model):
    """Over 20 seeds, refnaf in float32 against refnaf in float64: nothing departs, and so nothing is named."""
    shapes = [(1, 0), (2, 0), (3, 2)]
    cases = [next(c for c in CASES.values() if (c.model, c.dim, c.context_dim) == (model, *shape)) for shape in shapes]
    for seed in range(20):
        flow = make(cases[seed % 3], seed=seed)
        golden, single = (vectors(f, n=12, seed=seed, tails=2, gradients=False) for f in (flow, flow.astype("float32")))
        report = compare(golden, outputs_of(single[0], "float32"))
        assert report.agrees, f"seed {seed}\n{report}"
        assert list(report.causes) == [] and report.first_departure is None


@pytest.mark.parametrize(
    "model", [m for m in refnaf.models() if m in ("gaussian", "maf", "iaf", "maf-ddsf", "iaf-dsf")]
)
def test_another_implementation_in_double_precision_agrees(model):
    golden = vectors(small(model, 3, 2), tails=0)
    report = compare(golden, Port(*golden).outputs())
    assert report.agrees, str(report)
    assert max(row.relative for row in report.rows) < 1e-11


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_shipped_vectors(name, dtype):
    """With tails up to 1e150: refnaf itself agrees with the oracle's numbers."""
    path = shipped()[name]
    tensors, header = read_vectors(path)
    flow, context = flow_of(tensors, header), tensors.get("inputs/context")
    z, logdet = flow.forward(tensors["inputs/x"], context)
    given = {"z": z, "logdet": logdet, "log_prob": flow.log_prob(tensors["inputs/x"], context)}
    with np.errstate(over="ignore"):
        given = {name: a.astype(dtype) for name, a in given.items()}
    report = compare(path, given)
    assert report.agrees, str(report)
    assert report.source == "the oracle"
    assert report.skipped == (1 if dtype == "float32" else 0)


def test_gradients_agree_in_either_precision(golden):
    flow = small("maf-dsf", 3, 2)
    single = vectors(flow.astype("float32"))[0]
    assert compare(golden, outputs_of(golden[0])).agrees
    assert compare(golden, outputs_of(single, "float32")).agrees


# what departs


def test_the_table(golden, right):
    right["z"] = right["z"].copy()
    right["z"][3, 1] += 0.5
    report = compare(golden, {"z": right["z"], "logdet": right["logdet"]})
    found = row(report, "z")
    assert found.absolute == pytest.approx(0.5)
    assert found.where == (3, 1)
    assert found.relative == pytest.approx(0.5 / np.abs(golden[0]["outputs/z"][3]).max())
    assert found.ulps == pytest.approx(0.5 / np.spacing(np.abs(golden[0]["outputs/z"][3, 1])))
    assert found.verdict == "departs in 1 of 120" and not found.agrees
    assert row(report, "logdet").agrees and not report.agrees
    assert report.first_departure == "z"
    lines = str(report).splitlines()
    assert lines[0].split() == ["tensor", "largest", "error", "relative", "ULPs", "at", "verdict"]
    assert lines[1].split()[:2] == ["z", "5.00e-01"] and "3, 1" in lines[1]
    assert "1 of 2 tensors agree with refnaf, within rtol 1e-09, atol 1e-09 (float64)" in str(report)
    assert "departs first: z, an output of the whole flow" in str(report)
    assert "not in theirs: layers/0/y, " in str(report)
    assert "not a mistake this version knows" in str(report)


def test_ulps_are_of_their_dtype(golden, right):
    z = right["z"].astype(np.float32)
    z[0, 0] = np.nextafter(z[0, 0], np.float32(np.inf))
    report = compare(golden, z)
    assert report.agrees
    assert 0.5 <= row(report, "z").ulps <= 2


def test_the_first_layer_that_departs(golden, right):
    for name in ("layers/3/y", "layers/2/logdet", "z"):
        right[name] = right[name] + 1e-3 * np.random.default_rng(0).normal(size=right[name].shape)
    report = compare(golden, right)
    assert report.first_departure == "layers/2/logdet"
    assert "the log-determinant of layer 2 (permutation)" in str(report)
    del right["layers/2/logdet"]
    assert "layers/3/y, the output of layer 3 (autoregressive, dsf)" in str(compare(golden, right))


def test_nan_and_infinity(golden, right):
    right["z"] = right["z"].copy()
    right["z"][4] = np.nan
    right["log_prob"] = right["log_prob"].copy()
    right["log_prob"][7] = -np.inf
    report = compare(golden, right)
    assert row(report, "z").verdict == "departs: 3 of 120 NaN or inf"
    assert row(report, "z").where == (4, 0)
    assert row(report, "log_prob").verdict == "departs: 1 of 40 NaN or inf"
    assert row(report, "log_prob").where == (7,)
    assert report.causes == []
    assert not compare(golden, {"z": np.full_like(right["z"], np.nan)}).agrees


def test_tolerances(golden, right):
    near = {"z": right["z"] * (1 + 1e-6)}
    assert not compare(golden, near).agrees
    assert compare(golden, near, rtol=1e-5).agrees
    assert compare(golden, near, atol=np.abs(right["z"]).max() * 2e-6).agrees
    rounded = right["z"].astype(np.float32)
    assert compare(golden, {"z": rounded}, rtol=0, atol=0).agrees
    assert not compare(golden, {"z": np.nextafter(rounded, np.float32(0))}, rtol=0, atol=0).agrees
    assert compare(golden, right, rtol=0, atol=0).agrees


def test_the_oracle_counts_where_it_is_there(golden, right):
    tensors, header = golden
    true = {**tensors, "oracle/z": tensors["outputs/z"] + 1}
    report = compare((true, header), right)
    assert report.first_departure == "z" and report.source == "the oracle and refnaf"
    assert compare((true, header), {"z": right["z"] + 1}).agrees


# names


@pytest.mark.parametrize(
    "rename", [lambda n: n.replace("/", "."), lambda n: n.replace(".", "/"), "outputs/{}".format, "outputs.{}".format]
)
def test_dots_slashes_and_the_prefix(golden, right, rename):
    report = compare(golden, {rename(name): a for name, a in right.items()})
    assert report.agrees and len(report.rows) == len(right)
    assert report.superfluous == [] and report.missing == []


def test_missing_and_superfluous(golden, right):
    report = compare(golden, {"z": right["z"], "log_det": right["logdet"], "seconds": np.ones(3)})
    assert report.agrees
    assert report.superfluous == ["log_det (did you mean logdet?)", "seconds"]
    assert "logdet" in report.missing and "z" not in report.missing
    assert "inputs/x" not in report.missing and "params/1.weight.0" not in report.missing


def test_two_names_for_one_tensor(golden, right):
    with pytest.raises(ValueError, match=r"outputs\.z and z are both z of the vectors: leave one of them out"):
        compare(golden, {"z": right["z"], "outputs.z": right["z"]})


def test_inputs_may_be_given_back(golden, right):
    x = golden[0]["inputs/x"]
    assert compare(golden, {"inputs/x": x, "z": right["z"]}).agrees
    report = compare(golden, {"inputs.x": x[::-1], "z": right["z"]})
    assert report.first_departure == "inputs/x"


# shapes


def test_a_lone_array(golden, right):
    assert [r.name for r in compare(golden, right["z"]).rows] == ["z"]
    assert [r.name for r in compare(golden, right["log_prob"]).rows] == ["log_prob"]
    assert compare(golden, right["z"].T).causes[0].name == "transposed outputs"


def test_axes_of_length_one(golden, right):
    report = compare(golden, {"log_prob": right["log_prob"][:, None], "logdet": right["logdet"][None]})
    assert report.agrees
    assert row(report, "log_prob").verdict == "agrees (shape (40, 1))"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no tensor to compare: expected some of layers/0/y"),
        ({"foo": np.ones(3)}, "got foo; rename them"),
        ({"z": np.ones((40, 4))}, r"z: expected shape \(40, 3\), got \(40, 4\)"),
        ({"outputs.logdet": np.ones(39)}, r"outputs.logdet: expected shape \(40,\), got \(39,\)"),
        ({"z": np.array([["a"] * 3] * 40)}, "z: expected real numbers, got dtype <U1"),
        ({"z": np.ones((40, 3), complex)}, "z: expected real numbers, got dtype complex128"),
        (np.ones((7, 7)), r"z of shape \(40, 3\) or log_prob of shape \(40,\), got \(7, 7\)"),
    ],
)
def test_bad_use(golden, given, words):
    with pytest.raises(ValueError, match=words):
        compare(golden, given)


# files


def test_files(golden, right, tmp_path):
    from safetensors.numpy import save_file

    write_archive(tmp_path / "golden.safetensors", *golden)
    np.savez(tmp_path / "a.npz", **right)
    np.savez(tmp_path / "lone.npz", right["z"])
    np.save(tmp_path / "z.npy", right["z"])
    np.save(tmp_path / "f.npy", np.asfortranarray(right["z"]))
    save_file({name: np.ascontiguousarray(a) for name, a in right.items()}, tmp_path / "a.safetensors")
    for name in ("a.npz", "lone.npz", "z.npy", "f.npy", "a.safetensors"):
        report = compare(tmp_path / "golden.safetensors", tmp_path / name)
        assert report.agrees and len(report.rows) == (len(right) if name[0] == "a" else 1)


def test_damaged_files(golden, right, tmp_path):
    write_archive(tmp_path / "golden.safetensors", *golden)
    np.savez(tmp_path / "a.npz", **right)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_bytes(b"hello, this is no archive")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "golden.safetensors").read_bytes()[:3000])
    for name in ("cut.npz", "text.npz", "empty.npy", "objects.npy", "cut.safetensors"):
        with pytest.raises(ValueError, match=name) as caught:
            compare(tmp_path / "golden.safetensors", tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        compare(tmp_path / "golden.safetensors", tmp_path / "none.npz")
    with pytest.raises(FileFormatError):
        compare(tmp_path / "cut.safetensors", right)
    small("maf", 3).save(tmp_path / "flow.safetensors")
    with pytest.raises(FileFormatError, match="holds a flow, not golden vectors"):
        compare(tmp_path / "flow.safetensors", right)


def test_vectors_that_this_version_cannot_follow(golden, right):
    """Predictions that do not give the vectors' own numbers are not used; a flow that cannot be built is refused."""
    tensors, header = golden
    bent = {**tensors, "params/1.bias.0": tensors["params/1.bias.0"] + 1}
    assert compare((bent, header), {"z": -right["z"]}).causes == []
    with pytest.raises(FileFormatError, match="upgrade refnaf"):
        compare((tensors, {**header, "config": {"model": "maf"}}), {"z": -right["z"]})


def test_the_report_is_plain_data(golden, right):
    report = compare(golden, {"z": -right["z"]})
    assert dataclasses.asdict(report)["rows"][0]["name"] == "z"
