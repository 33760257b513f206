"""Traces from what others have, one file a format: `SUFFIXES` and `read(path, given) -> ExitTrace`. Foreign pickles are never opened.

| format | source |
|---|---|
| npz | `.npz` with `logits [E, N, K]` and `labels [N]`; optionally `split`, `stream_id`, `time_ns`, `sample_id`, `classes` |
| npy | `.npy` with logits [E, N, K]; labels in a second file (`--labels`) |
| csv | one row a sample, logits in columns named by a pattern such as `logit_{exit}_{class}`; other columns by a mapping |
| apparate | Apparate's tables `conf[ramp][sample]` and `acc[ramp][sample]` as `.json` or `.npz` |
| torch | `.pt` or `.pth` of tensors alone, opened with `weights_only=True`: logits and labels by name, or MSDNet's and EENet's tuple |
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.trace.trace import ExitTrace, TraceHeader

COLUMNS = ("label", "sample_id", "stream_id", "time_ns", "split")


def formats() -> list[str]:
    """Names of the formats that can be read: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _format_of(path: Path) -> str:
    """The format that claims the file's suffix."""
    for name in formats():
        if path.suffix in importlib.import_module(f"{__name__}.{name}").SUFFIXES:
            return name
    raise BadInput(f"'{path.suffix}' does not tell the format; name one of {', '.join(formats())}", file=path, field="format")


@dataclass(frozen=True)
class Given:
    """What a source does not say itself. labels: a `.npy` file; logits: pattern of column names; columns: ours -> theirs."""

    labels: str | None = None
    logits: str = "logit_{exit}_{class}"
    columns: dict[str, str] = field(default_factory=dict)


def convert(path: str | Path, *, form: str | None = None, given: Given | None = None, calibration: float | None = None) -> ExitTrace:
    """Read a foreign trace.

    form : one of `formats()`; by default from the file's suffix (a `.npz` with `conf` and `acc` is Apparate's).
    calibration : where the source has no calibration split, this share of it becomes one: the first streams that hold it
        together, or of a single stream the first rows, so that nothing of a stream is on both sides.

    Raises BadInput naming file, array or column, and row.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput("no such file to convert", file=path)
    name = form or _format_of(path)
    if name not in formats():
        raise unknown("format", name, formats(), field="format")
    trace = importlib.import_module(f"{__name__}.{name}").read(path, given or Given())
    return trace if calibration is None else with_calibration(trace, calibration)


def with_calibration(trace: ExitTrace, share: float) -> ExitTrace:
    """The same trace with the first streams (of one stream, the first rows) as calibration split. Raises BadInput where there is one."""
    if (trace.split == "calibration").any():
        raise BadInput("the source has a calibration split already", field="calibration")
    streams, first, counts = np.unique(trace.stream_id, return_index=True, return_counts=True)
    order = np.argsort(first)
    wanted = max(1, round(share * len(trace)))
    if wanted >= len(trace):
        raise BadInput(f"{share:.0%} for calibration leaves no test rows of {len(trace)}", field="calibration")
    if len(streams) == 1:
        chosen, rule = np.arange(len(trace)) < wanted, f"calibration = the first {wanted} rows"
    else:
        whole = order[: max(1, min(int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1, len(streams) - 1))]
        chosen, rule = np.isin(trace.stream_id, streams[whole]), f"calibration = the first {len(whole)} of {len(streams)} streams"
    split = np.where(chosen, "calibration", "test")
    return replace(trace, split=split, header=replace(trace.header, split_rule=rule))


def assemble(
    path: Path,
    logits: np.ndarray,
    columns: dict[str, np.ndarray],
    *,
    classes: list[str] | None = None,
    theirs: dict[str, str] | None = None,
    **header: object,
) -> ExitTrace:
    """A trace over logits [E, N, K] and the columns that are known, with the first mistake named; `theirs`: names in the source."""
    if logits.ndim != 3 or logits.dtype.kind != "f" or 0 in logits.shape or logits.shape[2] < 2:
        must = "must be floats of shape [exits, samples, classes] with at least two classes"
        raise BadInput(f"{must}, is {logits.dtype} {list(logits.shape)}", file=path, field="logits")
    if logits.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            logits = logits.astype(np.float32)
    bad = ~np.isfinite(logits).all(axis=2)
    if bad.any():
        exit, row = np.argwhere(bad)[0]
        raise BadInput(f"exit {exit}, row {row}: a logit is not a finite float32", file=path, field="logits")
    exits, samples, width = logits.shape
    index = np.arange(samples, dtype=np.int64)
    defaults = {"label": np.full(samples, -1, np.int32), "sample_id": index, "stream_id": np.zeros(samples, np.int32), "time_ns": index}
    kinds = {"label": np.int32, "sample_id": np.int64, "stream_id": np.int32, "time_ns": np.int64}
    arrays = {}
    for name, default in defaults.items():
        values, said = np.asarray(columns.get(name, default)), (theirs or {}).get(name, name)
        if values.shape != (samples,) or values.dtype.kind not in "iu":
            raise BadInput(f"must be {samples} whole numbers, is {values.dtype} {list(values.shape)}", file=path, field=said)
        low, high = (-1, width - 1) if name == "label" else (np.iinfo(kinds[name]).min, np.iinfo(kinds[name]).max)
        outside = (values < low) | (values > high)
        if outside.any():
            row = int(np.argmax(outside))
            legal = f"-1 (unknown) to {high}" if name == "label" else f"{low} to {high}"
            raise BadInput(f"row {row}: {values[row]} is outside {legal}", file=path, field=said)
        arrays[name] = values.astype(kinds[name])
    split = np.asarray(columns.get("split", np.full(samples, "test"))).astype(str)
    if split.shape != (samples,):
        raise BadInput(f"must be {samples} words, is {list(split.shape)}", file=path, field="split")
    names = [str(name) for name in classes] if classes is not None else [str(value) for value in range(width)]
    if len(names) != width:
        raise BadInput(f"{len(names)} class names for {width} classes", file=path, field="classes")
    about = TraceHeader(path.stem, exits, names, **header)
    return ExitTrace(about, arrays["sample_id"], arrays["stream_id"], arrays["time_ns"], split, arrays["label"], logits)
