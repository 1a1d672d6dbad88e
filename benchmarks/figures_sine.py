"""Figure ``sine``: the posterior of a sine wave's frequency, by an affine and a neural inverse autoregressive flow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from figures_page import Array, page, print_header, print_row
from variational import fit_quietly

import refnaf
from refnaf.datasets.quadrature import panels
from refnaf.datasets.sine import SINE_WAVE
from refnaf.plotting.marks import BLACK, DATA, MODEL, histogram, style, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODELS = {"affine IAF": "iaf", "IAF-DSF": "iaf-dsf"}
STEPS, QUICK_STEPS = 8000, 10
SAMPLES, CURVES = 4000, 40
REACH, PANELS = 60.0, 600  # of the quadrature on the line h = logit(f / 2): p(h) falls as exp(-|h|)


def divergences(flow: refnaf.Flow) -> tuple[float, float, float]:
    """``KL(q || p)`` and ``KL(p || q)`` in nats, and the mass of q, by a Gauss-Legendre rule on the line."""
    nodes, weights = panels(np.linspace(-REACH, REACH, PANELS + 1))
    h = nodes[:, None]
    log_p, log_q = SINE_WAVE.log_posterior_on_line(h) - SINE_WAVE.log_normaliser(), flow.log_prob(h)
    p, q = np.exp(log_p), np.exp(log_q)
    reverse, forward = np.sum(weights * q * (log_q - log_p)), np.sum(weights * p * (log_p - log_q))
    return float(reverse), float(forward), float(np.sum(weights * q))


def density_of(flow: refnaf.Flow, f: Array) -> Array:
    """The flow's density ``(M,)`` of frequencies f ``(M,)`` inside (0, highest): that of h times ``dh/df``."""
    part = f / SINE_WAVE.highest
    slope = 1 / (SINE_WAVE.highest * part * (1 - part))
    return np.exp(flow.log_prob(np.log(part / (1 - part))[:, None])) * slope


def _posterior(axes: Axes, title: str, flow: refnaf.Flow, samples: Array, top: float) -> None:
    """The density of the frequency over the samples' histogram, before the true posterior."""
    highest = SINE_WAVE.highest
    f = highest * (np.arange(800) + 0.5) / 800
    axes.fill_between(f, np.exp(SINE_WAVE.log_density(f[:, None])), color=DATA, alpha=0.35, lw=0, label="posterior p")
    histogram(axes, samples, (0.0, highest), MODEL, label=f"{len(samples):,} samples of q")
    axes.plot(f, density_of(flow, f), color=MODEL, linewidth=1.6, label="flow q")
    axes.set(xlim=(0, highest), ylim=(0, top))
    ticks(axes.xaxis, (0.0, highest), 5)
    style(axes, title, "frequency f", "density", size=9)


def _curves(axes: Axes, samples: Array) -> None:
    """The waves of some samples, and the observations with the standard deviation of their noise."""
    t = np.linspace(0, 2, 300)
    axes.plot(t, np.sin(2 * np.pi * np.outer(t, samples[:CURVES])), color=MODEL, linewidth=0.7, alpha=0.3)
    noise = np.sqrt(SINE_WAVE.variance)
    axes.errorbar(
        SINE_WAVE.times, SINE_WAVE.values, yerr=noise, fmt="o", color=BLACK, markersize=4, capsize=3, clip_on=False
    )
    axes.set(xlim=(0, 2), ylim=(-1.1, 1.1))
    ticks(axes.xaxis, (0.0, 2.0), 5)
    ticks(axes.yaxis, (-1.1, 1.1), 4)
    style(axes, f"waves of {CURVES} samples, and the observations", "time t", "y(t)", size=9)


def figure_sine(path: Path, seed: int, quick: bool) -> None:
    """Each flow's posterior over the true one, and the waves it believes in."""
    print_header("model", "seed", "KL(q ‖ p), nats", "KL(p ‖ q), nats", "mass of q", "seconds", words=1)
    top = 1.45 * float(np.exp(-SINE_WAVE.log_normaliser()))  # the height of the modes, and room for the legend
    title = "Frequency of a sine wave seen at three times: KL in nats"
    with page(path, title, 8.4, 5.2) as figure:
        panels_ = figure.subplots(2, len(MODELS), sharey="row")
        for (above, below), (name, model) in zip(panels_.T, MODELS.items(), strict=True):
            steps = QUICK_STEPS if quick else STEPS
            flow, seconds = fit_quietly(
                SINE_WAVE.log_posterior_on_line, 1, model=model, seed=seed, steps=steps, anneal=0.5
            )
            reverse, forward, mass = divergences(flow)
            numbers = (f"{reverse:.4f}", f"{forward:.4f}", f"{mass:.4f}", f"{seconds:.0f}")
            print_row(name, seed, *numbers)
            samples = SINE_WAVE.frequency(flow.sample(SAMPLES, seed=seed))[:, 0]
            _posterior(above, f"{name}: KL(q ‖ p) {reverse:.4f}, KL(p ‖ q) {forward:.4f}", flow, samples, top)
            _curves(below, samples)
        panels_[0, 0].legend(fontsize=8, frameon=False, ncols=3, loc="upper center")
