"""``refnaf info``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click


@click.command(epilog="Example: refnaf info power.safetensors --json")
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def info(model: str, as_json: bool) -> None:
    """What MODEL holds: its kind and size, how it was trained, its scores in nats, and its SHA-256."""
    import refnaf
    from refnaf.persistence import read_archive

    flow = refnaf.load(model)
    facts: dict[str, Any] = {
        "file": model,
        "bytes": Path(model).stat().st_size,
        "sha256": read_archive(model)[1].get("sha256"),
        "model": flow.model,
        "dim": flow.dim,
        "context_dim": flow.context_dim,
        "dtype": str(flow.dtype),
        "parameters": flow.n_params,
        "tensors": {name: list(value.shape) for name, value in flow.params.items()},
        "config": dict(flow.config),
        "provenance": flow.provenance,
    }
    if as_json:
        click.echo(json.dumps(_plain(facts), indent=2))
        return
    from refnaf_cli.report import columns

    for line in columns(_lines(facts)):
        click.echo(line)


def _lines(facts: dict[str, Any]) -> list[list[str]]:
    from refnaf_cli.report import SCORE_NAMES, nats

    provenance = facts["provenance"]
    training = dict(provenance.get("training") or {})
    data = provenance.get("data") or {}
    lines = [
        ["file", f"{facts['file']}, {facts['bytes']:,} bytes"],
        ["SHA-256", f"{facts['sha256']} (of the tensors)"],
        ["model", f"{facts['model']}, {facts['parameters']:,} parameters, {facts['dtype']}"],
        ["columns", _columns(facts["dim"], facts["context_dim"], provenance.get("columns"))],
    ]
    for count, layer in _layers(facts["config"].get("layers", [])):
        lines.append(["" if lines[-1][0] in ("", "layers") else "layers", f"{count} x {layer}"])
    if data:
        lines.append(["data", f"{data.get('rows', 0):,} training rows, SHA-256 {data.get('sha256')}"])
    if training:
        best = f", best {training.pop('best_epoch'):g}" if "best_epoch" in training else ""
        stopped = f", {training.pop('stopped')}" if "stopped" in training else ""
        lines.append(["training", f"{training.pop('epochs', 0):g} epochs{best}{stopped}"])
        lines += [["", _flat(training)]] if training else []
    if "seed" in provenance:
        lines.append(["seed", str(provenance["seed"])])
    if provenance.get("versions"):
        lines.append(["versions", _flat(provenance["versions"])])
    scores = provenance.get("scores") or {}
    lines += [[label, " ".join(nats(scores[name])) + " nats"] for name, label in SCORE_NAMES.items() if name in scores]
    return lines


def _layers(layers: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """How often each layer occurs, in the order in which they first do."""
    counts: dict[str, int] = {}
    for layer in layers:
        rest = {name: value for name, value in layer.items() if name not in ("kind", "order", "dtype")}
        text = layer["kind"] + (f" ({_flat(rest)})" if rest else "")
        counts[text] = counts.get(text, 0) + 1
    return [(count, text) for text, count in counts.items()]


def _plain(value: Any) -> Any:
    """Numbers that JSON does not have (NaN, infinities) as null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(dim: int, context_dim: int, names: list[str] | None) -> str:
    text = str(dim) + (f" ({_some(names, 12)})" if names else "")
    return text + (f", given a context of {context_dim}" if context_dim else "")


def _some(items: list[str], limit: int) -> str:
    return ", ".join(items[:limit]) + (f", ... ({len(items) - limit} more)" if len(items) > limit else "")


def _flat(mapping: dict[str, Any]) -> str:
    cells = []
    for name, value in mapping.items():
        if isinstance(value, dict):
            cells.append(f"{name}=({_flat(value)})")
        else:
            cells.append(f"{name}={value if isinstance(value, str) else json.dumps(value)}")
    return ", ".join(cells)
