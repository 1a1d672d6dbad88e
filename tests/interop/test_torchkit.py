"""torchkit's weights: the authors' own numbers, and other sizes and seeds by a port of their formulas."""

from __future__ import annotations

from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

import refnaf
from refnaf.interop import from_torchkit, torchkit
from refnaf.interop.masked import arrange
from refnaf.reference import ddsf, dsf, stable
from tests.interop import torchkit_port as port

VECTORS = Path(__file__).parent.parent / "vectors"
FILES = sorted(path.name for path in [*VECTORS.glob("iaf_*.npz"), *VECTORS.glob("maf_*_stack3.npz")])


def read(name):
    with np.load(VECTORS / name) as archive:
        values = dict(archive)
    state = {k[6:]: v for k, v in values.items() if k.startswith("state/")}
    return values, state, {"realify": "softplus"} if "softplus" in name else {}


def close(got, expected, tolerance=1e-11):
    assert np.max(np.abs(got - expected)) <= tolerance * max(np.max(np.abs(expected)), 1e-3)


def test_all_files_are_here():
    assert len(FILES) == 10


@pytest.mark.parametrize("name", FILES)
def test_the_authors_values(name):
    values, state, options = read(name)
    flow = from_torchkit(state, **options)
    z, logdet = flow.forward(values["x"], values["context"])
    close(z, values["y"])
    close(logdet, values["logdet"])
    back, other, residual = flow.inverse(z, values["context"], return_residual=True)
    close(back, values["x"])
    close(other, -values["logdet"], 1e-10)
    assert residual.max() < 1e-12


@pytest.mark.parametrize("name", FILES)
def test_the_authors_gradients(name):
    """By the analytic chain for the flow's parameters, and autograd from these to every number of the state."""
    values, state, options = read(name)
    flow = from_torchkit(state, **options)
    free = {k: v for k, v in state.items() if not k.endswith("mask")}

    def objective(x, free):
        params = torchkit.parameters({**state, **free}, **options)
        z, logdet = flow.forward(x, values["context"], params)
        return 0.7 * anp.sum(z) + 1.3 * anp.sum(logdet)

    close(grad(objective, 0)(values["x"], free), values["grad_x"])
    got = grad(objective, 1)(values["x"], free)
    for key in free:
        close(got[key], values[f"grad/{key}"])


@pytest.mark.parametrize("mollify", [0.0, 0.5])
def test_the_authors_sigmoidal_flow_with_its_clipping(mollify):
    name = "dsf_transformer.npz" if mollify == 0 else "dsf_transformer_mollify0.5.npz"
    with np.load(VECTORS / name) as archive:
        x, params, y, logdet = (archive[k] for k in ("x", "params", "y", "logdet"))
    raw = np.moveaxis(params, -1, 0)
    d = len(raw) // 3
    a = (stable.softplus(raw[:d]) + 1e-6) * (1 - mollify) + mollify
    exact = dsf.sigmoid_mixture(x, a, raw[d : 2 * d] * (1 - mollify), stable.log_softmax(raw[2 * d :]))
    got, log_slope = dsf.clipped(*exact, 1e-6)
    close(got, y)
    close(log_slope.sum(axis=1), logdet)


SIZES = [(1, (5,), 2), (2, (7,), 1), (5, (11, 8), 3), (9, (30,), 4)]


def other_state(kind, seed, dim, hidden, context):
    rng = np.random.default_rng(seed)
    channels = 2 if kind.startswith("iaf-") else 4
    state = port.made_state(rng, dim, hidden, context, channels, fixed_order=seed % 2 == 0)
    units = 6
    counts = {"dsf": 3 * units, "ddsf": 3 * units + 1 + 2 * 4 * units}
    if kind in counts:
        state["out_to_dsparams.weight"] = rng.normal(size=(counts[kind], channels, 1))
        state["out_to_dsparams.bias"] = rng.normal(size=counts[kind])
    if kind == "ddsf":
        for k, (inputs, outputs) in enumerate([(1, units), (units, units), (units, 1)]):
            state[f"sf{k}.u_"] = rng.normal(size=(units, inputs))
            state[f"sf{k}.w_"] = rng.normal(size=(outputs, units))
    return state


