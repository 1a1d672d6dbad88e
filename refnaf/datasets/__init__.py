"""Toy targets of the plane and the line: log densities for inference, samples with their densities.

The published tables of rows are in :mod:`refnaf.datasets.published`, how each is fitted in
:mod:`refnaf.datasets.recipes`.
"""

from __future__ import annotations

from refnaf.datasets.energies import ENERGIES, energy, log_normaliser
from refnaf.datasets.samples import SAMPLE_SETS, SampleSet, grid_of_gaussians, sample_set
from refnaf.datasets.sine import SINE_WAVE, SineWave

__all__ = [
    "ENERGIES",
    "SAMPLE_SETS",
    "SINE_WAVE",
    "SampleSet",
    "SineWave",
    "energy",
    "grid_of_gaussians",
    "log_normaliser",
    "sample_set",
]
