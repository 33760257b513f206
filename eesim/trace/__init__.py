"""Exit traces: what every exit of a network said about every sample, in order. Reading, writing, checking, converting."""

from eesim.trace.parquet import read_trace, write_trace
from eesim.trace.trace import ExitTrace, TraceHeader
from eesim.trace.view import TraceView

__all__ = ["ExitTrace", "TraceHeader", "TraceView", "read_trace", "write_trace"]
