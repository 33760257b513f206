"""Traces from what others have: bare arrays and `.npz` files. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
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
    """A trace from `.npz` with `logits [E, N, K]` (float) and `labels [N]` (integer): all test, one stream, time = index.

    Raises BadInput with the array and row of the first mistake. Such a trace has no calibration split.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"not a readable .npz file ({str(error).splitlines()[0][:120]})", file=path) from None
    for name in ("logits", "labels"):
        if name not in arrays:
            raise BadInput(f"this array is missing; the file has {', '.join(sorted(arrays)) or 'none'}", file=path, field=name)
    logits, labels = arrays["logits"], arrays["labels"]
    if logits.ndim != 3 or logits.dtype.kind != "f" or 0 in logits.shape:
        raise BadInput(f"must be floats of shape [exits, samples, classes], is {logits.dtype} {list(logits.shape)}", file=path, field="logits")
    if labels.shape != logits.shape[1:2] or labels.dtype.kind not in "iu":
        raise BadInput(f"must be {logits.shape[1]} whole numbers, is {labels.dtype} {list(labels.shape)}", file=path, field="labels")
    bad = ~np.isfinite(logits).all(axis=2)
    if bad.any():
        exit, row = np.argwhere(bad)[0]
        raise BadInput(f"exit {exit}, row {row}: a logit is not finite", file=path, field="logits")
    outside = (labels < -1) | (labels >= logits.shape[2])
    if outside.any():
        row = int(np.argmax(outside))
        raise BadInput(f"row {row}: {labels[row]} is outside -1 (unknown) to {logits.shape[2] - 1}", file=path, field="labels")
    narrow = logits if logits.dtype in (np.float16, np.float32) else logits.astype(np.float32)
    return trace_of_arrays(narrow, labels, network=path.stem)
