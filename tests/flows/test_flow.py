"""What a Flow promises beyond its mathematics: names, errors, immutability, contexts."""

from __future__ import annotations

import json

import numpy as np
import pytest

import refnaf
from tests.cases import CASES, make, rows

CONDITIONAL = CASES["maf-ddsf-D3-C2-units=5"]
PLAIN = CASES["maf-D2"]


def test_models_are_listed_and_built():
    for model in refnaf.models():
        assert refnaf.build(model, dim=2).model == model


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "naf", "dim": 2}, "model must be one of"),
        ({"model": "maf", "dim": 0}, "at least one column"),
        ({"model": "maf", "dim": 2, "dtype": "float16"}, "dtype must be"),
        ({"model": "maf", "dim": 2, "depth": 3}, "no option 'depth'"),
        ({"model": "gaussian", "dim": 2, "flows": 3}, "no option"),
        ({"model": "maf", "dim": 2, "form": "cubic"}, "form"),
        ({"model": "maf", "dim": 2, "activation": "gelu"}, "activation"),
        ({"model": "maf", "dim": 2, "permutation": "odd"}, "permutation"),
        ({"model": "maf", "dim": 2, "hidden": (0,)}, "hidden"),
        ({"model": "maf-dsf", "dim": 2, "units": 0}, "units must be a whole number"),
        ({"model": "maf", "dim": 2, "flows": 0}, "flows must be"),
        ({"model": "maf", "dim": 2, "hidden": "wide"}, "hidden must be"),
        ({"model": "maf", "dim": 2, "bound": "x"}, "bound must be"),
        ({"model": "maf-ddsf", "dim": 2, "layers": 1.5}, "layers must be"),
    ],
)
def test_bad_models_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        refnaf.build(**arguments)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((3, 5)), r"shape \(N, 2\)"),
        (np.zeros(3), r"shape \(N, 2\)"),
        (np.array([[0.0, np.nan]]), "NaN or inf"),
        (np.array([[0.0, 1j]]), "real numbers"),
        (np.array([["a", "b"]]), "real numbers"),
    ],
)
def test_bad_rows_are_refused(x, says):
    with pytest.raises(ValueError, match=says):
        make(PLAIN).log_prob(x)


def test_contexts_missing_superfluous_and_of_the_wrong_length():
    flow = make(CONDITIONAL)
    x, context = rows(CONDITIONAL, 4)
    with pytest.raises(ValueError, match="needs a context"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match="as many rows"):
        flow.log_prob(x, context[:3])
    with pytest.raises(ValueError, match="without a context"):
        make(PLAIN).log_prob(x[:, :2], context)
    np.testing.assert_allclose(flow.log_prob(x, context[:1]), flow.log_prob(x, np.repeat(context[:1], 4, axis=0)))
    assert not np.allclose(flow.log_prob(x, context), flow.log_prob(x, context + 1))


def test_parameters_have_stable_names_and_are_read_only():
    flow = make(CONDITIONAL)
    assert list(flow.params) == list(make(CONDITIONAL, seed=9).params)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(flow.params.values()))[...] = 0
    with pytest.raises(TypeError):
        flow.params["1.bias.0"] = 0


def test_replace_makes_another_flow_and_refuses_what_does_not_fit():
    flow = make(PLAIN)
    x, _ = rows(PLAIN, 3)
    before = flow.log_prob(x)
    other = flow.replace({"1.bias.2": flow.params["1.bias.2"] + 1})
    assert not np.allclose(other.log_prob(x), before)
    np.testing.assert_array_equal(flow.log_prob(x), before)
    with pytest.raises(ValueError, match="no parameter"):
        flow.replace({"bias": 0})
    with pytest.raises(ValueError, match="must have shape"):
        flow.replace({"1.bias.0": np.zeros(2)})


def test_masked_entries_stay_zero_whatever_is_put_there():
    flow = make(PLAIN)
    full = flow.replace({k: np.ones_like(v) for k, v in flow.params.items()})
    for name, mask in flow.masks().items():
        assert np.array_equal(full.params[name], mask)
    assert flow.n_params == sum(
        int(flow.masks()[k].sum()) if k in flow.masks() else v.size for k, v in flow.params.items()
    )


def test_given_parameters_count_as_zero_outside_their_masks():
    flow = make(PLAIN)
    x, _ = rows(PLAIN, 3)
    other = {k: v + 0.1 for k, v in flow.params.items()}
    np.testing.assert_array_equal(flow.log_prob(x, params=other), flow.replace(other).log_prob(x))
    from autograd import grad

    got = grad(lambda p: flow.log_prob(x, params=p).sum())(other)
    for name, mask in flow.masks().items():
        assert not got[name][mask == 0].any()


def test_config_is_json():
    flow = make(CONDITIONAL)
    assert json.loads(json.dumps(flow.config)) == flow.config


def test_foreign_and_tampered_files_are_refused(tmp_path):
    flow = make(PLAIN)
    flow.save(tmp_path / "flow")
    (tmp_path / "cut").write_bytes((tmp_path / "flow").read_bytes()[:-7])
    (tmp_path / "text").write_text("x,y\n1,2\n")
    for name in ("cut", "text"):
        with pytest.raises(refnaf.FileFormatError, match=name):
            refnaf.load(tmp_path / name)


def test_a_file_with_a_layer_of_the_future_is_refused(tmp_path):
    from refnaf.persistence import read_archive, write_archive

    make(PLAIN).save(tmp_path / "flow")
    tensors, header = read_archive(tmp_path / "flow")
    header["config"]["layers"][1]["kind"] = "spline"
    write_archive(tmp_path / "new", tensors, header)
    with pytest.raises(ValueError, match="spline"):
        refnaf.load(tmp_path / "new")


def test_samples_of_a_float32_flow_are_its_own():
    flow = make(PLAIN, "float32")
    x, log_prob = flow.sample(100, return_log_prob=True)
    np.testing.assert_allclose(flow.log_prob(x), log_prob, atol=1e-3)


def test_a_trace_of_the_residual_is_refused():
    from autograd import grad

    with pytest.raises(ValueError, match="return_residual"):
        grad(lambda z: make(PLAIN).inverse(z, return_residual=True)[0].sum())(np.zeros((1, 2)))


def test_reference_ops_offer_no_vjp_and_unknown_backends_are_refused(tmp_path):
    from refnaf import ops

    with pytest.raises(ValueError, match="backend must be one of"):
        ops.make("torch")
    make(PLAIN).save(tmp_path / "flow")
    with pytest.raises(ValueError, match="backend"):
        refnaf.load(tmp_path / "flow", backend="torch")
