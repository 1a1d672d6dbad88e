"""Figures ``planar`` and ``energies``: flows fitted to U1 to U4 by variational inference, beside the energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from figures_page import (
    DATA_SHADES,
    MODEL_SHADES,
    Array,
    density_map,
    page,
    plane,
    print_header,
    print_row,
)
from variational import MODELS, TARGETS, divergence, fit_quietly

REACH = 4.8  # the walls of U2 to U4 are at 4
STEPS, QUICK_STEPS = 3000, 10
PLANAR = {2: "planar, K = 2", 8: "planar, K = 8", 32: "planar, K = 32"}


def _fitted(target: str, name: str, seed: int, quick: bool) -> tuple[float, float, Array]:
    """Fit one model and print its row: KL and log Z, in nats, and the density ``(SIDE^2,)`` on the map."""
    options: dict[str, Any] = {"seed": seed, "steps": QUICK_STEPS if quick else STEPS, "anneal": 0.5, **MODELS[name]}
    flow, seconds = fit_quietly(TARGETS[target], 2, **options)
    kl, log_z, mass = divergence(flow, TARGETS[target])
    print_row(target, name, f"{flow.n_params:,}", seed, f"{kl:.4f}", f"{mass:.4f}", f"{seconds:.0f}")
    return kl, log_z, np.exp(flow.log_prob(plane(REACH)))


def _header() -> None:
    print_header("target", "model", "numbers", "seed", "KL(q ‖ p), nats", "mass of q", "seconds")


def planar(path: Path, seed: int, quick: bool) -> None:
    """Planar flows, K = 2, 8 and 32, on each energy: a row of maps an energy, on one scale of colours."""
    _header()
    targets = list(TARGETS)[: 1 if quick else None]
    title = "Planar flows fitted to four energies: KL(q ‖ p) in nats"
    with page(path, title, 8.4, 0.5 + 2.25 * len(targets)) as figure:
        panels = figure.subplots(len(targets), 1 + len(PLANAR), sharex=True, sharey=True, squeeze=False)
        for line, target in zip(panels, targets, strict=True):
            fits = [_fitted(target, name, seed, quick) for name in PLANAR.values()]
            true = np.exp(TARGETS[target](plane(REACH)) - fits[0][1])
            limits = (0.0, float(true.max()))
            density_map(line[0], true, REACH, limits, DATA_SHADES, f"{target}, the target p")
            for axes, flows, (kl, _, density) in zip(line[1:], PLANAR, fits, strict=True):
                density_map(axes, density, REACH, limits, MODEL_SHADES, f"K = {flows}: KL {kl:.4f}")


def energies(path: Path, seed: int, quick: bool) -> None:
    """A neural autoregressive flow on each energy: the target above the fit, on one scale of colours."""
    _header()
    targets = list(TARGETS)[: 1 if quick else None]
    title = "IAF with deep sigmoidal flows (iaf-dsf) fitted to four energies: KL(q ‖ p) in nats"
    with page(path, title, 8.4, 5.0) as figure:
        panels = figure.subplots(2, len(targets), sharex=True, sharey=True, squeeze=False)
        for (above, below), target in zip(panels.T, targets, strict=True):
            kl, log_z, density = _fitted(target, "iaf-dsf", seed, quick)
            true = np.exp(TARGETS[target](plane(REACH)) - log_z)
            limits = (0.0, float(true.max()))
            density_map(above, true, REACH, limits, DATA_SHADES, f"{target}, the target p")
            density_map(below, density, REACH, limits, MODEL_SHADES, f"iaf-dsf: KL {kl:.4f}")
