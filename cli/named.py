"""Python objects named on the command line, ``package.module:name``, from the current folder or installed."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click


def find_object(path: str, what: str) -> Any:
    """The object of that name; ``what`` is what such an object is usually called. The current folder is searched first.

    Raises UsageError where the path has another form, or the module cannot be imported or has no such name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise click.UsageError(f"expected package.module:{what}, got {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # a module that is being written may raise anything
        raise click.UsageError(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise click.UsageError(f"{module_name} has no {name!r}; pass the name of the {what} in it")
        found = getattr(found, part)
    return found
