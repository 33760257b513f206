"""Exit traces: what every exit of a network said about every sample, in order. Reading, writing, checking, converting."""

import importlib
from typing import Any

from eesim.trace.features import Features, read_features, write_features
from eesim.trace.parquet import read_trace, write_trace
from eesim.trace.trace import ExitTrace, TraceHeader
from eesim.trace.view import TraceView

__all__ = ["ExitTrace", "Features", "TraceHeader", "TraceView", "read_features", "read_trace", "record", "write_features", "write_trace"]


def __getattr__(name: str) -> Any:
    """`eesim.trace.record`: found here by its users, built above because it needs networks too."""
    if name == "record":
        return importlib.import_module("eesim.recorder").record
    raise AttributeError(f"module 'eesim.trace' has no attribute '{name}'")
