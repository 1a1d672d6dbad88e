"""The variational autoencoder of the benchmarks: gradients, bounds, and the script itself."""

from __future__ import annotations

import sys
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.test_util import check_grads

from refnaf.reference.stable import sigmoid

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FORMS = ("gaussian", "iaf", "iaf-dsf", "iaf-ddsf")


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_on_the_path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def tiny(form, dtype="float64", seed=0):
    """An autoencoder away from its start, images of 8 pixels, and noise."""
    from vae_model import Sizes, build

    rng = np.random.default_rng(seed)
    sizes = Sizes(pixels=8, latent=3, hidden=(6, 5), context=2, flows=2, flow_hidden=(7,), units=3)
    vae = build(form, rng.random(8), sizes, seed=seed, dtype=dtype, backend="numpy")
    masks = {} if vae.flow is None else {f"flow.{name}": mask for name, mask in vae.flow.masks().items()}
    moved = {k: a + 0.2 * rng.normal(size=a.shape) * masks.get(k, 1) for k, a in vae.params.items()}
    x = rng.integers(0, 2, size=(5, 8)).astype(dtype)
    return vae.replace(moved), x, rng.normal(size=(5, 3)).astype(dtype)


def test_likelihood_of_bits():
    from vae_model import bernoulli_log_prob

    rng = np.random.default_rng(0)
    logits, x = rng.normal(size=(4, 6)), rng.integers(0, 2, size=(4, 6)).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = np.sum(np.log(np.where(x == 1, p, 1 - p)), axis=1)
    assert np.allclose(bernoulli_log_prob(logits, x), expected, rtol=1e-13)
    check_grads(lambda logits: bernoulli_log_prob(logits, x), modes=["rev"], order=1)(logits)
    far = np.array([[1e4, -1e4]])
    assert bernoulli_log_prob(far, np.array([[1.0, 0.0]])) == 0
    assert bernoulli_log_prob(far, np.array([[0.0, 1.0]])) == -2e4
    assert np.array_equal(
        grad(lambda logits: anp.sum(bernoulli_log_prob(logits, np.array([[0.0, 0.0]]))))(far), [[-1.0, 0.0]]
    )


@pytest.mark.parametrize("form", FORMS)
def test_gradient_of_the_whole_objective(form):
    vae, x, eps = tiny(form)
    masks = {} if vae.flow is None else {f"flow.{name}": mask for name, mask in vae.flow.masks().items()}

    def loss(params):
        # entries outside a mask are held at zero, where a difference would see them move
        inside = {name: array * masks[name] if name in masks else array for name, array in params.items()}
        return vae.negative_elbo(inside, x, eps, 0.7)

    check_grads(loss, modes=["rev"], order=1)(vae.params)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_in_float32(form):
    from vae_model import NegativeElbo

    found = {}
    for dtype in ("float64", "float32"):
        vae, x, eps = tiny(form, dtype)
        objective = NegativeElbo(vae)
        found[dtype] = objective(objective.flat(), x, eps, 0.7)
    (loss, gradient), (narrow_loss, narrow) = found["float64"], found["float32"]
    assert narrow.dtype == np.float32
    assert narrow_loss == pytest.approx(loss, rel=1e-5)
    assert np.max(np.abs(narrow - gradient)) < 1e-4 * np.max(np.abs(gradient))


def test_flat_vector_and_back():
    from vae_model import NegativeElbo

    vae, _, _ = tiny("iaf-dsf", "float32")
    objective = NegativeElbo(vae)
    back = objective.views(objective.flat())
    assert set(back) == set(vae.params)
    for name, array in vae.params.items():
        assert np.array_equal(back[name], array)


