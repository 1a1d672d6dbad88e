"""What a picture shows: the rows and the samples, and the names and the limits of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from refnaf.tables import check_pair, check_rows

if TYPE_CHECKING:
    from refnaf.flows import Flow

Array = np.ndarray
Limits = tuple[float, float]

MAX_COLUMNS = 8  # of a pair grid
FEW_ROWS = 100  # fewer do not say where the limits of a panel should be
MAX_NAME = 16  # characters
DEFAULT_SAMPLES = 1000  # however few the rows, unless max_points is less


@dataclass(frozen=True)
class Scene:
    """What is drawn. Rows, samples and limits are in the units of the data.

    x: (N, D) float64, the rows of data that were chosen, or None. total: how many they were chosen from.
    context: (N, C) float64, that of the rows, or (M, C) without rows, or None where the flow has none.
    uniform: (N, D), the Rosenblatt values of the rows, in [0, 1], or None without rows.
    samples: (S, D) float64, S >= N. names, limits: one of each for each of the D columns.
    """

    x: Array | None
    total: int
    context: Array | None
    uniform: Array | None
    samples: Array
    names: list[str]
    limits: list[Limits]

    @property
    def columns(self) -> int:
        """How many of the D columns have panels."""
        return min(len(self.names), MAX_COLUMNS)

    @property
    def scattered(self) -> Array:
        """The samples (K, D) that are drawn as points: as many as there are rows beside them, and not too few."""
        return self.samples if self.x is None else self.samples[: max(FEW_ROWS, len(self.x))]

    def outside(self, rows: Array) -> int:
        """How many of the rows (K, D) a panel has no room for."""
        inside = [within(rows[:, i], self.limits[i]) for i in range(self.columns)]
        return int(np.count_nonzero(~np.all(inside, axis=0)))


def make_scene(flow: Flow, x: Any, context: Any, seed: int, max_points: int) -> Scene:
    """The scene of at most ``max_points`` rows of x (N, D) and context (N, C), either of which may be None.

    Raises ValueError where they do not fit the flow or each other, or hold anything but finite real numbers.
    """
    x, context, total = _choose_rows(flow, x, context, seed, max_points)
    uniform = None if x is None else np.asarray(flow.rosenblatt(x, context))
    count = max_points if x is None else max(len(x), min(max_points, DEFAULT_SAMPLES))
    contexts = None if context is None else context[np.arange(count) % len(context)]
    samples = np.asarray(flow.sample(count, seed=seed, context=contexts), dtype=np.float64)
    basis = samples if x is None else x if len(x) >= FEW_ROWS else np.concatenate([x, samples])
    return Scene(x, total, context, uniform, samples, _names(flow), [robust_limits(column) for column in basis.T])


def robust_limits(column: Array) -> Limits:
    """Limits that show the range of a column (N,), less the far end of heavy tails; never empty, always finite."""
    column = np.clip(column, -1e300, 1e300)  # so that no difference overflows
    low, high = float(column.min()), float(column.max())
    q01, q05, q10, q90, q95, q99 = (float(q) for q in np.quantile(column, [0.01, 0.05, 0.1, 0.9, 0.95, 0.99]))
    if q10 < q90 and q99 - q01 > 6.0 * (q90 - q10):  # heavier tails than Student's t with 2 degrees of freedom
        low, high = max(low, q05 - (q95 - q05)), min(high, q95 + (q95 - q05))
    elif q01 < q99:
        low, high = max(low, q01 - 0.5 * (q99 - q01)), min(high, q99 + 0.5 * (q99 - q01))
    size = max(abs(low), abs(high))
    if high - low <= max(1e-12 * size, 1e-290):  # a constant column, or one that floats can hardly tell from it
        pad = max(0.5, 0.05 * size)
    else:
        pad = 0.04 * (high - low)
    return low - pad, high + pad


def within(values: Array, limits: Limits) -> Array:
    """Which of the values (N,) a panel with these limits has room for: (N,) bool."""
    return (values >= limits[0]) & (values <= limits[1])


def plain(text: str, length: int) -> str:
    """The text in one line of at most ``length`` characters, with nothing in it that matplotlib would act upon."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) > length:
        text = text[: length - 1] + "…"
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text  # a legend leaves out what starts with an underscore


def _choose_rows(
    flow: Flow, x: Any, context: Any, seed: int, max_points: int
) -> tuple[Array | None, Array | None, int]:
    """At most max_points rows of x and context as float64, in their order, and how many there were."""
    if context is None and flow.context_dim:
        raise ValueError(
            f"context: expected {flow.context_dim} columns as in the flow, got None; give one row of "
            "it for each row of x"
        )
    if context is not None and not flow.context_dim:
        raise ValueError("context: expected None as the flow has no context, got an array; leave it out")
    if x is not None:
        x, context, _ = check_pair(x, context, what="x")
    elif context is not None:
        context, _ = check_rows(context, what="context")
    for what, array, width in (("x", x, flow.dim), ("context", context, flow.context_dim)):
        if array is not None and array.shape[1] != width:
            raise ValueError(
                f"{what}: expected {width} columns as in the flow, got {array.shape[1]}; give the columns "
                "that it was fitted to"
            )
    total = 0 if x is None else len(x)
    rows: Array | slice = slice(None)
    if total > max_points:
        rows = np.sort(np.random.default_rng(seed).choice(total, max_points, replace=False))

    def chosen(array: Array | None) -> Array | None:
        return None if array is None else np.array(array[rows], dtype=np.float64)

    return chosen(x), chosen(context), total


def _names(flow: Flow) -> list[str]:
    """The columns' names, as short as a panel needs them; x1, x2 and so on where the flow knows none."""
    columns = flow.provenance.get("columns")
    if not isinstance(columns, Sequence) or len(columns) != flow.dim:
        return [f"x{i + 1}" for i in range(flow.dim)]
    return [plain(str(name), MAX_NAME) or f"x{i + 1}" for i, name in enumerate(columns)]
