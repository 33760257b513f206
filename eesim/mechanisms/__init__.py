"""Decision mechanisms: after each evaluated head, stop or go on? One file per mechanism, named as it is asked for."""

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import NEXT_NS, QUEUE, SLACK_NS, STOP, Charge, Decisions, Mechanism, Parameter, Path, Site, Work
from eesim.mechanisms.registry import load_mechanism, mechanism_names

__all__ = [
    "NEXT_NS",
    "QUEUE",
    "SLACK_NS",
    "STOP",
    "Charge",
    "Decisions",
    "Mechanism",
    "Parameter",
    "Path",
    "Site",
    "ThresholdMechanism",
    "Work",
    "load_mechanism",
    "mechanism_names",
]
