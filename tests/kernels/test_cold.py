"""A process that compiles the kernels and one that reads them from the cache compute the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib
import sys
import numpy as np
import refnaf

model, dtype, much = sys.argv[1:]
options = {"bnaf": {"hidden": [3], "flows": 1}, "planar": {"flows": 2}}.get(model, {"hidden": [8], "flows": 2})
options |= {"units": 6} if model.endswith("dsf") else {}
flow = refnaf.build(model, 3, dtype=dtype, **options).replace({}, backend="numba")
rng = np.random.default_rng(0)
flow = flow.replace({name: a + 0.3 * rng.normal(size=a.shape) for name, a in flow.params.items()})
x = rng.normal(size=(130, 3))
found = {}
if much == "everything":
    # the last rows are far out, where other code is at work
    x = np.concatenate([x, 1e6 * rng.normal(size=(9, 3))])
    found["inverse"], _ = flow.inverse(flow.forward(x)[0][:130])
from refnaf.objective import NegativeLogLikelihood
from refnaf.training.adam import Adam

z, logdet = flow.forward(x)
objective = NegativeLogLikelihood(flow)
adam = Adam(objective.flat(), backend="numba")
loss, grad = objective(adam.flat, x.astype(dtype), None)
adam.step(grad, 1e-3)
found |= {"z": z, "logdet": logdet, "gradient": grad, "adam": adam.flat}
for name, array in found.items():
    assert np.isfinite(array).all(), name
    print(name, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())
"""


CASES = [
    # compiled code is most easily rounded otherwise in a DDSF's VJP
    pytest.param("maf-ddsf", "float32", "gradient"),
    *(
        pytest.param(model, dtype, "everything", marks=pytest.mark.slow)
        for model, dtypes in {
            "maf-ddsf": ("float32", "float64"),
            "maf-dsf": ("float32", "float64"),
            "made-mog": ("float32", "float64"),
            "maf": ("float32",),
            "bnaf": ("float32",),
            "tan": ("float32",),
        }.items()
        for dtype in dtypes
    ),
]


@pytest.mark.parametrize(("model", "dtype", "much"), CASES)
def test_the_first_run_has_the_bits_of_later_ones(model, dtype, much, tmp_path):
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, model, dtype, much],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert any(tmp_path.rglob("*.nbc"))
    assert found[0] == found[1]
