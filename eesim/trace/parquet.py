"""Traces as Parquet, one row per sample, with the header as JSON in the file's metadata (`eesim.header`).

Reading checks everything a simulation relies on and names the column and row of the first mistake.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.files import whole
from eesim.trace.columns import check_columns, first
from eesim.trace.trace import DIFFICULTY, SCHEMA_VERSION, ExitTrace, TraceHeader

HEADER_KEY = b"eesim.header"
TRAINING_MODES = ("frozen", "joint", "distilled")
_HEADER_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("network", "split_rule", "recipe", "content_hash"), (str, "text")),
    "dataset": (dict, "an object with name, licence and origin"),
    "seed": (int, "a whole number"),
    "tau_edge": ((int, float), "a number"),
}


def write_trace(trace: ExitTrace, path: str | Path) -> None:
    """Write a trace; the header gets the content hash. The file appears whole or not at all.

    Raises BadInput for logits that are neither float16 nor float32, for unusable class names or headers, and where the file cannot be written.
    """
    table = _table(trace, path)
    with whole(path) as unfinished:
        _write(table, unfinished)


def write_checked(trace: ExitTrace, path: str | Path, source: object) -> ExitTrace:
    """Write a trace and read it back before it takes the place of `path`, so that nothing is lost where it is wrong.

    Raises BadInput that names `source`, where the mistake is, or `path` where it cannot be written.
    """
    table = _table(trace, source)
    with whole(path) as unfinished:
        _write(table, unfinished)
        try:
            return read_trace(unfinished)
        except BadInput as error:
            raise BadInput(error.problem, file=source, field=error.field) from None


def _table(trace: ExitTrace, file: object):
    """The trace as a table of pyarrow."""
    import pyarrow as pa

    if trace.logits.dtype not in (np.float16, np.float32):
        raise BadInput(f"logits must be float16 or float32, are {trace.logits.dtype}", file=file, field="logits")
    check_classes(trace.header.classes, file, "classes")
    columns: dict[str, Any] = {
        "sample_id": trace.sample_id.astype(np.int64),
        "stream_id": trace.stream_id.astype(np.int32),
        "time_ns": trace.time_ns.astype(np.int64),
        "split": pa.array(trace.split.tolist(), pa.string()),
        "label": trace.label.astype(np.int32),
    }
    for index, logits in enumerate(trace.logits):
        columns[f"logits_{index}"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(logits).ravel()), trace.classes)
    columns |= {f"difficulty_{name}": values.astype(np.float32) for name, values in trace.difficulty.items()}
    columns |= {f"gate_{index}": values.astype(np.float32) for index, values in trace.gates.items()}
    header = asdict(replace(trace.header, content_hash=trace.content_hash))
    header |= header.pop("extra")
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot be written as JSON: {error}", file=file, field="header") from None
    return pa.table(columns).replace_schema_metadata({HEADER_KEY: text.encode()})


def _write(table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", compression_level=12, version="2.6", write_page_checksum=True)


def read_trace(path: str | Path) -> ExitTrace:
    """Read and check a trace: Parquet, or `.npz` with `logits [E, N, K]` and `labels [N]`.

    Raises BadInput with file, column and row of the first mistake.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput("no such trace file", file=path)
    if path.suffix.lower() == ".npz":
        from eesim.trace.convert import read_npz

        return read_npz(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.ParquetFile(path).schema_arrow  # read_table would load pandas
        words = ["split"] if "split" in schema.names and pa.types.is_string(schema.field("split").type) else None
        table = pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=words).read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"not a readable Parquet file ({str(error).splitlines()[0][:120]})", file=path) from None
    return _check(table, path)


