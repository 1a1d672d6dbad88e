"""Flows: layers written once in terms of :mod:`refnaf.ops`, and their composition."""

from refnaf.flows.catalogue import build, model_options, models
from refnaf.flows.flow import Flow, load

__all__ = ["Flow", "build", "load", "model_options", "models"]
