"""Flows as states of torchkit and Pyro: there and back, what those libraries make of them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refnaf.interop import from_nflows, from_pyro, from_torchkit, pyro_transforms, to_pyro, to_torchkit
from tests.cases import Case, make
from tests.interop import torchkit_port
from tests.interop.stored import agree, load, state

SMALL = {"flows": 2, "hidden": (9, 9), "bound": None}


def _flow(model, dim=3, context_dim=0, identity=False, **options):
    base = SMALL if model not in ("planar", "bnaf", "gaussian") else {}
    flow = make(Case(model, dim, context_dim, tuple({**base, **options}.items())), spread=0.15)
    if identity:
        for name, array in flow.layers[0].buffers.items():
            if not name.startswith("context"):
                array[...] = float("scale" in name)
    return flow


def _points(flow, n=6, seed=3):
    """Points of the data's side, all in the image of clipped flows too."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(n, flow.context_dim)) if flow.context_dim else None
    return flow.inverse(0.5 * rng.normal(size=(n, flow.dim)), c)[0], c


def _port(found, x, c, realify):
    """What torchkit makes of x by its formulas: the image and the log-determinant."""
    logdet = np.zeros(len(x))
    for place in range(1 + max(int(name.split(".")[0]) for name in found)):
        own = {name.split(".", 1)[1]: array for name, array in found.items() if name.split(".")[0] == str(place)}
        if not own:  # a flip has no numbers
            x = x[:, ::-1]
            continue
        kind = "iaf_ddsf" if "sf0.w_" in own else "iaf_dsf" if "out_to_dsparams.weight" in own else "iaf"
        x, part = getattr(torchkit_port, kind)(own, x, c, *([realify] if kind == "iaf" else []))
        logdet = logdet + part
    return x, logdet


#: Flows, and how torchkit's importer is told to read them.
TORCHKIT = {
    "dsf": (("maf-dsf",), {"units": 4}, {}),
    "dsf-one": (("maf-dsf", 1), {"units": 4}, {}),
    "dsf-context": (("maf-dsf", 3, 2), {"units": 4, "channels": 5}, {}),
    "dsf-clip": (("maf-dsf", 3, 2), {"units": 4, "clip": 1e-6, "hidden": (8, 8, 8)}, {"exact": False}),
    "ddsf": (("maf-ddsf", 4), {"units": 3}, {}),
    "ddsf-gains": (("maf-ddsf", 3, 2), {"units": 3, "layers": 3, "channels": 3, "gains": True}, {}),
    "softplus": (("maf", 3), {"form": "softplus"}, {}),
    "softplus-channels": (("maf", 4, 2), {"form": "softplus", "channels": 3, "hidden": (8,)}, {}),
    "gated": (("maf", 3, 1), {"form": "gated", "how": "none", "identity": True}, {"realify": "sigmoid"}),
    "sampling-dsf": (("iaf-dsf", 3, 2), {"units": 4}, {"direction": "sampling"}),
    "sampling-ddsf": (("iaf-ddsf", 1, 2), {"units": 4}, {"direction": "sampling"}),
    "sampling-softplus": (("iaf", 3), {"form": "softplus"}, {"direction": "sampling"}),
}


@pytest.mark.parametrize(("flow", "options", "told"), TORCHKIT.values(), ids=TORCHKIT)
def test_torchkit_and_back(flow, options, told):
    flow = _flow(*flow, **options)
    x, c = _points(flow)
    back = from_torchkit(to_torchkit(flow), **{"realify": "softplus", "exact": True, **told})
    for got, expected in zip(back.forward(x, c), flow.forward(x, c), strict=True):
        agree(got, expected, 1e-12)


