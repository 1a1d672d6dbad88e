"""States as they come: mappings of names to arrays, from any library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def arrays_of(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state as a dict of NumPy arrays, floats as float64.

    Raises ValueError for anything that is not a mapping of names to real numbers.
    """
    if not isinstance(state, Mapping):
        raise ValueError(
            f"expected a state, a mapping of names to arrays, got {type(state).__name__}; for a torch module pass "
            "{k: v.numpy() for k, v in module.state_dict().items()}"
        )
    found = {}
    for name, value in state.items():
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"the state's {name!r} must hold real numbers, got dtype {array.dtype}")
        found[str(name)] = array.astype(np.float64) if array.dtype.kind == "f" else array
    return found


def refuse_rest(state: Mapping[str, Any], what: str) -> None:
    """Raises ValueError where a state holds names that an importer did not use: nothing is dropped in silence."""
    if state:
        names = ", ".join(sorted(state)[:5]) + (", ..." if len(state) > 5 else "")
        raise ValueError(f"{what} holds what cannot be represented: {names}")