def _header(table, path: Path) -> TraceHeader:
    raw = (table.schema.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise BadInput("the Parquet metadata lacks the key 'eesim.header', so this is no exit trace", file=path)
    try:
        data = json.loads(raw, parse_constant=_no_json)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadInput("is not a JSON object", file=path, field="eesim.header")
    for key in ("schema_version", "network", "exits", "classes"):
        if data.get(key) is None:
            raise BadInput("this key is missing", file=path, field=f"eesim.header.{key}")
    if data["schema_version"] != SCHEMA_VERSION:
        raise BadInput(
            f"version {data['schema_version']} is not known; this eesim reads version {SCHEMA_VERSION}",
            file=path,
            field="eesim.header.schema_version",
        )
    classes = data["classes"]
    if isinstance(classes, int) and not isinstance(classes, bool):
        classes = range(min(classes, 10**6))
    if not (isinstance(classes, (list, range)) and len(classes) > 1 and all(isinstance(name, (str, int)) for name in classes)):
        raise BadInput(f"must be a list of at least two class names, got {data['classes']!r}", file=path, field="eesim.header.classes")
    data["classes"] = [str(name) for name in classes]
    check_classes(data["classes"], path, "eesim.header.classes")
    if type(data["exits"]) is not int or data["exits"] < 1:
        raise BadInput(f"must be a whole number of at least 1, got {data['exits']!r}", file=path, field="eesim.header.exits")
    mode = data.get("training_mode") or ""
    if mode and mode not in TRAINING_MODES:
        raise unknown("training mode", mode, TRAINING_MODES, file=path, field="eesim.header.training_mode")
    for key, (kinds, what) in _HEADER_TYPES.items():
        if data.get(key) is not None and (not isinstance(data[key], kinds) or isinstance(data[key], bool)):
            raise BadInput(f"must be {what}, got {data[key]!r}", file=path, field=f"eesim.header.{key}")
    known = {item.name for item in fields(TraceHeader)} - {"extra"}
    values = {key: value for key, value in data.items() if key in known and value is not None}
    return TraceHeader(**values, extra={key: value for key, value in data.items() if key not in known})


def _no_json(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity, which Python would read


def check_classes(names: list[str], path: object, field: str) -> None:
    """Raise BadInput for a class name used twice."""
    name, uses = Counter(names).most_common(1)[0]
    if uses > 1:
        raise BadInput(f"the class name '{name}' is used {uses} times", file=path, field=field)


def _check(table, path: Path) -> ExitTrace:
    header = _header(table, path)
    names = set(table.column_names)
    if len(names) < table.num_columns:
        repeated = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise BadInput("there are two columns of this name", file=path, field=repeated)
    samples, classes = table.num_rows, len(header.classes)
    if samples == 0:
        raise BadInput("holds no samples", file=path)

    def column(name: str, kind: str) -> np.ndarray:
        if name not in names:
            raise BadInput(f"this column is missing; the file has {', '.join(sorted(names)[:12])}", file=path, field=name)
        data = table.column(name)
        if str(data.type).replace("float", "float32") != kind:
            raise BadInput(f"must be of type {kind}, is {data.type}", file=path, field=name)
        if data.null_count:
            raise BadInput(f"row {_first_null(data)}: is null", file=path, field=name)
        return np.from_dlpack(_one_chunk(data))

    sample_id = column("sample_id", "int64")
    stream_id = column("stream_id", "int32")
    time_ns = column("time_ns", "int64")
    split = _splits(table, column, path)
    label = column("label", "int32")
    check_columns({"sample_id": sample_id, "stream_id": stream_id, "time_ns": time_ns, "split": split}, file=path)

    recorded = sum(name.startswith("logits_") for name in names)
    if recorded != header.exits:
        raise BadInput(f"the header says {header.exits} exits, the file has {recorded} logits columns", file=path, field="eesim.header.exits")
    logits = np.stack([_logits(table, f"logits_{index}", classes, path) for index in range(header.exits)])
    check_columns({"label": label}, classes=classes, file=path)
    difficulty = {name: column(f"difficulty_{name}", "float32") for name in DIFFICULTY if f"difficulty_{name}" in names}
    gates = {index: column(f"gate_{index}", "float32") for index in range(header.exits) if f"gate_{index}" in names}
    for name, values in [
        *((f"difficulty_{name}", found) for name, found in difficulty.items()),
        *((f"gate_{index}", found) for index, found in gates.items()),
    ]:
        _first(~np.isfinite(values), path, name, lambda row, values=values: f"{values[row]} is not a finite number")
    return ExitTrace(header, sample_id, stream_id, time_ns, split, label, logits, difficulty, gates)


def _logits(table, name: str, classes: int, path: Path) -> np.ndarray:
    import pyarrow as pa

    if name not in table.column_names:
        raise BadInput("this column is missing", file=path, field=name)
    data = _one_chunk(table.column(name))
    kind = data.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise BadInput(f"must be lists of {classes} float16 or float32, is {kind}", file=path, field=name)
    if data.null_count:
        raise BadInput(f"row {_first_null(data)}: is null", file=path, field=name)
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size != classes:
            raise BadInput(f"row 0: {kind.list_size} logits where the header names {classes} classes", file=path, field=name)
    else:
        lengths = np.from_dlpack(data.value_lengths())
        _first(lengths != classes, path, name, lambda row: f"{lengths[row]} logits where the header names {classes} classes")
    fixed = pa.types.is_fixed_size_list(kind)  # without nulls `flatten` would only slice, and load more of pyarrow to do so
    values = data.values.slice(data.offset * classes, len(data) * classes) if fixed else data.flatten()
    if values.type not in (pa.float16(), pa.float32()):
        raise BadInput(f"must hold float16 or float32, holds {values.type}", file=path, field=name)
    if values.null_count:
        raise BadInput(f"row {_first_null(values) // classes}: holds a null", file=path, field=name)
    result = np.from_dlpack(values).reshape(-1, classes)
    finite = np.isfinite(result).all(axis=1)
    _first(~finite, path, name, lambda row: f"{result[row][~np.isfinite(result[row])][0]} among the logits")
    return result


def _one_chunk(column):
    """A pyarrow column as one array. (Its own `to_numpy` would load pandas, hence `numpy.from_dlpack` everywhere here.)"""
    import pyarrow as pa

    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _first_null(column) -> int:
    return column.is_null().to_pylist().index(True)


def _splits(table, column, path: Path) -> np.ndarray:
    """The split column as numpy text, looked up through its few distinct values."""
    import pyarrow as pa

    name = "split"
    if name not in table.column_names:
        column(name, "string")
    split = table.column(name)
    kind = split.type.value_type if pa.types.is_dictionary(split.type) else split.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInput(f"must be of type string, is {split.type}", file=path, field=name)
    data = _one_chunk(split if pa.types.is_dictionary(split.type) else split.dictionary_encode())
    if data.null_count:
        raise BadInput(f"row {_first_null(data)}: is null", file=path, field=name)
    try:
        known = data.dictionary.to_pylist()
    except UnicodeDecodeError:  # to be named in the message all the same
        known = [value and value.decode(errors="backslashreplace") for value in data.dictionary.cast(pa.large_binary()).to_pylist()]
    return np.array(known, dtype=np.str_)[np.from_dlpack(data.indices)]


def _first(bad: np.ndarray, path: Path, column: str, say) -> None:
    """Raise for the first row where `bad` is true."""
    first(bad, say, file=path, field=column)
