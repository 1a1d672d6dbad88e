"""Figure ``grid``: the 5 x 5 grid of Gaussians, by affine and by neural autoregressive flows of one size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from figures_page import (
    DATA_SHADES,
    MODEL_SHADES,
    Array,
    colour_bar,
    density_map,
    page,
    plane,
    print_header,
    print_row,
)

import refnaf
from refnaf.datasets.quadrature import panels
from refnaf.datasets.samples import grid
from refnaf.objective import mean_and_error
from refnaf.plotting.density import SHOWN_DEPTH

NEURAL, AFFINE = "maf-dsf", "maf"
LEARNING_RATE = 5e-3  # better for both than the 2e-2 that fit chooses: 0.90 and 0.004 nats for 0.95 and 0.018
ROWS, TRUTH = 100_000, 100_000  # to fit, and fresh ones to measure by
REACH = 5.2
BOX, PANELS = 6.0, 30  # of the quadrature: ten standard deviations beyond the outer means, panels of two


def equal_width(numbers: int) -> int:
    """The width H for which the affine flow with hidden layers (H, H) is nearest to that many numbers."""

    def size(width: int) -> int:
        return refnaf.build(AFFINE, 2, hidden=(width, width)).n_params

    low, high = 1, 2
    while size(high) < numbers:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < numbers else (low, middle)
    return min(low, high, key=lambda width: abs(size(width) - numbers))


def by_quadrature(flow: refnaf.Flow) -> tuple[float, float]:
    """``KL(p || q)`` in nats and the mass of q in the box, by a Gauss-Legendre rule in panels."""
    nodes, weights = panels(np.linspace(-BOX, BOX, PANELS + 1))
    points = np.stack([part.ravel() for part in np.meshgrid(nodes, nodes)], axis=1)
    cells = np.multiply.outer(weights, weights).ravel()
    log_p, log_q = grid.log_density(points), flow.log_prob(points)
    return float(np.sum(cells * np.exp(log_p) * (log_p - log_q))), float(np.sum(cells * np.exp(log_q)))


def _fitted(model: str, x: Array, fresh: Array, seed: int, quick: bool, **options: Any) -> tuple[str, Array]:
    """Fit one model and print its row: the words for its panel, and the log density on the map."""
    began = time.perf_counter()
    flow = refnaf.fit(
        x, model, seed=seed, threads=1, epochs=1 if quick else None, learning_rate=LEARNING_RATE, **options
    )
    seconds = time.perf_counter() - began
    kl, error = mean_and_error(grid.log_density(fresh) - flow.log_prob(fresh))
    integral, mass = by_quadrature(flow)
    print_row(
        model,
        f"{flow.n_params:,}",
        f"{len(x):,}",
        seed,
        f"{kl:.4f} ± {error:.4f}",
        f"{integral:.4f}",
        f"{mass:.4f}",
        f"{seconds:.0f}",
    )
    return f"{model}, {flow.n_params:,} numbers: {kl:.4f} ± {error:.4f}", flow.log_prob(plane(REACH))


def figure_grid(path: Path, seed: int, quick: bool) -> None:
    """The log densities: the truth, the affine and the neural flow; ``KL(p || q)`` with its standard error."""
    x = grid(2_000 if quick else ROWS, seed=seed)
    fresh = grid(2_000 if quick else TRUTH, seed=seed + 1_000_000)
    width = equal_width(refnaf.build(NEURAL, 2).n_params)
    by_samples, exact = f"KL(p ‖ q), {len(fresh):,} fresh samples", "KL(p ‖ q), quadrature"
    print_header("model", "numbers", "rows", "seed", by_samples, exact, "mass of q", "seconds", words=1)
    affine = _fitted(AFFINE, x, fresh, seed, quick, hidden=(width, width))
    neural = _fitted(NEURAL, x, fresh, seed, quick)
    truth = grid.log_density(plane(REACH))
    limits = (float(truth.max()) - SHOWN_DEPTH, float(truth.max()))
    title = "5 x 5 Gaussians, flows of one size: KL(p ‖ q) in nats"
    with page(path, title, 10.4, 3.75) as figure:
        row = figure.subplots(1, 3, sharex=True, sharey=True)
        density_map(row[0], truth, REACH, limits, DATA_SHADES, "the true density p")
        for axes, (words, log_density) in zip(row[1:], (affine, neural), strict=True):
            density_map(axes, log_density, REACH, limits, MODEL_SHADES, words)
        colour_bar(figure, row, limits, "log density, nats")
