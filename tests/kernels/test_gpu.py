"""The backend "cuda" on a GPU: every kernel against the CPU's twin in float64, fits, and the command line.

Run by ``pytest -m gpu``. Units in the last place are those of ``test_twins``: the dtype's epsilon times the size of a
number and what relative changes of that size in the inputs make of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnaf
from refnaf import ops as operations
from refnaf.flows.transformers import transformer
from tests.kernels.test_twins import STEP, UNITS, UNITS_OF_SUMS

pytestmark = pytest.mark.gpu

POWER = Path(__file__).resolve().parents[2] / "data" / "power.npy"
CONFIGS = [
    {"name": "affine"},
    {"name": "affine", "form": "gated"},
    {"name": "affine", "form": "softplus"},
    {"name": "dsf", "units": 16},
    {"name": "ddsf", "units": 16},
    {"name": "ddsf", "units": 3, "layers": 3},
    {"name": "mog", "components": 10},
    {"name": "mog", "components": 4, "floor": 1e-3},
]
ids = ["-".join(str(v) for v in config.values()) for config in CONFIGS]
SHAPES = [(dims, count) for dims in (1, 6, 43) for count in (1, 129, 10_000)]
DTYPES = [np.float32, np.float64]
names = ["float32", "float64"]
#: Changes of the inputs from which the condition is taken.
TRIES = 4
#: So many times the units by which the CPU's twin in float32 is off, in the same problem, are allowed beside UNITS.
#: Some problems have a worse condition than so few changes tell: a mixture's far out most of all.
TIMES = 4


@pytest.fixture(autouse=True)
def gpu():
    """Skips, in one line, where there is none."""
    try:
        operations.check("cuda")
    except ImportError as error:
        pytest.skip(str(error))


def _problem(config: dict[str, Any], dtype: Any, shape: tuple[int, int], spread: float, far: bool) -> Any:
    """The transformer; x, theta and the shared parameters; cotangents of y and log dy/dx. All fit float32."""
    rng = np.random.default_rng(shape[0] * 100_003 + shape[1])
    made, (dims, count) = transformer(config), shape
    theta = made.initial(dims, rng)[:, :, None] + spread * rng.normal(size=(dims, made.count, count))
    x = rng.choice([-1e30, -1e3, 1e3, 1e30], shape) if far else 2 * rng.normal(size=shape)
    drawn = [x, theta, *made.initial_shared(rng), rng.normal(size=shape), rng.normal(size=shape)]
    arrays = [np.asarray(a, np.float32).astype(dtype) for a in drawn]
    return made, arrays[:-2], arrays[-2:]


def _run(backend: str, made: Any, arrays: list[np.ndarray], cotangents: list[np.ndarray]) -> list[np.ndarray]:
    """y, log dy/dx and the cotangents of the inputs."""
    ops = operations.make(backend)
    x, theta, *shared = [ops.put(a.copy()) for a in arrays]
    with np.errstate(all="ignore"):
        y, log_slope, saved = ops.transform(made.name, x, theta, shared, made.options)
        image = [ops.get(y).copy(), ops.get(log_slope).copy()]
        grad_x, grad_theta, grad_shared = ops.transform_vjp(saved, *(ops.put(c) for c in cotangents))
    return [*image, *(ops.get(a).copy() for a in (grad_x, grad_theta, *grad_shared))]


def _exact(made: Any, arrays: list[np.ndarray], cotangents: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
    """What the CPU's twin finds in float64, and the sizes of which a unit is the epsilon."""
    wide, pulled = [a.astype(np.float64) for a in arrays], [c.astype(np.float64) for c in cotangents]
    exact, rng = _run("numba", made, wide, pulled), np.random.default_rng(1)
    sizes = [np.abs(e) for e in exact]
    condition = [np.zeros_like(e) for e in exact]
    for _ in range(TRIES):
        moved = [[a * (1 + STEP * rng.choice([-1.0, 1.0], size=a.shape)) for a in some] for some in (wide, pulled)]
        for total, other, e in zip(condition, _run("numba", made, *moved), exact, strict=True):
            np.maximum(total, np.abs(other - e) / STEP, out=total)
    sizes = [size + c for size, c in zip(sizes, condition, strict=True)]
    for size in sizes[:2]:
        size += 1  # both are logarithms of ratios, which near zero are absolute quantities
    # of the cotangents, a column of x and theta is one vector, and so is each shared array
    column = np.maximum(sizes[2], np.max(sizes[3], axis=1))
    sizes[2:4] = column, np.broadcast_to(column[:, None], exact[3].shape)
    sizes[4:] = [np.full_like(size, np.max(size)) for size in sizes[4:]]
    return exact, sizes


