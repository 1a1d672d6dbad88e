"""Every known mistake, planted into somebody else's implementation, is recognised by its name."""

import numpy as np
import pytest

from refnaf.ops import ReferenceOps
from refnaf.verify.comparison import compare
from refnaf.verify.signatures import SIGNATURES
from tests.verify.mistakes import FLOWS, PLANTED, golden, mistaken
from tests.verify.port import Port, softplus
from tests.verify.small_vectors import outputs_of, small, vectors


def causes(name, given):
    report = compare(golden(name), given)
    assert not report.agrees
    return report.causes


#: One of each, of which only the flow's outputs are known.
FEW = list({name: planted for planted in PLANTED for name in planted[:1]}.values())


def check(name, flow, given, detail):
    found = causes(flow, given)
    assert name in [cause.name for cause in found]
    best = next(cause for cause in found if cause.name == name)
    assert detail in best.detail
    assert best.closeness <= 1


@pytest.mark.parametrize(("name", "flow", "methods", "detail"), PLANTED)
def test_a_planted_mistake_is_named(name, flow, methods, detail):
    check(name, flow, mistaken(flow, **methods), detail)


@pytest.mark.parametrize(("name", "flow", "methods", "detail"), FEW)
def test_by_the_outputs_alone(name, flow, methods, detail):
    given = mistaken(flow, **methods)
    check(name, flow, {tensor: given[tensor] for tensor in ("z", "logdet", "log_prob")}, detail)


def test_forward_and_inverse_swapped():
    flow = small(**FLOWS["maf"])
    tensors, _ = golden("maf")
    x, base = tensors["inputs/x"], tensors["inverse/z"]
    z, logdet = flow.inverse(x)
    there, there_logdet = flow.forward(base)
    given = {"z": z, "logdet": logdet, "inverse/x": there, "inverse/logdet": there_logdet}
    assert causes("maf", given)[0].name == "forward and inverse swapped"
    assert causes("maf", {"z": z})[0].name == "forward and inverse swapped"


def test_the_inverse_alone_forgets_to_undo_the_permutation():
    tensors, header = golden("random")
    flow = small(**FLOWS["random"])
    layers, own = flow.layers, flow.layer_params()
    ops = ReferenceOps()
    x, _, _ = layers[3].inverse(ops, own[3], tensors["inverse/z"].T, None)
    x, _, _ = layers[1].inverse(ops, own[1], x[layers[2].order], None)
    x, _, _ = layers[0].inverse(ops, own[0], x, None)
    report = compare((tensors, header), {**outputs_of(tensors), "inverse/x": x.T})
    assert report.first_departure == "inverse/x"
    assert [cause.name for cause in report.causes] == ["permutation not inverted"]


def test_float32_passed_as_float64():
    tensors, header = golden("dsf")
    single = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in tensors.items()}
    with np.errstate(all="ignore"):
        given = Port(single, header).outputs()
    assert given["z"].dtype == np.float32
    wide = {name: a.astype(np.float64) for name, a in given.items()}
    found = causes("dsf", wide)
    assert [cause.name for cause in found] == ["float32 computation passed as float64"]
    assert "exact in float32" in found[0].detail


def test_a_mistake_in_float32_passed_as_float64_is_still_named():
    tensors, header = golden("dsf")
    single = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in tensors.items()}
    with np.errstate(all="ignore"):
        given = type("Mistaken", (Port,), {"slope": lambda s, raw: softplus(raw)})(single, header).outputs()
    found = causes("dsf", {name: a.astype(np.float64) for name, a in given.items()})
    assert found[0].name == "missing softplus offset"
    assert found[0].rtol == 1e-4


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_transposed(dtype):
    tensors, header = golden("dsf")
    right = outputs_of(tensors, dtype)
    turned = {"z": right["z"].T, "layers/1/theta": right["layers/1/theta"].transpose(1, 2, 0)}
    turned["grads/params/1.weight.0"] = right["grads/params/1.weight.0"].T
    report = compare((tensors, header), {**right, **turned})
    assert {row.name for row in report.rows if not row.agrees} == set(turned)
    assert [cause.name for cause in report.causes] == ["transposed outputs"]


def test_transposed_where_both_sides_are_equal():
    tensors, header = vectors(small("maf", 4), n=4, tails=0, gradients=False)
    report = compare((tensors, header), tensors["outputs/z"].T)
    assert [cause.name for cause in report.causes] == ["transposed outputs"]


