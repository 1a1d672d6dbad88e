"""Fitting a flow to data: optimiser, schedule, early stopping, checkpoints, history."""

from refnaf.training.data import SCORED_ROWS, split_rows
from refnaf.training.fitting import fit

__all__ = ["SCORED_ROWS", "fit", "split_rows"]