@pytest.mark.parametrize(("flow", "options", "told"), TORCHKIT.values(), ids=TORCHKIT)
def test_torchkits_formulas_on_the_state(flow, options, told):
    flow = _flow(*flow, **options)
    x, c = _points(flow)
    found = to_torchkit(flow)
    realify = told.get("realify", "softplus")
    context = np.zeros((len(x), 0)) if c is None else c
    sampling = told.get("direction") == "sampling"
    z, logdet = flow.forward(x, c)
    start, end, expected = (z, x, -logdet) if sampling else (x, z, logdet)
    image, own = _port(found, start, context, realify)
    clipped = from_torchkit(found, **{"realify": realify, **told, "exact": False})
    got = clipped.inverse(start, c) if sampling else clipped.forward(start, c)
    agree(image, got[0], 1e-8)
    agree(own, got[1], 1e-8)
    # the library clips where the flow may not
    agree(image, end, 1e-4)
    agree(own, expected, 1e-4)


def test_torchkits_base_is_left_out():
    plain = _flow("maf-dsf", units=4, identity=True)
    found = to_torchkit(plain)
    scaled = from_torchkit(found, exact=True, base_variance=np.e)
    again = to_torchkit(scaled, base_variance=np.e)
    assert again.keys() == found.keys()
    x, _ = _points(plain)
    agree(from_torchkit(again, exact=True, base_variance=np.e).forward(x)[0], scaled.forward(x)[0], 1e-12)
    with pytest.raises(ValueError, match="triangular layer"):
        to_torchkit(scaled)
    with pytest.raises(ValueError, match="base of variance 2"):
        to_torchkit(scaled, base_variance=2.0)


PYRO = {
    "clamp": (("maf",), {"how": "clamp", "limit": [-0.4, 0.3]}),
    "clamp-number": (("maf",), {"how": "clamp", "limit": 0.5, "activation": "tanh"}),
    "unbounded": (("maf", 4, 2), {"how": "none", "activation": "relu", "permutation": "random"}),
    "stable": (("iaf",), {"how": "none"}),
    "one": (("iaf", 1, 2), {"how": "none", "activation": "relu"}),
    "dsf": (("maf-dsf",), {"units": 4, "floor": 0.0}),
    "dsf-context": (("maf-dsf", 3, 2), {"units": 4, "floor": 0.0, "channels": 5, "activation": "relu"}),
    "dsf-tanh": (("iaf-dsf",), {"units": 3, "floor": 0.0, "steepness": 2.0}),
    "planar": (("planar",), {"flows": 3, "direction": "sampling"}),
    "planar-density": (("planar",), {"flows": 3}),
    "bnaf": (("bnaf",), {"hidden": (4, 3), "residual": "gated"}),
    "bnaf-normal": (("bnaf", 2), {"hidden": (3,), "residual": "normal"}),
}


@pytest.mark.parametrize(("flow", "options"), PYRO.values(), ids=PYRO)
def test_pyro_and_back(flow, options):
    flow = _flow(*flow, **options)
    x, c = _points(flow)
    transforms = json.loads(json.dumps(pyro_transforms(flow)))
    back = from_pyro(to_pyro(flow), transforms=transforms, exact=True)
    for got, expected in zip(back.forward(x, c), flow.forward(x, c), strict=True):
        agree(got, expected, 1e-11)


@pytest.mark.parametrize(
    "name", ["affine-deep", "affine-context", "affine-skip", "neural-elu", "neural-leaky", "stack"]
)
def test_what_came_from_pyro_goes_back(name):
    numbers = load("pyro", name)
    flow = from_pyro(state(numbers), **json.loads(str(numbers["config"])))
    back = from_pyro(to_pyro(flow), transforms=pyro_transforms(flow))
    x, logdet = back.inverse(numbers["x"], numbers.get("context"))
    agree(x, numbers["y"])
    agree(logdet, numbers["logdet"])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("flow", "options"), PYRO.values(), ids=PYRO)
