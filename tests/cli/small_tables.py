"""Rows to fit."""

import numpy as np


def table(rows=200, columns=3, seed=0):
    """Correlated normal rows (rows, columns)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + np.arange(columns)
