"""CUDA's simulator runs the kernels of the backend "cuda", unless a GPU is asked for with ``-m gpu``."""

from __future__ import annotations

import gc
import os


def pytest_configure(config):
    wanted = (config.option.markexpr or "").replace("not gpu", "")
    if "gpu" not in wanted:
        # before anything imports numba
        os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")


def pytest_collection_finish(session):
    # the thousands of tests live to the end: the garbage collector need not look at them again and again
    gc.collect()
    gc.freeze()
