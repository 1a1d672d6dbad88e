"""The one way a kernel is compiled for a CPU: the flags, and a cache that forgets nothing it should know.

Kernels are serial and release the interpreter's lock; parallelism is threads of the caller's over chunks of rows. So
there is no threading layer to start, to oversubscribe, or to lose in a forked child, and results do not depend on the
number of threads.

Numba's own cache looks at one source file a kernel and misses edits in the functions that it calls. Here compiled code
lies in a folder named after the contents of all files of the kernels and of the reference: beside them where that can
be written, else with the user's caches (``NUMBA_CACHE_DIR`` comes first), else nowhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config
from numba.extending import register_jitable

#: ``contract`` alone of the fast-math flags: a product and a sum may become one instruction, rounded once.
FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

#: Numba's settings: the names that its documentation has in the environment.
config: Any = numba_config

_HERE = Path(__file__).resolve().parent


def _stamp() -> str:
    """Of the contents of every file that compiled code, or a constant in it, may come from."""
    digest = hashlib.sha256()
    package = _HERE.parent.parent
    for path in sorted([*(package / "kernels").rglob("*.py"), *(package / "reference").glob("*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> str | None:
    """Where compiled code is kept, or None where nothing can be written."""
    name = f"refnaf-{_stamp()}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    places = [Path(p) for p in (config.CACHE_DIR,) if p] or [_HERE / "__pycache__", user / "refnaf"]
    for place in places:
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place / name, os.W_OK):
            return str(place / name)
    return None


_FOLDER = _folder()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel at its first call for each dtype, or take what an earlier process compiled."""
    if _FOLDER is None:
        return numba.njit(**FLAGS)(function)
    # read while the decorator runs, and only then
    usual, config.CACHE_DIR = config.CACHE_DIR, _FOLDER
    try:
        return numba.njit(cache=True, **FLAGS)(function)
    except RuntimeError:  # "no locator available": the folder has gone
        return numba.njit(**FLAGS)(function)
    finally:
        config.CACHE_DIR = usual


#: A function that kernels call, compiled inside each of them. Left a function of its own it would be compiled for
#: itself, too, and a process that compiles would run another copy of it than one that reads the cache, which may round
#: otherwise. So kernels call no kernels.
part = register_jitable(forceinline=True, **FLAGS)

#: The same for sums of products, whose terms may be added in any order: fixed when it is compiled.
summing = register_jitable(forceinline=True, **{**FLAGS, "fastmath": {"contract", "reassoc"}})
