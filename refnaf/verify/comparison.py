"""Another implementation's outputs against golden vectors: what agrees, what departs first, and why."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnaf.persistence import FileFormatError
from refnaf.verify.compare_tensor import Tensor, tolerances
from refnaf.verify.compare_theirs import GIVEN, arranged, canonical, matched, named, read_theirs, shown
from refnaf.verify.vectors import flow_of, read_vectors


@dataclass(frozen=True)
class Row:
    """One tensor: its largest errors (absolute; relative to the largest entry of the same row; in units in the last
    place of the expected number in their dtype), the index of the worst number, and the verdict."""

    name: str
    absolute: float
    relative: float
    ulps: float
    where: tuple[int, ...]
    verdict: str
    agrees: bool


@dataclass(frozen=True)
class Report:
    """What :func:`compare` found; ``str`` of it is a table and the conclusions below it."""

    rows: Sequence[Row]
    #: Outputs of the vectors that they did not give, and tensors of theirs that the vectors lack.
    missing: Sequence[str]
    superfluous: Sequence[str]
    #: The tensor, in the order of computation, at which they first depart, and what it is.
    first_departure: str | None
    departs_at: str
    #: The known mistakes that explain the numbers, closest first: objects with name, detail, remedy and closeness.
    causes: Sequence[Any]
    #: "oracle" and/or "refnaf": where the expected numbers come from.
    source: str
    tolerance: str
    #: Rows that were left out, as their inputs are infinite in the dtype of what was given.
    skipped: int

    @property
    def agrees(self) -> bool:
        """Whether all that was compared agrees."""
        return all(row.agrees for row in self.rows)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def compare(
    vectors: str | os.PathLike[str] | tuple[Mapping[str, np.ndarray], Mapping[str, Any]],
    theirs: str | os.PathLike[str] | Mapping[str, Any] | np.ndarray,
    rtol: float | None = None,
    atol: float | None = None,
) -> Report:
    """Compare outputs with golden vectors and name what went wrong.

    Parameters
    ----------
    vectors : path of a file that ``refnaf vectors`` wrote, or its tensors and header.
    theirs : path of a .npy, .npz or safetensors file, or a mapping of names to arrays: z ``(N, D)``, logdet and
        log_prob ``(N,)`` in nats, layers/{k}/y, grads/x, ...; or one array, z or log_prob. "." is as good as "/".
    rtol, atol : a number agrees within ``atol + rtol * size``, size being the largest entry of the same row (of a
        log-determinant or log p also of the terms that it sums; of a parameter's gradient, of the whole). Both are
        1e-9 for float64, 1e-4 for float32 and 2e-2 for float16 unless given, and rtol is 100 times that for gradients.
        Rows whose inputs are infinite in the dtype of theirs are left out.

    Raises
    ------
    ValueError : nothing to compare, shapes that are no known layout, or a damaged file (FileFormatError), in one line.
    OSError : a file cannot be read.
    """
    tensors, header = _read_vectors(vectors)
    if isinstance(theirs, np.ndarray):
        theirs = {"": theirs}
    arrays = dict(theirs) if isinstance(theirs, Mapping) else read_theirs(theirs)
    found, superfluous = matched(tensors, arrays)
    compared: dict[str, Tensor] = {}
    for name in [*(n for n in found if n.startswith(GIVEN)), *named(tensors)]:
        if name in found:
            given, array = found[name]
            own_rtol, own_atol = tolerances(name, array.dtype.name)
            compared[shown(name)] = arranged(
                name,
                given,
                np.asarray(tensors.get("oracle/" + shown(name), tensors[name]), dtype=np.float64),
                array,
                rtol=own_rtol if rtol is None else rtol,
                atol=own_atol if atol is None else atol,
                terms=_terms(name, tensors),
                skipped=_beyond(name, array.dtype, tensors),
            )
    from_oracle = {f"oracle/{name}" in tensors for name in compared}
    rows = [_row(tensor) for tensor in compared.values()]
    first = next((row.name for row in rows if not row.agrees), None)
    departing = first is not None
    used = {f"rtol {t.rtol:g}, atol {t.atol:g} ({t.of})": None for t in compared.values()}
    skipped = max((int(np.sum(t.skipped)) for t in compared.values() if t.skipped is not None), default=0)
    return Report(
        rows,
        [shown(name) for name in named(tensors) if name not in found],
        _suggestions(superfluous, tensors),
        first,
        _describe(first, header) if first else "",
        _causes(tensors, header, compared) if departing else [],
        " and ".join(("the oracle" if flag else "refnaf") for flag in sorted(from_oracle, reverse=True)),
        "; ".join(used),
        skipped,
    )


def _read_vectors(vectors: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    tensors, header = vectors if isinstance(vectors, tuple) else read_vectors(vectors)
    if "outputs/z" not in tensors or "inputs/x" not in tensors:
        raise FileFormatError("the golden vectors lack inputs/x or outputs/z: give what refnaf vectors wrote")
    return dict(tensors), dict(header)


def _terms(name: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray | float:
    """The largest terms that a log-determinant or log p ``(N,)`` is the sum of."""
    if name not in ("outputs/logdet", "outputs/log_prob"):
        return 0.0
    parts = [np.abs(a) for n, a in tensors.items() if n.startswith("layers/") and n.endswith("/logdet")]
    if name == "outputs/log_prob":
        parts.append(0.5 * np.sum(tensors["outputs/z"] ** 2, axis=1))
    return np.max(parts, axis=0) if parts else 0.0


def _beyond(name: str, dtype: np.dtype, tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Rows whose inputs are infinite in their dtype, of a tensor that has the rows of x."""
    of_rows = name.startswith(("outputs/", "layers/", "grads/x", "grads/context"))
    if not of_rows or dtype.kind != "f":
        return None
    with np.errstate(over="ignore"):
        return ~np.isfinite(tensors["inputs/x"].astype(dtype)).all(axis=1)


def _row(t: Tensor) -> Row:
    if t.theirs.size == 0:
        return Row(t.name, 0.0, 0.0, 0.0, (), "empty", True)
    scaled, expected = t.scaled(t.expected), np.abs(t.expected)
    with np.errstate(all="ignore"):
        off = np.where(scaled == 0, 0.0, np.abs(t.theirs - t.expected))
        relative = np.where(off == 0, 0.0, off / t.size(t.expected))
        dtype = t.dtype if t.dtype.kind == "f" else np.dtype(np.float64)
        unit = np.spacing(np.maximum(expected, np.finfo(dtype).smallest_normal).astype(dtype)).astype(np.float64)
        ulps = np.where(off == 0, 0.0, off / unit)
    flat = int(np.argmax(np.nan_to_num(scaled, nan=np.inf, posinf=np.finfo(float).max)))
    where = tuple(int(i) for i in np.unravel_index(flat, scaled.shape))
    bad, wrong = int(np.sum(~np.isfinite(t.theirs) & (scaled != 0))), int(np.sum(~(scaled <= 1)))
    agrees = t.agrees()
    verdict = "agrees" if agrees else "departs"
    if bad:
        verdict += f": {bad:,} of {t.theirs.size:,} NaN or inf"
    elif wrong and wrong < t.theirs.size:
        verdict += f" in {wrong:,} of {t.theirs.size:,}"
    if t.layout:
        verdict += f" ({t.layout})"
    return Row(t.name, float(np.max(off)), float(np.max(relative)), float(np.max(ulps)), where, verdict, agrees)


def _suggestions(names: Sequence[str], tensors: Mapping[str, np.ndarray]) -> list[str]:
    known = [shown(name) for name in named(tensors)]
    near = {name: difflib.get_close_matches(canonical(name), known, 1) for name in names}
    return [f"{name} (did you mean {found[0]}?)" if found else name for name, found in near.items()]


def _describe(name: str, header: Mapping[str, Any]) -> str:
    """What the first tensor that departs is."""
    parts = name.split("/")
    if parts[0] != "layers":
        return {"grads": "a gradient", "inverse": "the inverse", "inputs": "an input", "params": "a parameter"}.get(
            parts[0], "an output of the whole flow"
        )
    what = {"y": "the output", "logdet": "the log-determinant", "theta": "the pseudo-parameters"}[parts[2]]
    layers = header.get("config", {}).get("layers", [])
    config = layers[int(parts[1])] if int(parts[1]) < len(layers) else {}
    inner = config.get("layer", config)
    kinds = [config.get("kind"), inner.get("transformer_config", {}).get("name")]
    kind = ", ".join(k for k in kinds if k)
    return f"{what} of layer {parts[1]}" + (f" ({kind})" if kind else "")


def _causes(tensors: dict[str, np.ndarray], header: dict[str, Any], compared: Mapping[str, Tensor]) -> list[Any]:
    from refnaf.verify.signatures_search import causes
    from refnaf.verify.signatures_steps import Inputs

    try:
        flow = flow_of(tensors, header).astype(np.float64)
    except (KeyError, TypeError, IndexError) as error:
        raise FileFormatError(
            f"the vectors do not describe a flow this version knows ({error!r}); upgrade refnaf"
        ) from None
    x, context, z = (tensors.get(name) for name in ("inputs/x", "inputs/context", "inverse/z"))
    kind = tensors.get("inputs/kind", np.zeros(len(tensors["inputs/x"])))
    ordinary = kind == 0 if np.any(kind == 0) else np.ones(len(kind), bool)
    at = None if z is None or context is None else context[np.arange(len(z)) % len(context)]
    return causes(flow, Inputs(np.asarray(x), context, z, at), ordinary, compared)


def _lines(report: Report) -> list[str]:
    head = ["tensor", "largest error", "relative", "ULPs", "at", "verdict"]
    cells = [
        [
            row.name,
            *(f"{n:.2e}" if n else "0" for n in (row.absolute, row.relative, row.ulps)),
            ", ".join(map(str, row.where)),
            row.verdict,
        ]
        for row in report.rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    lines = []
    for line in [head, *cells]:
        aligned = [c.rjust(w) if 0 < i < 4 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(aligned).rstrip())
    lines.append("")
    if report.missing:
        lines.append(f"not in theirs: {_listed(report.missing)}")
    if report.superfluous:
        lines.append(f"not in the vectors: {_listed(report.superfluous)}")
    good = sum(row.agrees for row in report.rows)
    count = (
        f"{good} of {len(report.rows)} tensors agree with {report.source}"
        if not report.agrees
        else (f"all {len(report.rows)} tensors compared agree with {report.source}")
    )
    lines.append(f"{count}, within {report.tolerance}")
    if report.skipped:
        lines.append(f"{report.skipped} rows left out: their inputs are beyond the range of that dtype")
    if report.first_departure:
        lines.append(f"departs first: {report.first_departure}, {report.departs_at}")
        lines += [f"likely cause: {cause}" for cause in report.causes]
        if not report.causes:
            lines.append("likely cause: not a mistake this version knows")
    return lines


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
