"""Fitting a flow to data: optimiser, schedule, early stopping, checkpoints, history."""

from refnaf.training.data import SCORED_ROWS, Rows, split_rows
from refnaf.training.fitting import fit
from refnaf.training.variational import fit_variational

__all__ = ["SCORED_ROWS", "Rows", "fit", "fit_variational", "split_rows"]