def test_pyro_loads_the_state_and_computes_the_same(flow, options):
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyro")
    from tests.interop import peer_pyro

    flow = _flow(*flow, **options)
    found, specs = to_pyro(flow), pyro_transforms(flow)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        parts = peer_pyro.loaded(found, specs, flow.dim, flow.context_dim)
        x, c = _points(flow)
        z, logdet = flow.forward(x, c)
        context = None if c is None else torch.tensor(c)
        if all(spec.get("inverse", spec["name"] in ("Permute", "AffineTransform")) for spec in specs):
            # the transforms' own way, since not all have an inverse in Pyro
            image, own = peer_pyro.through(parts, specs, torch.tensor(x), context, back=True)
            expected = z, logdet
        else:
            image, own = peer_pyro.through(parts, specs, torch.tensor(z), context)
            expected = x, -logdet
        agree(image.detach().numpy(), expected[0])
        epsilon = any(spec["name"].endswith(("NeuralAutoregressive", "BlockAutoregressive")) for spec in specs)
        agree(own.detach().numpy(), expected[1], 1e-6 if epsilon else 1e-10)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("export", "flow", "options", "message"),
    [
        (to_torchkit, ("maf-dsf",), {"bound": 10.0}, "bound=None"),
        (to_torchkit, ("maf-dsf",), {"activation": "relu"}, "activation=elu"),
        (to_torchkit, ("maf-dsf",), {"hidden": (9, 7)}, "one width"),
        (to_torchkit, ("maf-dsf",), {"hidden": ()}, "hidden=64"),
        (to_torchkit, ("maf-dsf",), {"clip": 1e-3}, "clip=0"),
        (to_torchkit, ("maf-dsf",), {"floor": 0.0}, "further options"),
        (to_torchkit, ("maf-dsf",), {"permutation": "random"}, "permutation=reversed"),
        (to_torchkit, ("maf",), {}, "form=softplus"),
        (to_torchkit, ("maf",), {"form": "gated"}, "how=none"),
        (to_torchkit, ("maf",), {"form": "gated", "how": "none"}, "form=softplus"),
        (to_torchkit, ("maf",), {"form": "softplus", "floor": 1e-3}, "floor=1e-6"),
        (to_torchkit, ("maf", 3, 2), {"form": "softplus", "channels": 3, "gains": True}, "gains=False"),
        (to_torchkit, ("maf-mog",), {"form": "softplus"}, "-ddsf model"),
        (to_torchkit, ("gaussian",), {}, "maf or iaf model"),
        (to_torchkit, ("planar",), {}, "maf or iaf model"),
        (to_pyro, ("maf",), {}, "how=clamp"),
        (to_pyro, ("maf",), {"form": "softplus"}, "form=exp"),
        (to_pyro, ("iaf",), {}, "how=none"),
        (to_pyro, ("maf-dsf",), {}, "floor=0"),
        (to_pyro, ("maf-dsf",), {"floor": 0.0, "clip": 1e-6}, "clip=0"),
        (to_pyro, ("maf-dsf",), {"floor": 0.0, "steepness": 3.0}, "steepness=1"),
        (to_pyro, ("maf-dsf",), {"floor": 0.0, "epsilon": 1e-3}, "epsilon=0"),
        (to_pyro, ("maf-dsf",), {"floor": 0.0, "bound": 10.0}, "bound=None"),
        (to_pyro, ("maf-dsf",), {"floor": 0.0, "hidden": (2,)}, "at least 3"),
        (to_pyro, ("maf-dsf", 3, 2), {"floor": 0.0}, "activation=relu"),
        (to_pyro, ("maf-dsf", 3, 2), {"floor": 0.0, "gains": True}, "gains=False"),
        (to_pyro, ("maf-ddsf",), {}, "-dsf model"),
        (to_pyro, ("planar", 3, 2), {"flows": 1}, "without a context"),
        (to_pyro, ("bnaf",), {}, "residual=gated"),
        (to_pyro, ("gaussian",), {}, "without one"),
    ],
)
def test_what_they_have_not_is_refused_with_a_remedy(export, flow, options, message):
    with pytest.raises(ValueError, match="cannot represent") as caught:
        export(_flow(*flow, **options))
    text = str(caught.value)
    assert message in text.split(";")[1]
    assert "\n" not in text


def test_residual_networks_are_refused():
    flow = from_nflows(state(load("nflows", "dropout")))
    for export in (to_torchkit, to_pyro):
        with pytest.raises(ValueError, match="residual networks"):
            export(flow)