def test_flat_pseudo_parameters():
    tensors, header = golden("dsf")
    theta = tensors["layers/1/theta"]
    assert compare((tensors, header), {"layers/1/theta": theta.reshape(len(theta), -1)}).agrees
    flat = theta.transpose(0, 2, 1).reshape(len(theta), -1)
    assert causes("dsf", {"layers/1/theta": flat})[0].name == "parameter-major network outputs"


def test_one_permutation_too_many():
    given = outputs_of(golden("maf")[0])
    given["z"] = given["z"][:, ::-1]
    assert [cause.name for cause in causes("maf", given)] == ["one permutation too many"]


def test_rows_in_another_order():
    given = outputs_of(golden("maf")[0])
    order = np.random.default_rng(0).permutation(len(given["z"]))
    shuffled = {name: given[name][order] for name in ("z", "log_prob")}
    assert [cause.name for cause in causes("maf", shuffled)] == ["rows in another order"]


def test_overflow_far_out():
    found = causes("ddsf", mistaken("ddsf"))
    assert [cause.name for cause in found] == ["overflow in the tails"]
    assert "NaN or infinite" in found[0].detail


def test_a_constant():
    given = outputs_of(golden("maf")[0])
    found = causes("maf", {"z": given["z"], "log_prob": given["log_prob"] + 0.125})
    assert [cause.name for cause in found] == ["a constant is missing or too many"]
    assert "log_prob is more by 0.125 nats" in found[0].detail


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean instead of sum", lambda a: a.mean()),
        ("sum over the rows", lambda a: a.sum()),
    ],
)
def test_one_number_for_all_rows(name, change):
    given = outputs_of(golden("maf")[0])
    assert [cause.name for cause in causes("maf", {"log_prob": change(given["log_prob"])})] == [name]


def test_not_summed_over_the_dimensions():
    tensors, header = golden("gaussian")
    each = np.tile(tensors["params/1.log_diagonal"], (40, 1))
    report = compare((tensors, header), {"layers/1/logdet": each})
    assert [cause.name for cause in report.causes] == ["not summed over the dimensions"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean instead of sum", lambda a: a / 34),
        ("mean instead of sum", lambda a: a / 40),
        ("negated log p", lambda a: -a),
    ],
)
def test_gradients(name, change):
    given = outputs_of(golden("dsf")[0])
    given |= {tensor: change(a) for tensor, a in given.items() if tensor.startswith("grads/")}
    assert [cause.name for cause in causes("dsf", given)] == [name]


def test_gradients_outside_the_mask():
    tensors, _ = golden("dsf")
    flow, rng = small(**FLOWS["dsf"]), np.random.default_rng(0)
    given = outputs_of(tensors)
    for name, mask in flow.masks().items():
        given[f"grads/params/{name}"] += (1 - mask) * rng.normal(size=mask.shape)
    assert [cause.name for cause in causes("dsf", given)] == ["gradient outside the mask"]


# nothing is named for nothing


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_no_known_mistake(seed):
    rng = np.random.default_rng(seed)
    name = list(FLOWS)[seed % len(FLOWS)]
    right = outputs_of(golden(name)[0])
    garbage = {tensor: rng.normal(size=a.shape) for tensor, a in right.items() if not tensor.startswith("grads")}
    assert causes(name, {"z": garbage["z"], "log_prob": garbage["log_prob"]}) == []
    if "iaf" not in name:
        assert causes(name, garbage) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_known_mistake(seed):
    """Small or large noise on right numbers. What is as small as float32's rounding may be taken for that."""
    rng = np.random.default_rng(seed)
    name, noise = ("maf", "dsf", "gaussian", "ddsf")[seed % 4], (1e-2, 1e-6)[seed // 4 % 2]
    right = outputs_of(golden(name)[0])
    noisy = {which: right[which] + noise * rng.standard_cauchy(size=right[which].shape) for which in ("z", "logdet")}
    found = [cause.name for cause in causes(name, noisy)]
    assert found in ([], ["float32 computation passed as float64"][: noise < 1e-3])


def test_every_signature_is_planted_and_explained():
    tested = {planted[0] for planted in PLANTED} | {
        "forward and inverse swapped",
        "sum over the rows",
        "not summed over the dimensions",
        "one permutation too many",
        "gradient outside the mask",
        "transposed outputs",
        "rows in another order",
        "overflow in the tails",
        "float32 computation passed as float64",
        "a constant is missing or too many",
    }
    assert tested == {signature.name for signature in SIGNATURES}
    assert len({signature.name for signature in SIGNATURES}) == len(SIGNATURES)
    for signature in SIGNATURES:
        assert signature.remedy.endswith(".") and (signature.predict or signature.test)
