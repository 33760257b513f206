"""Traces from what others have: bare arrays and `.npz` files. Nothing is ever unpickled."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
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
        logits, labels = _arrays(path)
    except _UNREADABLE as error:
        raise BadInput(f"not a readable .npz file ({(str(error).splitlines() or [type(error).__name__])[0][:120]})", file=path) from None
    if logits.ndim != 3 or logits.dtype.kind != "f" or 0 in logits.shape or logits.shape[2] < 2:
        must = "must be floats of shape [exits, samples, classes] with at least two classes"
        raise BadInput(f"{must}, is {logits.dtype} {list(logits.shape)}", file=path, field="logits")
    if labels.shape != logits.shape[1:2] or labels.dtype.kind not in "iu":
        raise BadInput(f"must be {logits.shape[1]} whole numbers, is {labels.dtype} {list(labels.shape)}", file=path, field="labels")
    if logits.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            logits = logits.astype(np.float32)
    bad = ~np.isfinite(logits).all(axis=2)
    if bad.any():
        exit, row = np.argwhere(bad)[0]
        raise BadInput(f"exit {exit}, row {row}: a logit is not a finite float32", file=path, field="logits")
    outside = (labels < -1) | (labels >= logits.shape[2])
    if outside.any():
        row = int(np.argmax(outside))
        raise BadInput(f"row {row}: {labels[row]} is outside -1 (unknown) to {logits.shape[2] - 1}", file=path, field="labels")
    return trace_of_arrays(logits, labels, network=path.stem)


_UNREADABLE = (OSError, ValueError, EOFError, MemoryError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""What numpy and zipfile raise for broken files; RuntimeError covers encrypted and unknown compression."""


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("it is a single array")
    with loaded as archive:
        names = archive.files
        for name in ("logits", "labels"):
            if name not in names:
                raise BadInput(f"this array is missing; the file has {', '.join(sorted(names)) or 'none'}", file=path, field=name)
        logits, labels = archive["logits"], archive["labels"]
    for name, array in (("logits", logits), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            raise BadInput("is not a numpy array", file=path, field=name)
    return logits, labels