@pytest.mark.parametrize("form", FORMS)
def test_log_q_is_a_density(form):
    """``log q`` of a sample is the base's density less the log-determinant of autograd's Jacobian of the sample."""
    from autograd import jacobian

    vae, x, eps = tiny(form)
    posterior = vae.encode(vae.params, x[:1])
    _, log_q = vae.draw(vae.params, posterior, eps[:1])
    slope = jacobian(lambda e: vae.draw(vae.params, posterior, e[None])[0][0])(eps[0])
    base = -0.5 * np.sum(eps[0] ** 2) - 1.5 * np.log(2 * np.pi)
    assert log_q[0] == pytest.approx(base - np.linalg.slogdet(slope)[1], abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_evidence_where_it_is_known(form):
    """A decoder that does not look at z: log p(x) is the likelihood, and the ELBO below it by KL(q || p)."""
    from vae_model import log_evidence

    vae, x, _ = tiny(form)
    last = {"decoder.2.weight": np.zeros((6, 8)), "encoder.2.weight": 0.3 * vae.params["encoder.2.weight"]}
    vae = vae.replace({**vae.params, **last})
    p = sigmoid(vae.params["decoder.2.bias"])
    exact = np.sum(np.log(np.where(x == 1, p, 1 - p)), axis=1)
    weights = vae.log_weights(x, 20_000, np.random.default_rng(1))
    assert weights.shape == (5, 20_000)
    assert np.max(np.abs(log_evidence(weights) - exact)) < 0.1
    assert np.all(weights.mean(axis=1) < exact)
    if form == "gaussian":
        mean, log_scale, _ = vae.encode(vae.params, x)
        divergence = np.sum(0.5 * (mean**2 + np.exp(2 * log_scale) - 1) - log_scale, axis=1)
        assert np.allclose(weights.mean(axis=1), exact - divergence, atol=0.05)


def test_evidence_is_the_log_of_the_mean_weight():
    from vae_model import log_evidence

    weights = np.array([[0.1, 0.3, 0.2], [1.0, 1.0, 4.0]])
    assert np.allclose(log_evidence(np.log(weights) - 500), np.log([0.2, 2.0]) - 500, rtol=1e-14)


def test_unknown_posterior():
    from vae_model import Sizes, build

    with pytest.raises(ValueError, match="posterior must be one of gaussian, iaf, iaf-dsf, iaf-ddsf, not 'maf'"):
        build("maf", np.full(8, 0.5), Sizes(pixels=8))


def stripes(path, seed=0):
    """Images of 16 pixels, a half of which is set, and flips in one of twenty."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, n in (("train", 200), ("valid", 40), ("test", 30)):
        half = rng.integers(0, 2, size=(n, 1)) == (np.arange(16) < 8)
        parts[name] = np.packbits(half ^ (rng.random((n, 16)) < 0.05), axis=1)
    np.savez(path, **parts)
    return str(path)


SMALL = ["--epochs", "12", "--warm-up", "2", "--batch-size", "20", "--latent", "2", "--hidden", "8", "--context", "2"]
SMALL += ["--flow-hidden", "4", "--units", "2", "--images", "7", "--samples", "20", "--learning-rate", "0.02"]


def rows(output):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("|")]


def test_the_script(tmp_path, capsys):
    import vae

    data = stripes(tmp_path / "stripes.npz")
    arguments = ["--data", data, "--posteriors", "gaussian", "iaf", *SMALL, "--checkpoints", str(tmp_path / "kept")]
    vae.main(arguments)
    first = capsys.readouterr()
    heads, _, gaussian, iaf, *published = rows(first.out)
    assert heads[0] == "posterior" and gaussian[0] == "gaussian" and iaf[0] == "iaf"
    assert {len(row) for row in (heads, gaussian, iaf)} == {9}
    # 16 pixels at one half have log p(x) = -11.09; those of the two stripes about -4.1
    for row in (gaussian, iaf):
        elbo, evidence = (float(row[k].split()[0]) for k in (4, 5))
        assert -8 < elbo < evidence + 1
    assert gaussian[6:8] == ["", ""]
    assert float(iaf[6].split()[0]) == pytest.approx(float(iaf[4].split()[0]) - float(gaussian[4].split()[0]), abs=0.02)
    assert published[2][0] == "VAE"
    assert first.err.count("epoch") == 24

    # what is finished is only scored again
    vae.main(arguments)
    again = capsys.readouterr()
    assert "resumed" in again.err and "epoch 1/" not in again.err
    assert [row[:8] for row in rows(again.out)] == [row[:8] for row in rows(first.out)]


def test_a_run_goes_on_to_the_same_numbers(tmp_path):
    import vae

    images = vae.Images.read(stripes(tmp_path / "stripes.npz"))
    sizes = vae.Sizes(pixels=16, latent=2, hidden=(8,), context=2, flow_hidden=(4,), units=2)
    usual = ["--data", "unused", "--posteriors", "iaf-dsf", *SMALL]
    whole = vae.run("iaf-dsf", images, sizes, *planned(vae, usual, images))
    kept = [*usual, "--checkpoints", str(tmp_path)]
    vae.run("iaf-dsf", images, sizes, *planned(vae, [*kept, "--minutes", "1e-9"], images))
    rest = vae.run("iaf-dsf", images, sizes, *planned(vae, kept, images))
    assert np.array_equal(rest.elbo, whole.elbo)
    assert np.array_equal(rest.evidence, whole.evidence)


def planned(vae, arguments, images):
    options = vae.parsed(arguments)
    return vae.planned(options, images), options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, "expected an .npz with train, valid and test, got one without test"),
        ({"valid": np.zeros((3, 2))}, "valid must be rows of packed bits"),
        ({"valid": np.zeros((3, 5), np.uint8)}, "valid must be rows of packed bits"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    import vae

    parts = dict.fromkeys(("train", "valid", "test"), np.zeros((3, 2), np.uint8)) | change
    np.savez(tmp_path / "bad.npz", **{name: rows for name, rows in parts.items() if rows is not None})
    with pytest.raises(SystemExit, match=message):
        vae.main(["--data", str(tmp_path / "bad.npz")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "500"], "a batch of 500 is more than the 200 training images"),
        (["--epochs", "0"], "epochs must be positive, got 0"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    import vae

    with pytest.raises(SystemExit, match=message):
        vae.main(["--data", stripes(tmp_path / "stripes.npz"), *options])
