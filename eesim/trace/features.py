"""Pooled features per exit, in a file beside a trace (`features.parquet` beside `trace.parquet`): read only when asked for.

Columns `sample_id` int64 and `features_0 … features_{E-1}`, fixed-size lists of float16. The metadata key `eesim.features`
(JSON) names the trace they belong to and, where features were reduced, the projection: stored = (raw - mean) @ matrix.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.files import whole

FEATURES_KEY = b"eesim.features"


def features_beside(trace: str | Path) -> Path:
    """Where the features of a trace lie: `features.parquet` beside `trace.parquet`, `a.features.parquet` beside `a.parquet`."""
    path = Path(trace)
    return path.with_name("features.parquet" if path.stem == "trace" else f"{path.stem}.features.parquet")


@dataclass(frozen=True, eq=False)
class Features:
    """sample_id int64 [N]; values: one float16 [N, D_e] per exit; header: raw dimensions, projections, the trace's hash."""

    sample_id: np.ndarray
    values: list[np.ndarray]
    header: dict[str, Any] = field(default_factory=dict)

    def rows(self, sample_id: np.ndarray) -> list[np.ndarray]:
        """The features of these samples, one float16 [n, D_e] per exit. Raises BadInput where one has none."""
        order = np.argsort(self.sample_id, kind="stable")
        place = np.searchsorted(self.sample_id[order], sample_id).clip(max=len(order) - 1)
        rows = order[place]
        missing = self.sample_id[rows] != sample_id
        if missing.any():
            raise BadInput(f"sample {sample_id[np.argmax(missing)]} has no features; the file belongs to another trace", field="sample_id")
        return [values[rows] for values in self.values]


def write_features(features: Features, path: str | Path) -> None:
    """Write features; the file appears whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"sample_id": features.sample_id.astype(np.int64)}
    for exit, values in enumerate(features.values):
        flat = pa.array(np.ascontiguousarray(values, np.float16).ravel())
        columns[f"features_{exit}"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pa.table(columns).replace_schema_metadata({FEATURES_KEY: json.dumps(features.header).encode()})
    with whole(path) as unfinished:
        pq.write_table(
            table, unfinished, compression="zstd", compression_level=12, version="2.6", write_page_checksum=True,
            use_dictionary=False, use_byte_stream_split=[f"features_{exit}.list.element" for exit in range(len(features.values))],
        )  # fmt: skip


def read_features(path: str | Path) -> Features:
    """Read and check `features.parquet`. Raises BadInput with file, column and row of the first mistake."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise BadInput("no such features file; record them with eesim trace record --features", file=path)
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
        header = json.loads((table.schema.metadata or {}).get(FEATURES_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise BadInput(f"not a readable Parquet file ({str(error).splitlines()[0][:120]})", file=path) from None
    names = [name for name in table.column_names if name.startswith("features_")]
    if not isinstance(header, dict) or not names or "sample_id" not in table.column_names or table.schema.field("sample_id").type != pa.int64():
        raise BadInput("must have the columns sample_id (int64) and features_0, features_1, …", file=path)
    values = []
    for exit in range(len(names)):
        name = f"features_{exit}"
        if name not in names:
            raise BadInput("this column is missing", file=path, field=name)
        column = table.column(name).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if not pa.types.is_fixed_size_list(column.type) or column.type.value_type != pa.float16():
            raise BadInput(f"must be fixed-size lists of float16, is {column.type}", file=path, field=name)
        size = column.type.list_size
        data = np.from_dlpack(column.values.slice(column.offset * size, len(column) * size)).reshape(-1, size)
        bad = ~np.isfinite(data).all(axis=1)
        if column.null_count or bad.any():
            raise BadInput(f"row {int(np.argmax(bad))}: holds a value that is not a finite number", file=path, field=name)
        values.append(data)
    sample_id = table.column("sample_id").combine_chunks()
    sample_id = sample_id.chunk(0) if isinstance(sample_id, pa.ChunkedArray) else sample_id
    return Features(np.from_dlpack(sample_id), values, header)
