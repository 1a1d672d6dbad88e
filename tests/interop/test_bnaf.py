"""The B-NAF authors' numbers: outputs, log-determinants and every gradient, and what the importer refuses."""

from __future__ import annotations

from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

import refnaf
from refnaf.interop import bnaf, from_bnaf

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
FORMS = ("none", "normal", "gated")


def _load(form):
    with np.load(VECTORS / f"bnaf_{form}.npz", allow_pickle=False) as file:
        numbers = {name: file[name] for name in file.files}
    state = {name[6:]: array for name, array in numbers.items() if name.startswith("state/")}
    return numbers, state, "normal" if form == "normal" else "none"


def _relative(got, expected):
    return np.max(np.abs(got - expected)) / np.max(np.abs(expected))


def _objective(flow, x, params):
    y, logdet = flow.forward(x, params=params)
    return 0.7 * anp.sum(y) + 1.3 * anp.sum(logdet)


@pytest.mark.parametrize("form", FORMS)
def test_values_are_the_authors(form):
    numbers, state, residual = _load(form)
    y, logdet = from_bnaf(state, residual=residual).forward(numbers["x"])
    assert _relative(y, numbers["y"]) < 1e-13
    np.testing.assert_allclose(logdet, numbers["logdet"], rtol=1e-13)
    single = from_bnaf(state, residual=residual, dtype="float32")
    assert _relative(single.forward(numbers["x"])[0], numbers["y"]) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_the_authors(form):
    numbers, state, residual = _load(form)
    flow = from_bnaf(state, residual=residual)
    x = numbers["x"]
    got = grad(lambda x: _objective(flow, x, dict(flow.params)))(x)
    assert _relative(got, numbers["grad_x"]) < 1e-12
    free = {name: array for name, array in state.items() if "mask" not in name}
    got = grad(lambda free: _objective(flow, x, bnaf.parameters(free)))(free)
    wanted = {name[5:]: array for name, array in numbers.items() if name.startswith("grad/")}
    assert wanted.keys() == got.keys()
    for name, expected in wanted.items():
        assert np.max(np.abs(got[name] - expected)) < 1e-12 * max(1, np.max(np.abs(expected))), name


def _stack():
    parts = [_load("gated")[1], _load("none")[1]]
    return {f"{2 * k}.{name}": array for k, part in enumerate(parts) for name, array in part.items()}


def test_a_stack_with_a_flip_between_is_the_composition():
    flow = from_bnaf(_stack())
    assert [layer.kind for layer in flow.layers[1:]] == ["block", "permutation", "block"]
    x = _load("gated")[0]["x"]
    middle, first = from_bnaf(_load("gated")[1]).forward(x)
    y, second = from_bnaf(_load("none")[1]).forward(middle[:, ::-1])
    np.testing.assert_allclose(flow.forward(x)[0], y, rtol=1e-13)
    np.testing.assert_allclose(flow.forward(x)[1], first + second, rtol=1e-13)
    order = [2, 0, 1, 5, 4, 3]
    y = from_bnaf(_load("none")[1]).forward(middle[:, order])[0]
    np.testing.assert_allclose(from_bnaf(_stack(), order=order).forward(x)[0], y, rtol=1e-13)


def test_forms_can_be_given_for_each_module():
    flow = from_bnaf(_stack(), residual=["none", "normal"])
    assert [layer.residual for layer in flow.layers if layer.kind == "block"] == ["gated", "normal"]
    with pytest.raises(ValueError, match="one for each of the 2 modules, got 1"):
        from_bnaf(_stack(), residual=["none"])


def test_an_imported_flow_is_saved_and_read(tmp_path):
    numbers, state, residual = _load("normal")
    flow = from_bnaf(state, residual=residual)
    flow.save(tmp_path / "b.safetensors")
    again = refnaf.load(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(again.log_prob(numbers["x"]), flow.log_prob(numbers["x"]))
    back = again.inverse(numbers["y"])[0]
    np.testing.assert_allclose(back, numbers["x"], atol=1e-12)


def test_exact_changes_nothing():
    numbers, state, residual = _load("gated")
    pair = [from_bnaf(state, residual=residual, exact=exact).log_prob(numbers["x"]) for exact in (False, True)]
    np.testing.assert_array_equal(*pair)


def _broken(change):
    state = dict(_load("gated")[1])
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.bias"), "lacks '2.bias'"),
        (lambda s: s.pop("0._weight"), "lacks '0._weight'"),
        (lambda s: s.update({"0.extra": np.zeros(2)}), r"cannot be represented: 0\.extra"),
        (lambda s: s.update({"2.mask_o": s["2.mask_o"].T}), "mask_o is no block mask of 6"),
        (lambda s: s.update({"4._weight": s["4._weight"][:4]}), "do not follow each other"),
        (
            lambda s: s.update({"2._weight": s["2._weight"][:23], "4._weight": s["4._weight"][:, :23]}),
            "divided among 6",
        ),
        (lambda s: s.clear(), "no BNAF module at place 0"),
        (lambda s: s.update({"gate": np.zeros(2)}), "gate must have shape"),
    ],
)
def test_what_is_no_bnaf_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_bnaf(_broken(change))


def test_a_stack_with_foreign_names_is_refused():
    with pytest.raises(ValueError, match=r"'base\.loc' belongs to no BNAF module"):
        from_bnaf({**_stack(), "base.loc": np.zeros(6)})
    with pytest.raises(ValueError, match="residual must be one of"):
        from_bnaf(_load("none")[1], residual="sum")
