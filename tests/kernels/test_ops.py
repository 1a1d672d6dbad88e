"""Backends: what one offers, all offer, and the dictionaries agree."""

from __future__ import annotations

import inspect
import subprocess
import sys

from refnaf import ops
from refnaf.flows.transformers import TRANSFORMERS
from refnaf.kernels import cpu


def test_every_transformer_has_its_twins_and_an_inverse():
    assert set(ops.REFERENCE) == set(ops.ARRAY) == set(TRANSFORMERS)
    assert set(cpu.TWINS) <= set(TRANSFORMERS)
    assert set(ops.BRACKETS) | set(ops.INVERSES) == set(TRANSFORMERS)


def test_the_reference_offers_the_forwards_of_the_array_backend():
    public = {name for name, _ in inspect.getmembers(ops.ReferenceOps, inspect.isfunction) if name[0] != "_"}
    array = {name for name, _ in inspect.getmembers(ops.ArrayOps, inspect.isfunction) if name[0] != "_"}
    assert public == {name for name in array if not name.endswith("_vjp")}


def test_scoring_imports_neither_scipy_numba_nor_autograd(tmp_path):
    import refnaf

    refnaf.build("maf-ddsf", 2, units=4, flows=1, hidden=(4,)).save(tmp_path / "m")
    code = f"""
import sys, numpy, refnaf
x = numpy.array([[0.5, 1.0], [1e30, -1e30]])
assert numpy.isfinite(refnaf.load({str(tmp_path / "m")!r}, backend="numpy").log_prob(x)).all()
loaded = [name for name in ("scipy", "numba", "autograd", "matplotlib") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