def _sizes_far_out(made: Any, x: np.ndarray, cotangents: list[np.ndarray], exact: list[Any], sizes: list[Any]) -> None:
    """In a slope and in cotangents, roundings of ``a x + b`` count where |x| is 1e3; in the log domain, where it is
    1e30, those of logarithms as large as that of x. A mixture's cotangents are right to ``(|g| + |l y|) dy`` times a
    scale, which far out is more than what is left of them."""
    g, lam = (np.abs(c) for c in cotangents)
    times = np.where(np.abs(x) > 1e4, 1 + np.log1p(np.abs(x)), 1 + np.abs(x))
    column = sizes[2] * times
    if made.name == "mog":
        column = np.maximum(sizes[2], (g + lam * np.abs(exact[0])) * np.exp(exact[1]) * (1 + np.abs(x)))
    sizes[1] = sizes[1] * times
    sizes[2:4] = column, np.broadcast_to(column[:, None], exact[3].shape)
    sizes[4:] = [np.maximum(size, np.max(column)) for size in sizes[4:]]


def _off(found: list[np.ndarray], exact: list[Any], sizes: list[Any]) -> np.ndarray:
    """Units by which each array is off at worst, where its dtype has such numbers."""
    off = []
    for got, right, size in zip(found, exact, sizes, strict=True):
        limit = np.finfo(got.dtype)
        assert got.shape == right.shape
        fits = size < 1e-3 * limit.max
        off.append(np.max((np.abs(got - right) / (limit.eps * size))[fits], initial=0))
    return np.array(off)


