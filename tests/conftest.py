"""CUDA's simulator runs the kernels of the backend "cuda", unless a GPU is asked for with ``-m gpu``."""

from __future__ import annotations

import os


def pytest_configure(config):
    wanted = (config.option.markexpr or "").replace("not gpu", "")
    if "gpu" not in wanted:
        # before anything imports numba
        os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
