"""How far numbers are off."""

import numpy as np


def relative(got, expected):
    """The largest error, of numbers in units of ``1 + |expected|``."""
    return np.max(np.abs(got - expected) / (1 + np.abs(expected)), initial=0)
