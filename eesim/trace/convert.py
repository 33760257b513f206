"""Traces over bare arrays, and `.npz` files read as traces: all rows test, one stream, time = index."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import assemble
from eesim.trace.converters.npz import arrays_of
from eesim.trace.trace import ExitTrace, TraceHeader


def trace_of_arrays(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    network: str = "converted",
    classes: list[str] | None = None,
    stream_id: np.ndarray | None = None,
    time_ns: np.ndarray | None = None,
    split: np.ndarray | None = None,
) -> ExitTrace:
    """A trace over arrays: logits [E, N, K], labels [N]. By default all rows are test rows of one stream, time = index."""
    exits, samples, width = logits.shape
    index = np.arange(samples, dtype=np.int64)
    return ExitTrace(
        TraceHeader(network, exits, classes or [str(value) for value in range(width)]),
        index,
        np.zeros(samples, np.int32) if stream_id is None else np.asarray(stream_id, np.int32),
        index if time_ns is None else np.asarray(time_ns, np.int64),
        np.full(samples, "test") if split is None else np.asarray(split).astype(str),
        labels.astype(np.int32),
        logits,
    )


def read_npz(path: str | Path) -> ExitTrace:
    """A trace from `.npz` with `logits [E, N, K]` (float) and `labels [N]` (integer). It has no calibration split.

    Other arrays are ignored here; `eesim trace convert` reads them. Raises BadInput with the array and row of the first mistake.
    """
    path = Path(path)
    arrays = arrays_of(path)
    for name in ("logits", "labels"):
        if name not in arrays:
            raise BadInput(f"this array is missing; the file has {', '.join(sorted(arrays)) or 'none'}", file=path, field=name)
    return assemble(path, arrays["logits"], {"label": arrays["labels"]}, theirs={"label": "labels"})
