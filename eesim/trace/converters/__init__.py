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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput, choose, unknown
from eesim.trace.columns import check_columns, first, whole_numbers
from eesim.trace.doubts import logits_of
from eesim.trace.parquet import check_classes
from eesim.trace.trace import ExitTrace, TraceHeader

COLUMNS = ("label", "sample_id", "stream_id", "time_ns", "split")


def formats() -> list[str]:
    """Names of the formats that can be read: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _format_of(path: Path) -> str:
    """The format that claims the file's suffix."""
    for name in formats():
        if path.suffix.lower() in importlib.import_module(f"{__name__}.{name}").SUFFIXES:
            return name
    raise BadInput(f"'{path.suffix}' does not tell the format; name one of {', '.join(formats())}", file=path, field="format")


@dataclass(frozen=True)
class Given:
    """What a source does not say itself.

    labels: a `.npy` file; logits: pattern of column names; columns: ours -> theirs; classes: names in the order of the
    logits, which labels that are words are looked up in; probabilities: the logits are probabilities, take their logarithm.
    """

    labels: str | None = None
    logits: str = "logit_{exit}_{class}"
    columns: dict[str, str] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    probabilities: bool = False


def convert(path: str | Path, *, form: str | None = None, given: Given | None = None, calibration: float | None = None) -> ExitTrace:
    """Read a foreign trace.

    form : one of `formats()`; by default from the file's suffix (a `.npz` with `conf` and `acc` is Apparate's).
    calibration : where the source has no calibration split, this share of it becomes one: the first streams that hold it
        together, or of a single stream the first rows, so that nothing of a stream is on both sides.

    Raises BadInput naming file, array or column, and row.
    """
    path, given = Path(path), given or Given()
    if not path.is_file():
        raise BadInput("is a folder, not a file to convert" if path.is_dir() else "no such file to convert", file=path)
    name = form or _format_of(path)
    if name not in formats():
        raise unknown("format", name, formats(), field="format")
    if given.labels is not None and name != "npy":
        raise BadInput(f"a file of labels goes with .npy logits; {name} holds its own", field="labels")
    trace = importlib.import_module(f"{__name__}.{name}").read(path, given)
    return trace if calibration is None else with_calibration(trace, calibration)


def with_calibration(trace: ExitTrace, share: float) -> ExitTrace:
    """The same trace with the first streams (of one stream, the first rows) as calibration split. Raises BadInput where there is one."""
    if not share > 0:
        raise BadInput(f"'{share:.0%}' leaves no calibration rows; write for example 20%", field="calibration")
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


def columns_of(there: Iterable[str], given: Given, path: Path, **usual: str) -> dict[str, str]:
    """Our columns that the source has, and their names in it (`usual`: ours -> theirs). Raises BadInput for one that was named and is not there."""
    there, theirs = list(there), usual | given.columns
    for name in given.columns.values():
        if name not in there:
            raise BadInput(f"there is no such column; {choose(name, there)}", file=path, field=name)
    return {ours: theirs.get(ours, ours) for ours in COLUMNS if theirs.get(ours, ours) in there}


def assemble(
    path: Path,
    logits: np.ndarray,
    columns: Mapping[str, np.ndarray],
    given: Given | None = None,
    *,
    classes: Sequence[str] | None = None,
    theirs: Mapping[str, str] | None = None,
    **header: Any,
) -> ExitTrace:
    """A trace over logits [E, N, K] and the columns that are known, with the first mistake named; `theirs`: names in the source."""
    given, theirs = given or Given(), theirs or {}
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
    if given.probabilities:
        logits = logits_of(logits, path)
        header["extra"] = header.get("extra", {}) | {"probabilities": True}
    exits, samples, width = logits.shape
    names = given.classes if given.classes is not None else classes
    names = None if names is None else [str(name) for name in names]
    if names is not None and len(names) != width:
        raise BadInput(f"{len(names)} class names for {width} classes", file=path, field="classes")
    index = np.arange(samples, dtype=np.int64)
    arrays = {"label": np.full(samples, -1), "sample_id": index, "stream_id": np.zeros(samples, int), "time_ns": index}
    for name, default in arrays.items():
        values, said = np.asarray(columns.get(name, default)), theirs.get(name, name)
        if name == "label" and values.dtype.kind in "US" and values.ndim == 1:
            values = _numbered(values.astype(str), names, width, path, said)
        arrays[name] = whole_numbers(name, values, samples, file=path, field=said)
    arrays["split"] = np.asarray(columns.get("split", np.full(samples, "test"))).astype(str)
    if arrays["split"].shape != (samples,):
        raise BadInput(f"must be {samples} words, is {list(arrays['split'].shape)}", file=path, field=theirs.get("split", "split"))
    check_columns(arrays, classes=width, file=path, named=theirs)
    about = TraceHeader(path.stem, exits, list(names or map(str, range(width))), **header)
    check_classes(about.classes, path, "classes")
    return ExitTrace(about, arrays["sample_id"], arrays["stream_id"], arrays["time_ns"], arrays["split"], arrays["label"], logits)


def _numbered(words: np.ndarray, names: Sequence[str] | None, width: int, path: Path, field: str) -> np.ndarray:
    """Labels that are words as positions among the names. Without names nobody knows which logit a word stands for."""
    first(words == "", lambda row: "is empty; write -1 where the label is not known", file=path, field=field)
    found = sorted(set(words.tolist()))
    if names is None:
        shown = ",".join(found) if len(found) == width <= 12 else f"{','.join(found[:3])},…"
        raise BadInput(
            f"the labels are words; add --classes with the names of the {width} logits in their order, such as {shown}", file=path, field=field
        )
    first(~np.isin(words, names), lambda row: f"'{words[row]}' is no class; {choose(words[row], names)}", file=path, field=field)
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[word] for word in words.tolist()])
