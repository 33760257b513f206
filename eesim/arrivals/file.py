"""Arrival times from a file: CSV or Parquet with one column `arrival_s`, `arrival_ms`, `arrival_us` or `arrival_ns`.

Real load is bundled: `file:azure-llm-2023-conv` and `file:azure-llm-2023-code` (`workloads/arrivals/README.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eesim.arrivals import BLOCK, Process
from eesim.bundled import find_arrivals
from eesim.errors import BadInput, choose
from eesim.seeds import Seeds
from eesim.units import INT64_MAX

SYNTAX = "file:PATH (CSV or Parquet with a column arrival_s, arrival_ms, arrival_us or arrival_ns), or a bundled name"
COLUMNS = {"arrival_s": 10**9, "arrival_ms": 10**6, "arrival_us": 10**3, "arrival_ns": 1}


@dataclass(frozen=True)
class Given(Process):
    """Times that are given, in ns."""

    times_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    @property
    def length(self) -> int:
        """As many as were given."""
        return self.times_ns.size

    def spacing(self, count: int) -> tuple[int, int] | None:
        """See `Process.spacing`."""
        used = self.times_ns[:count]
        return int(np.diff(used).min(initial=2**62)), int(used[-1])

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`. Asking for more than there are is bad input."""
        if count > self.length:
            raise BadInput(f"{count} requests are asked for, {self.text} holds {self.length} arrivals", field="requests")
        for start in range(0, count, size):
            yield self.times_ns[start : min(start + size, count)]


def given(times: np.ndarray, text: str = "given times", file: object = None, column: str = "arrivals") -> Given:
    """A process over an array of times: integers in ns, at least 0, never decreasing."""
    where = {"file": file, "field": column}
    if times.ndim != 1 or times.size == 0 or times.dtype.kind not in "iu":
        raise BadInput(f"arrival times must be a non-empty one-dimensional array of integer ns, got {times.dtype} {list(times.shape)}", **where)
    outside = np.flatnonzero((times < 0) | (times > INT64_MAX))
    if outside.size:
        row = int(outside[0])
        raise BadInput(f"row {row}: arrival at {times[row]} ns is {'negative' if times[row] < 0 else 'beyond int64 (292 years)'}", **where)
    backwards = np.flatnonzero(times[1:] < times[:-1])
    if backwards.size:
        row = int(backwards[0]) + 1
        raise BadInput(f"row {row}: arrival at {times[row]} ns is earlier than the one before it, at {times[row - 1]} ns; sort the times", **where)
    rate = (times.size - 1) * 1e9 / max(int(times[-1] - times[0]), 1) if times.size > 1 else None
    return Given(text, rate, times_ns=np.array(times, np.int64))


def parse(argument: str, recording) -> Given:
    """A path."""
    if not argument:
        raise BadInput("the path is missing")
    path = find_arrivals(argument)
    columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    found = [name for name in COLUMNS if name in columns]
    if len(found) != 1:
        problem = f"needs exactly one of the columns {', '.join(COLUMNS)}; it has {', '.join(map(str, columns)) or 'none'}"
        raise BadInput(problem + (f" ({choose(next(iter(columns)), COLUMNS)})" if columns and not found else ""), file=path)
    values = columns[found[0]]
    where, scale = {"file": path, "field": found[0]}, COLUMNS[found[0]]
    if values.size == 0:
        raise BadInput("holds no arrivals", **where)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        bad = next((row for row, value in enumerate(values) if not _is_number(value)), None)
        raise BadInput(f"must hold numbers, holds {values.dtype}" if bad is None else f"row {bad}: '{values[bad]}' is not a finite number", **where)
    beyond = np.flatnonzero(np.abs(values.astype(np.float64)) * scale >= float(INT64_MAX))
    if beyond.size:
        raise BadInput(f"row {beyond[0]}: {values[beyond[0]]} is beyond int64 nanoseconds (292 years)", **where)
    scaled = np.rint(values.astype(np.float64) * scale).astype(np.int64) if values.dtype.kind == "f" else values.astype(np.int64) * scale
    return given(scaled, f"file:{argument}", path, found[0])


def _is_number(value: object) -> bool:
    try:
        return bool(np.isfinite(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _csv(path: Path) -> dict[str, np.ndarray]:
    from pyarrow import ArrowException, csv

    try:
        table = csv.read_csv(path)
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"not a readable CSV file ({str(error).splitlines()[0][:120]})", file=path) from None
    return _columns(table, path)


def _parquet(path: Path) -> dict[str, np.ndarray]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"not a readable Parquet file ({str(error).splitlines()[0][:120]})", file=path) from None
    return _columns(table, path)


def _columns(table, path: Path) -> dict[str, np.ndarray]:
    repeated = [name for name in COLUMNS if table.column_names.count(name) > 1]
    if repeated:
        raise BadInput("there are two columns of this name", file=path, field=repeated[0])
    return {name: table.column(name).to_numpy() if name in COLUMNS else np.zeros(0) for name in table.column_names}
