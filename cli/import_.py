"""``refnaf import``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import refnaf.interop

if TYPE_CHECKING:
    import numpy as np

_LIBRARIES = [name.removeprefix("from_") for name in refnaf.interop.__all__ if name.startswith("from_")]
_SUFFIXES = (".npz", ".safetensors")


@click.command(
    name="import",
    epilog="Example: refnaf import state.npz --from pyro --config "
    '\'{"transforms": [{"name": "AffineAutoregressive", "stable": true}]}\' --out model.safetensors',
)
@click.argument("state", metavar="STATE")
@click.option(
    "--from", "library", type=click.Choice(_LIBRARIES), required=True, help="The library that the weights come from."
)
@click.option(
    "--config",
    metavar="JSON",
    help="Keyword arguments of the importer, as JSON or a file of it: what the weights do not tell.",
)
@click.option("--exact", is_flag=True, help="Leave out the library's epsilons, so that the flow is the equations' own.")
@click.option("--out", metavar="FILE", required=True, help="Where to write the flow (.safetensors).")
def import_(state: str, library: str, config: str | None, exact: bool, out: str) -> None:
    """Make a flow of another library's weights.

    STATE is a .npz or .safetensors of a state_dict (or of the library's own mapping of names to arrays). That library
    is not needed. What cannot be represented is refused by name.
    """
    from refnaf_cli.files import check_output
    from refnaf_cli.report import columns

    given = _config(config) if config is not None else {}
    target = check_output(out, (".safetensors",), (state, _file(config)))
    importer: Callable[..., Any] = getattr(refnaf.interop, f"from_{library}")
    flow = importer(_arrays(state), **_options(library, importer, given, exact))
    flow.save(target)
    lines = [["model", flow.model], ["columns", f"{flow.dim:,}"]]
    if flow.context_dim:
        lines.append(["context", f"{flow.context_dim:,}"])
    lines += [["layers", f"{len(flow.layers):,}"], ["parameters", f"{flow.n_params:,}"], ["wrote", str(target)]]
    for line in columns(lines):
        click.echo(line)


def _options(library: str, importer: Callable[..., Any], given: Mapping[str, Any], exact: bool) -> dict[str, Any]:
    """The importer's keyword arguments. Raises ValueError for what it does not take, or needs."""
    takes = dict(list(inspect.signature(importer).parameters.items())[1:])
    options = {**given, **({"exact": True} if exact else {})}
    if unknown := sorted(set(options) - set(takes)):
        remedy = "leave --exact out" if unknown[0] == "exact" else f"it takes {', '.join(takes) or 'nothing'}"
        raise ValueError(f"the importer for {library} does not take {unknown[0]!r}; {remedy}")
    needed = [name for name, parameter in takes.items() if parameter.default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in options]:
        raise ValueError(f"the importer for {library} needs {', '.join(missing)}; give it with --config")
    return options


def _file(config: str | None) -> str | None:
    """The file that --config names, if it is not JSON itself."""
    return config if config is not None and not config.lstrip().startswith("{") else None


def _config(config: str) -> dict[str, Any]:
    """Keyword arguments from JSON, or from a file of it."""
    file = _file(config)
    text = config if file is None else Path(file).read_text(encoding="utf-8")
    where = "--config" if file is None else file
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f'{where}: expected JSON such as {{"activation": "relu"}} ({error})') from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected a JSON object of keyword arguments, got {type(found).__name__}")
    return found


def _arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz or .safetensors."""
    import numpy as np

    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{path}: expected a state in {' or '.join(_SUFFIXES)}, got {suffix or 'no suffix'}; save it with "
            "numpy.savez(FILE, **{k: v.numpy() for k, v in module.state_dict().items()})"
        )
    if suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path} is not a readable .npz of arrays ({error}); save it again") from None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not Path(path).exists():
        raise FileNotFoundError(2, "No such file or directory", path)
    try:
        return dict(load_file(path))
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file ({error}); save it again") from None
