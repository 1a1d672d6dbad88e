"""Exceptions and warnings that do not belong to one module."""


class FitError(RuntimeError):
    """A fit had to stop; the message says why, and what was kept."""


class DataWarning(UserWarning):
    """The data can be used, but something about them deserves a look."""
