"""Flows: layers written once in terms of :mod:`refnaf.ops`, and their composition."""

from refnaf.flows.flow import Flow, load
from refnaf.flows.models import build, models

__all__ = ["Flow", "build", "load", "models"]
