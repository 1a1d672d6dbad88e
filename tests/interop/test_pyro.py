"""Pyro's transforms, imported: the numbers of the library itself, stored and fresh, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import refnaf
from refnaf.interop import from_pyro
from refnaf.interop.carry import Masked, carry
from refnaf.reference.stable import softplus
from tests import checks
from tests.interop.stored import agree, config, load, names, state

NAMES = names("pyro")
BLOCKS = [name for name in NAMES if name.startswith("block")]


def _flow(numbers, **options):
    return from_pyro(state(numbers), **{**config(numbers), **options})


def _check(name, numbers):
    flow = _flow(numbers)
    context = numbers.get("context")
    expected = numbers["logdet"]
    for map_, start, end, logdet in (
        (flow.inverse, numbers["x"], numbers["y"], expected),
        (flow.forward, numbers["y"], numbers["x"], -expected),
    ):
        got = map_(start, context)
        agree(got[0], end)
        agree(got[1], logdet)
    # the epsilon in Pyro's neural transform makes the stack's log-determinants depart from its Jacobians
    agree(expected, numbers["true_logdet"], 1e-5 if name == "stack" else 1e-6)
    if "back_y" in numbers:
        got = flow.forward(numbers["back_y"], context)
        agree(got[0], numbers["back_x"])
        agree(got[1], numbers["back_logdet"])


@pytest.mark.parametrize("name", NAMES)
def test_stored_numbers(name):
    _check(name, load("pyro", name))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NAMES)
def test_fresh_numbers(name, seed):
    pytest.importorskip("pyro")
    from tests.interop import peer_pyro

    assert sorted(peer_pyro.CASES) == NAMES
    _check(name, peer_pyro.random(name, seed, rows=20, scale=0.3 + 0.1 * seed))


@pytest.mark.parametrize("name", ["neural", "neural-context", "neural-tanh", "neural-leaky", *BLOCKS])
def test_exact_is_the_jacobian_of_the_librarys_map(name):
    numbers = load("pyro", name)
    y, logdet = _flow(numbers, exact=True).inverse(numbers["x"], numbers.get("context"))
    agree(y, numbers["y"])
    agree(logdet, numbers["true_logdet"])
    assert np.abs(logdet - numbers["logdet"]).max() > 1e-10, "epsilon makes no difference: this tests nothing"


@pytest.mark.parametrize("name", ["affine-skip-context", "stack", "neural-elu", "planar", "block-gated"])
def test_the_flow_is_one_like_any_other(name, tmp_path):
    numbers = load("pyro", name)
    flow, context = _flow(numbers, exact=True), numbers.get("context")
    flow.save(tmp_path / "flow.safetensors")
    again = refnaf.load(tmp_path / "flow.safetensors")
    np.testing.assert_array_equal(again.log_prob(numbers["y"], context), flow.log_prob(numbers["y"], context))
    checks.log_determinant(flow, numbers["y"][:2], None if context is None else context[:2], 1e-8)
    narrow = _flow(numbers, exact=True, dtype="float32")
    np.testing.assert_allclose(narrow.log_prob(numbers["y"], context), flow.log_prob(numbers["y"], context), rtol=1e-3)


def test_transforms_may_be_left_out_where_the_state_tells_them():
    numbers = load("pyro", "affine")
    plain = from_pyro(state(numbers)).inverse(numbers["x"])[0]
    agree(plain, numbers["y"])
    agree(from_pyro(state(numbers), transforms=["ConditionalAffineAutoregressive"]).inverse(numbers["x"])[0], plain, 0)
    numbers = load("pyro", "planar")
    assert [layer.kind for layer in from_pyro(state(numbers)).layers] == ["standardise", "inverse", "inverse"]


def test_a_scale_is_clamped():
    numbers = load("pyro", "affine-clips")
    _, logdet = _flow(numbers).inverse(numbers["x"])
    _, free = from_pyro(state(numbers)).inverse(numbers["x"])
    assert np.abs(logdet - free).max() > 0.01, "no log-scale is clamped: the case tests nothing"


def test_carried_inputs_arrive_unchanged():
    rng = np.random.default_rng(0)
    sizes = [(5, 3), (4, 5), (2, 4)]
    net = Masked(
        [rng.normal(size=size) for size in sizes],
        [rng.normal(size=out) for out, _ in sizes],
        [np.ones(size) for size in sizes],
    )
    skip, middle = rng.normal(size=(2, 2)), rng.normal(size=(4, 2))
    wide = carry(net, [2, 0], {2: (skip, np.ones((2, 2))), 1: (middle, np.ones((4, 2)))})
    x = rng.normal(size=(3, 7))

    def run(net, first=None, last=0.0):
        h = x
        for k, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
            h = weight @ h + bias[:, None] + (first if first is not None and k == 1 else 0)
            h = np.maximum(h, 0) if k < 2 else h
        return h + last

    np.testing.assert_allclose(run(wide), run(net, middle @ x[[2, 0]], skip @ x[[2, 0]]), rtol=1e-12, atol=1e-13)
    assert [w.shape for w in wide.weights] == [m.shape for m in wide.masks]


def _planar_state(u, w):
    return {"u": np.asarray(u, float), "w": np.asarray(w, float), "bias": np.zeros(1)}


@pytest.mark.parametrize(("u", "slope"), [([3.0, 0.0], 3.0), ([-8.0, 1.0], -8.0), ([-13.0, 0.0], -13.0)])
def test_planar_slopes_down_to_the_floor(u, slope):
    flow = from_pyro(_planar_state(u, [1.0, 0.0]))
    _, logdet = flow.inverse(np.zeros((1, 2)))
    np.testing.assert_allclose(logdet, np.log(softplus(np.array([slope]))), rtol=1e-7)


NEURAL = {"name": "NeuralAutoregressive"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("affine", {"transforms": ["Spline"]}, "must be one of"),
        ("affine", {"transforms": ["Planar"]}, "but the state holds AffineAutoregressive"),
        ("affine", {"transforms": ["AffineAutoregressive"] * 2}, "but the state holds AffineAutoregressive"),
        ("affine", {"transforms": [{"name": "AffineAutoregressive", "hidden": 3}]}, "no setting 'hidden'"),
        ("affine", {"transforms": ["Permute", "AffineAutoregressive"]}, "needs permutation"),
        (
            "affine",
            {"transforms": [{"name": "Permute", "permutation": [1, 0]}, "AffineAutoregressive"]},
            "each of 0..2",
        ),
        ("affine", {"transforms": [{"name": "AffineAutoregressive", "nonlinearity": "gelu"}]}, "must be one of elu"),
        (
            "affine",
            {"transforms": ["AffineAutoregressive", {"name": "AffineTransform", "loc": 0, "scale": [1, 0, 1]}]},
            "positive scales",
        ),
        (
            "affine",
            {"transforms": ["AffineAutoregressive", {"name": "AffineTransform", "loc": 0, "scale": [1, 1]}]},
            "or 3 of them",
        ),
        (
            "affine-skip",
            {"transforms": [{"name": "AffineAutoregressive", "nonlinearity": "tanh"}]},
            "skip connections can be represented for the nonlinearity relu alone",
        ),
        ("neural", {"transforms": [{**NEURAL, "hidden_units": 5}]}, "hidden_units=5"),
        ("neural", {"transforms": [{**NEURAL, "activation": "relu"}]}, "sigmoid, tanh, ELU, LeakyReLU"),
        (
            "block",
            {"exact": True, "transforms": [{"name": "BlockAutoregressive", "activation": "ELU"}]},
            "only tanh",
        ),
        (
            "block",
            {"exact": True, "transforms": [{"name": "BlockAutoregressive", "hidden_factors": [4, 3]}]},
            r"the weights have \[4, 2\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        _flow(load("pyro", name), **options)
    assert "\n" not in str(caught.value)


def test_foreign_states_are_refused():
    with pytest.raises(ValueError, match="the state is empty"):
        from_pyro({})
    with pytest.raises(ValueError, match="a mapping of names to arrays"):
        from_pyro([1.0])
    with pytest.raises(ValueError, match="none of AffineAutoregressive"):
        from_pyro({"gamma": np.ones(3)})
    numbers = load("pyro", "affine")
    with pytest.raises(ValueError, match=r"cannot be represented: arn\.batch_norm"):
        from_pyro({**state(numbers), "arn.batch_norm": np.ones(3)})
    with pytest.raises(ValueError, match="buffers included"):
        from_pyro({k: v for k, v in state(numbers).items() if not k.endswith("mask")})
    with pytest.raises(ValueError, match="dimensions"):
        from_pyro(
            {"0.u": np.ones(2), "0.w": np.ones(2), "0.bias": np.ones(1)}
            | _prefixed(_planar_state([1, 2, 3], [1, 2, 3]))
        )
    with pytest.raises(ValueError, match="cannot be represented"):
        from_pyro(_planar_state([-30.0, 0.0], [1.0, 0.0]))


def _prefixed(own):
    return {f"1.{name}": array for name, array in own.items()}