FUNCTIONS = {
    "dsf": port.iaf_dsf,
    "ddsf": port.iaf_ddsf,
    "iaf-sigmoid": lambda s, x, c: port.iaf(s, x, c, "sigmoid"),
    "iaf-softplus": lambda s, x, c: port.iaf(s, x, c, "softplus"),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize(("dim", "hidden", "context"), SIZES)
def test_other_seeds_and_sizes(kind, dim, hidden, context):
    for seed in (3, 4):
        state = other_state(kind, seed, dim, hidden, context)
        rng = np.random.default_rng(seed)
        x, c = rng.normal(size=(20, dim)), rng.normal(size=(20, context))
        options = {"realify": "softplus"} if kind == "iaf-softplus" else {}
        flow = from_torchkit(state, **options)
        z, logdet = FUNCTIONS[kind](state, x, c)
        got_z, got_logdet = flow.forward(x, c)
        close(got_z, z, 1e-10)
        close(got_logdet, logdet, 1e-9)


def stack(rng, dim=4, context=2):
    """A flow that starts with a flip, holds a LinearFlow between others, and ends with one."""
    first = {f"1.{k}": v for k, v in other_state("dsf", 5, dim, (9,), context).items()}
    second = {f"2.{k}": v for k, v in port.linear_state(rng, dim, context).items()}
    third = {f"4.{k}": v for k, v in other_state("dsf", 7, dim, (6,), context).items()}
    return {**first, **second, **third}


@pytest.mark.parametrize("direction", ["density", "sampling"])
def test_stacks_in_both_directions(direction):
    rng = np.random.default_rng(0)
    state = stack(rng)
    x, c = rng.normal(size=(15, 4)), rng.normal(size=(15, 2))
    part = {k: {n[2:]: v for n, v in state.items() if n.startswith(f"{k}.")} for k in (1, 2, 4)}
    h, first = port.iaf_dsf(part[1], x[:, ::-1], c)
    h, second = port.linear_flow(part[2], h, c)
    y, third = port.iaf_dsf(part[4], h[:, ::-1], c)
    logdet = first + second + third
    flow = from_torchkit(state, direction=direction, base_variance=np.e)
    if direction == "density":
        got, got_logdet = flow.forward(x, c)
        close(got, y / np.sqrt(np.e), 1e-10)
        close(got_logdet, logdet - 2, 1e-10)
        normal = -0.5 * (y**2 / np.e + 1 + np.log(2 * np.pi)).sum(1)
        close(flow.log_prob(x, c), normal + logdet, 1e-10)
    else:
        got, got_logdet = flow.inverse(x / np.sqrt(np.e), c)
        close(got, y, 1e-10)
        close(got_logdet, logdet + 2, 1e-10)


def test_exact_drops_the_clipping():
    state = other_state("ddsf", 3, 3, (8,), 2)
    quirky, exact = from_torchkit(state), from_torchkit(state, exact=True)
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    # three layers of sigmoids, three dimensions, low by 2e-6 each
    gap = exact.forward(x, c)[1] - quirky.forward(x, c)[1]
    assert (gap > 1e-5).all() and (gap < 1e-3).all()
    far = np.full((1, 3), 1e6)
    assert np.abs(quirky.forward(far, c[:1])[0]).max() < 14.6
    assert np.abs(exact.forward(far, c[:1])[0]).min() > 100


def test_an_imported_flow_is_saved_and_can_be_trained_on(tmp_path):
    state = other_state("dsf", 3, 3, (8,), 2)
    flow = from_torchkit(state, dtype="float32")
    flow.save(tmp_path / "flow.safetensors")
    again = refnaf.load(tmp_path / "flow.safetensors")
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    np.testing.assert_array_equal(again.log_prob(x, c), flow.log_prob(x, c))
    assert again.config == flow.config
    gradient = grad(lambda p: anp.sum(flow.log_prob(x, c, p)))(dict(flow.params))
    better = flow.replace({k: v + 1e-3 * gradient[k] for k, v in flow.params.items()})
    assert better.log_prob(x, c).sum() > flow.log_prob(x, c).sum()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {}, "empty"),
        (lambda s: {**s, "sf.extra": np.zeros(3)}, "cannot be represented: sf.extra"),
        (lambda s: {k: v for k, v in s.items() if "cscale" not in k}, "no IAF, IAF_DSF, IAF_DDSF or LinearFlow"),
        (lambda s: {**s, "out_to_dsparams.bias": np.zeros(19)}, "multiple of 3"),
        (lambda s: {k: np.ones_like(v) if k.endswith("mask") else v for k, v in s.items()}, "not autoregressive"),
        (lambda s: {k: v.astype(str) for k, v in s.items()}, "real numbers"),
    ],
)
def test_what_does_not_fit_is_refused(change, says):
    with pytest.raises(ValueError, match=says) as caught:
        from_torchkit(change(other_state("dsf", 3, 3, (8,), 2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"realify": "sigmoid2"}, {"direction": "up"}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        from_torchkit(other_state("dsf", 3, 3, (8,), 2), **options)


def test_arranging_finds_an_order_and_sorts_the_units():
    rng = np.random.default_rng(0)
    ranks = np.array([3, 1, 4, 2])
    degrees = rng.permutation([1, 1, 2, 3, 3, 2])
    masks = [degrees[:, None] >= ranks, np.repeat(ranks, 2)[:, None] > degrees]
    found = arrange(masks, np.repeat(np.arange(4), 2))
    np.testing.assert_array_equal(found.ranks, ranks)
    np.testing.assert_array_equal(found.degrees[0], np.sort(degrees))
    np.testing.assert_array_equal(degrees[found.orders[1]], np.sort(degrees))


def test_the_authors_sigmoidal_flow_and_its_gradients():
    with np.load(VECTORS / "dsf_transformer.npz") as archive:
        v = dict(archive)
    d = v["params"].shape[-1] // 3

    def objective(x, params):
        raw = anp.moveaxis(params, -1, 0)
        a = stable.softplus(raw[:d]) + 1e-6
        exact = dsf.sigmoid_mixture(x, a, raw[d : 2 * d], stable.log_softmax(raw[2 * d :]))
        y, log_slope = dsf.clipped(*exact, 1e-6)
        return 0.7 * anp.sum(y) + 1.3 * anp.sum(log_slope)

    close(grad(objective, 0)(v["x"], v["params"]), v["grad_x"])
    close(grad(objective, 1)(v["x"], v["params"]), v["grad_params"])


def test_the_authors_dense_sigmoidal_flow_and_its_gradients():
    with np.load(VECTORS / "ddsf_transformer.npz") as archive:
        v = dict(archive)
    d = int(v["d"])

    def flow(x, first, second, *matrices):
        # their first layer has a u of its one input, which is always 1
        raw = anp.moveaxis(anp.concatenate([first[..., : 3 * d], second], axis=-1), -1, 0)
        return ddsf.ddsf(x, raw, *matrices, clip=1e-6)

    def objective(*arguments):
        y, log_slope = flow(*arguments)
        return 0.7 * anp.sum(y) + 1.3 * anp.sum(log_slope)

    names = ["x", "params_0", "params_1", "w_0", "u_1", "w_1"]
    arguments = [v[name] for name in names]
    y, log_slope = flow(*arguments)
    close(y, v["y"])
    close(log_slope.sum(axis=1), v["logdet"])
    for k, name in enumerate(names):
        close(grad(objective, k)(*arguments), v[f"grad_{name}"])
