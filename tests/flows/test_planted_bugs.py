"""Tests of the tests: a planted mistake must be caught by the check that is there for it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from refnaf.flows import autoregressive, fixed
from refnaf.kernels import cpu
from refnaf.kernels.array import affine, ddsf, dsf, made, staircase
from refnaf.kernels.array.staircase import blocks as staircase_blocks
from refnaf.kernels.cpu import staircase_jobs
from refnaf.kernels.cpu.staircase_jobs import spans as compiled_spans
from tests import checks
from tests.cases import CASES, make, rows

DSF = CASES["maf-dsf-D4-units=5"]
DDSF = CASES["maf-ddsf-D3-C2-units=5"]
MAF = CASES["maf-D4"]


def _without_the_first(mask):
    found = compiled_spans(mask)
    found[:1] = 0
    return found


def _scaled(function, position, factor):
    def planted(*args, **kwargs):
        out = list(function(*args, **kwargs))
        out[position] = out[position] * factor
        return tuple(out)

    return planted


each_twin = pytest.mark.parametrize(
    ("module", "case", "backend"),
    [
        (dsf, DSF, "numpy"),
        (ddsf, DDSF, "numpy"),
        (affine, MAF, "numpy"),
        (cpu.dsf, DSF, "numba"),
        (cpu.ddsf, DDSF, "numba"),
        (cpu.affine, MAF, "numba"),
    ],
)


@each_twin
@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_vjp_is_caught(monkeypatch, module, case, backend, position):
    monkeypatch.setattr(module, "vjp", _scaled(module.vjp, position, 1.001))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(case, backend=backend), *rows(case, 5), 1e-9)


@pytest.mark.parametrize(("module", "backend"), [(made, "numpy"), (cpu.made, "numba")])
def test_a_wrong_vjp_of_the_network_is_caught(monkeypatch, module, backend):
    honest = module.activate_vjp
    monkeypatch.setattr(module, "activate_vjp", lambda h, *rest: honest(np.abs(h), *rest))
    with pytest.raises(AssertionError, match="gradient"):
        checks.gradients(make(MAF, backend=backend), *rows(MAF, 5), 1e-9)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_product_that_leaves_out_a_block_is_caught(monkeypatch, backend):
    monkeypatch.setattr(staircase, "blocks", lambda mask: staircase_blocks(mask)[1:])
    monkeypatch.setattr(staircase_jobs, "spans", _without_the_first)
    with pytest.raises(AssertionError):
        checks.twins(make(MAF, backend=backend), *rows(MAF, 5), 1e-11)


def test_a_wrong_implicit_vjp_is_caught(monkeypatch):
    monkeypatch.setattr(
        autoregressive.Autoregressive, "solve_transposed", lambda self, ops, params, saved, wanted: wanted.copy()
    )
    with pytest.raises(AssertionError, match="gradient"):
        checks.inverse_gradients(make(DSF, spread=0.15), *rows(DSF, 4, scale=1.0), 1e-7)


@each_twin
def test_a_wrong_sign_of_the_log_determinant_is_caught(monkeypatch, module, case, backend):
    monkeypatch.setattr(module, "forward", _scaled(module.forward, 1, -1))
    with pytest.raises(AssertionError):
        checks.log_determinant(make(case, backend=backend), *rows(case, 3), 1e-10)
    with pytest.raises(AssertionError):
        checks.twins(make(case, backend=backend), *rows(case, 3), 1e-11)


def test_a_wrong_sign_of_the_standardisation_is_caught(monkeypatch):
    def planted(self, ops, params, x, context):
        y, logdet, saved = honest(self, ops, params, x, context)
        return y, -logdet, saved

    honest = fixed.Standardise.forward
    monkeypatch.setattr(fixed.Standardise, "forward", planted)
    with pytest.raises(AssertionError):
        checks.log_determinant(make(MAF), *rows(MAF, 3), 1e-10)


def _off_by_one(ranks, hidden, outputs):
    below = [ranks, *hidden]
    layers = [(up[:, None] >= low[None, :]) for low, up in itertools.pairwise(below)]
    layers.append(np.repeat(ranks, outputs)[:, None] >= below[-1][None, :])
    return [mask.astype(float) for mask in layers]


def test_a_wrong_mask_is_caught(monkeypatch):
    monkeypatch.setattr(autoregressive.made, "masks", _off_by_one)
    flow = make(MAF)
    with pytest.raises(AssertionError, match="not before it"):
        checks.triangular(flow, *rows(MAF, 6))
    with pytest.raises(AssertionError):
        checks.log_determinant(flow, *rows(MAF, 3), 1e-10)


def test_a_density_that_loses_mass_is_caught(monkeypatch):
    case = CASES["maf-dsf-D1-units=5"]
    monkeypatch.setattr(dsf, "forward", _scaled(dsf.forward, 1, 1.01))
    assert abs(checks.integral(make(case, spread=0.12, backend="numpy"), None, 4001) - 1) > 1e-6


def test_a_wrong_inverse_is_caught(monkeypatch):
    honest = fixed.Permutation.inverse

    def planted(self, ops, params, y, context):
        return honest(self, ops, params, y[np.roll(np.arange(self.dim), 1)], context)

    monkeypatch.setattr(fixed.Permutation, "inverse", planted)
    with pytest.raises(AssertionError, match="round trip"):
        checks.round_trip(make(MAF), *rows(MAF, 5), 1e-9)
