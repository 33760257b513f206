"""Recording exit traces: run a multi-exit network over a dataset and keep what every exit said about every sample."""

from eesim.recorder.recording import record

__all__ = ["record"]