def units(
    config: dict[str, Any], dtype: Any, shape: tuple[int, int], spread: float, far: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Units by which y, log dy/dx and each cotangent are off at worst, and how many are allowed."""
    made, arrays, cotangents = _problem(config, dtype, shape, spread, far)
    exact, sizes = _exact(made, arrays, cotangents)
    if far:
        _sizes_far_out(made, arrays[0], cotangents, exact, sizes)
    found = _run("cuda", made, arrays, cotangents)
    assert all(a.dtype == dtype for a in found)
    narrow = [[a.astype(np.float32) for a in some] for some in (arrays, cotangents)]
    own = _off(_run("numba", made, *narrow), exact, sizes)
    base = np.array([UNITS if k < 4 else UNITS_OF_SUMS for k in range(len(own))])
    return _off(found, exact, sizes), base + TIMES * own


def inverted(
    config: dict[str, Any], dtype: Any, shape: tuple[int, int], spread: float, far: bool = False
) -> tuple[float, float]:
    """Units by which the image of an inverse's x is off at worst, with those of x's own spacing; and log dx/dy, by the
    condition of which no more is asked than of a forward's. Of the first and the last dimension."""
    made, arrays, cotangents = _problem(config, dtype, (min(shape[0], 2), shape[1]), spread, far)
    _, theta, *shared = arrays
    wide = [a.astype(np.float64) for a in arrays]
    images = _run("numba", made, wide, cotangents)[0].astype(dtype)
    ops, eps, roots, slopes = operations.make("cuda"), np.finfo(dtype).eps, [], []
    put = [ops.put(s) for s in shared]
    for y, column in zip(images, theta, strict=True):
        ops.workspace.reset()
        root, log_slope, residual = (
            ops.get(a).copy() for a in ops.invert(made.name, ops.put(y), ops.put(column), put, made.options)
        )
        assert root.dtype == dtype
        assert np.isfinite(root).all() and np.isfinite(log_slope).all() and np.isfinite(residual).all()
        roots.append(root)
        slopes.append(log_slope)
    exact, sizes = _exact(made, [np.stack(roots), theta, *shared], cotangents)
    if far:
        _sizes_far_out(made, np.stack(roots), cotangents, exact, sizes)
    unit = eps * (sizes[0] + np.exp(exact[1]) * np.abs(np.stack(roots)))
    return float(np.max(np.abs(exact[0] - images) / unit)), _off([-np.stack(slopes)], exact[1:2], sizes[1:2])[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=names)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_values_vjps_and_inverses(config, shape, dtype):
    for spread in (1.0,) if shape[1] > 1000 else (0.1, 1.0):
        found, allowed = units(config, dtype, shape, spread)
        assert (found < allowed).all(), f"spread {spread}: {found.round(1)}, not below {allowed.round(1)}"
        image, slope = inverted(config, dtype, shape, spread)
        assert image < UNITS and slope < allowed[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=names)
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_far_out(config, dtype):
    found, allowed = units(config, dtype, (6, 129), 1.0, far=True)
    assert (found < allowed).all(), f"{found.round(1)}, not below {allowed.round(1)}"
    image, slope = inverted(config, dtype, (6, 129), 1.0, far=True)
    assert image < UNITS and slope < allowed[1]


def test_a_fit_is_as_good_as_the_cpus():
    x = np.load(POWER)[:5000]
    how = {"seed": 1, "epochs": 10, "flows": 2, "hidden": (64, 64), "units": 8}
    here, there = (refnaf.fit(x, "maf-dsf", backend=backend, **how) for backend in ("numba", "cuda"))
    nats = [flow.provenance["scores"]["validation"][0] for flow in (here, there)]
    assert there.provenance["versions"]["backend"] == "cuda"
    assert there.provenance["training"]["failed_steps"] == 0
    assert nats[0] == pytest.approx(nats[1], abs=0.05), nats
    np.testing.assert_allclose(there.log_prob(x), there.replace({}, backend="numba").log_prob(x), atol=2e-3)


def test_steps_wait_for_nothing_and_transfer_nothing(monkeypatch):
    """A step that fetched anything would have to wait for the kernel that was asked for before it."""
    import cupy
    from numba import cuda

    from refnaf.kernels.cuda import arrays
    from refnaf.kernels.cuda.compiler import kernel
    from refnaf.objective import NegativeLogLikelihood
    from refnaf.training.adam_device import DeviceAdam

    @kernel(np.float32, "1fi")
    def burn(out: Any, a: Any, rounds: int) -> None:
        v = a
        for _ in range(rounds):
            v = v * a + a
        if cuda.threadIdx.x == 0:
            out[0] = v

    flow = refnaf.build("maf-ddsf", 3, flows=1, hidden=(8,), units=4, backend="cuda")
    task = NegativeLogLikelihood(flow)
    adam, rows = DeviceAdam(task.flat(), decay=1e-4), task.put(np.random.default_rng(0).normal(size=(64, 3)))
    out = arrays.put(np.zeros(1, np.float32))

    def step() -> None:
        loss, grad = task(adam.flat, rows, None)
        adam.step_unseen(loss, grad, 1e-3)

    # kernels are compiled, memory is found, and what is fixed is sent
    step()
    burn((1,), out, 0.5, 1)
    arrays.wait()

    def forbidden(*arguments: Any) -> None:
        raise AssertionError("a transfer")

    stream = cupy.cuda.get_current_stream()
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "put", forbidden)
        patch.setattr(arrays, "get", forbidden)
        burn((1,), out, 0.5, 500_000_000)
        for _ in range(3):
            step()
        assert not stream.done
    tally = adam.look()
    assert stream.done
    assert (tally.taken, tally.left_out) == (4, 0)


def test_the_command_line(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from refnaf_cli.main import main

    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.load(POWER)[:1000])
    on = ["--backend", "cuda"]
    for words in (
        ["fit", "x.npy", "--model", "maf", "--epochs", "2", "--out", "m.safetensors", *on],
        ["score", "m.safetensors", "x.npy", "--out", "nats.npy", *on],
        ["sample", "m.safetensors", "--rows", "200", "--out", "drawn.npy", *on],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    flow = refnaf.load("m.safetensors", backend="numba")
    np.testing.assert_allclose(np.load("nats.npy"), flow.log_prob(np.load("x.npy")), atol=2e-3)
    assert np.load("drawn.npy").shape == (200, 6)
    assert np.isfinite(flow.log_prob(np.load("drawn.npy"))).all()
