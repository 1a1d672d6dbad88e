"""Exceptions and warnings that do not belong to one module."""


class FitError(RuntimeError):
    """A fit had to stop; the message says why, and what was kept."""


class DataWarning(UserWarning):
    """The data can be used, but something about them deserves a look."""


#: How one gets what the backend "cuda" needs.
DEVICE_EXTRA = "which pip install 'refnaf[cuda12]' brings (or refnaf[cuda13]: see what CUDA version nvidia-smi shows)"
