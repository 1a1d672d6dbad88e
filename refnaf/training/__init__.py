"""Fitting a flow to data: optimiser, schedule, early stopping, checkpoints, history."""

from refnaf.training.data import split_rows
from refnaf.training.fit import fit

__all__ = ["fit", "split_rows"]
