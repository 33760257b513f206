"""Measuring this machine: what networks take on it end to end, layer by layer and exit by exit; and really serving one in stages."""

from eesim.measure.machine import Machine, pinned, this_machine
from eesim.measure.measuring import Measurement, measure_model, to_csv
from eesim.measure.turns import measure_in_turns

__all__ = ["Machine", "Measurement", "measure_in_turns", "measure_model", "pinned", "this_machine", "to_csv"]
