"""Arrival times from a file: CSV or Parquet with one column `arrival_s`, `arrival_ms`, `arrival_us` or `arrival_ns`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eesim.arrivals import BLOCK, Process
from eesim.errors import BadInput, choose
from eesim.seeds import Seeds
from eesim.units import INT64_MAX

SYNTAX = "file:PATH (CSV or Parquet with a column arrival_s, arrival_ms, arrival_us or arrival_ns)"
COLUMNS = {"arrival_s": 1e9, "arrival_ms": 1e6, "arrival_us": 1e3, "arrival_ns": 1.0}


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


def given(times: np.ndarray, text: str = "given times", file: object = None) -> Given:
    """A process over an array of times: integers in ns, at least 0, never decreasing."""
    if times.ndim != 1 or times.size == 0 or times.dtype.kind not in "iu":
        raise BadInput(f"arrival times must be a non-empty one-dimensional array of integer ns, got {times.dtype} {list(times.shape)}", file=file)
    backwards = np.flatnonzero(np.diff(times) < 0)
    if backwards.size:
        row = int(backwards[0]) + 1
        raise BadInput(f"row {row}: arrival at {times[row]} ns is earlier than the one before it; sort the times", file=file)
    if times[0] < 0:
        raise BadInput(f"row 0: arrival at {times[0]} ns is negative", file=file)
    rate = (times.size - 1) * 1e9 / max(int(times[-1] - times[0]), 1) if times.size > 1 else None
    return Given(text, rate, times_ns=np.ascontiguousarray(times, np.int64))


def parse(argument: str, recording) -> Given:
    """A path."""
    if not argument:
        raise BadInput("the path is missing")
    path = Path(argument)
    if not path.is_file():
        raise BadInput("no such file of arrival times", file=path)
    columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    found = [name for name in COLUMNS if name in columns]
    if len(found) != 1:
        problem = f"needs exactly one of the columns {', '.join(COLUMNS)}; it has {', '.join(map(str, columns)) or 'none'}"
        raise BadInput(problem + (f" ({choose(next(iter(columns)), COLUMNS)})" if columns and not found else ""), file=path)
    values = columns[found[0]]
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        bad = next((row for row, value in enumerate(values) if not _is_number(value)), 0)
        raise BadInput(f"row {bad}: '{values[bad]}' is not a finite number", file=path, field=found[0])
    if np.abs(values).max(initial=0) * COLUMNS[found[0]] > INT64_MAX:
        raise BadInput("a time is beyond int64 nanoseconds (292 years)", file=path, field=found[0])
    scaled = values.astype(np.int64) if values.dtype.kind in "iu" and COLUMNS[found[0]] == 1 else np.rint(values * COLUMNS[found[0]]).astype(np.int64)
    return given(scaled, f"file:{argument}", path)


def _is_number(value: object) -> bool:
    try:
        return bool(np.isfinite(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _csv(path: Path) -> dict[str, np.ndarray]:
    from pyarrow import ArrowException, csv

    try:
        table = csv.read_csv(path)
    except (ArrowException, OSError) as error:
        raise BadInput(f"not a readable CSV file ({str(error).splitlines()[0][:120]})", file=path) from None
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _parquet(path: Path) -> dict[str, np.ndarray]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise BadInput(f"not a readable Parquet file ({str(error).splitlines()[0][:120]})", file=path) from None
    return {name: table.column(name).to_numpy() for name in table.column_names}
