"""What the columns of a trace must hold: checked alike for traces that are read, converted and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eesim.errors import BadInput, choose
from eesim.trace.trace import SPLITS

KINDS = {"sample_id": np.int64, "stream_id": np.int32, "time_ns": np.int64, "label": np.int32}
"""Columns of whole numbers, and their types in a trace."""


def array_of(value: Any) -> np.ndarray:
    """Anything like an array as numpy: torch tensors of every type among them. Raises ValueError where that is impossible."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.dequantize() if value.is_quantized else value
            value = value.to_dense() if "strided" not in str(value.layout) else value
            return (value.float() if "float" in str(value.dtype) and value.dtype.itemsize < 4 else value).resolve_conj().resolve_neg().numpy()
        return np.asarray(value)
    except (RuntimeError, TypeError, OverflowError) as error:  # NotImplementedError, of tensors without values, is a RuntimeError
        raise ValueError(str(error)) from None


def whole_numbers(name: str, values: np.ndarray, samples: int, *, file: object, field: str | None = None) -> np.ndarray:
    """A column in its type of a trace. Raises BadInput where it is not `samples` whole numbers, or where one does not fit the type."""
    where = {"file": file, "field": field or name}
    if values.shape != (samples,) or values.dtype.kind not in "iu":
        raise BadInput(f"must be {samples} whole numbers, is {values.dtype} {list(values.shape)}", **where)
    limits = np.iinfo(KINDS[name])
    outside = (values < limits.min) | (values > limits.max)
    first(outside, lambda row: f"{values[row]} is outside {limits.min} to {limits.max} ({limits.dtype})", **where)
    return values.astype(KINDS[name])


def check_columns(
    columns: Mapping[str, np.ndarray], *, classes: int | None = None, file: object, named: Mapping[str, str] | None = None, whole: bool = True
) -> None:
    """Raise BadInput for the first mistake in the columns given: their names as in ExitTrace, `named` their names in the file.

    whole : False where these are some rows of a trace only, so that no row need be of the test split.
    """

    def bad(rows: np.ndarray, column: str, say) -> None:
        first(rows, say, file=file, field=(named or {}).get(column, column))

    split, time, stream, ids, label = (columns.get(name) for name in ("split", "time_ns", "stream_id", "sample_id", "label"))
    if split is not None:
        bad(~np.isin(split, SPLITS), "split", lambda row: f"'{split[row]}' is unknown; {choose(split[row], SPLITS)}")
        if whole and not (split == "test").any():
            raise BadInput("no row is of the test split; results are reported on it", file=file, field=(named or {}).get("split", "split"))
    if time is not None:
        bad(time < 0, "time_ns", lambda row: f"{time[row]} is negative")
        streams = np.zeros(len(time), np.int32) if stream is None else stream
        order = np.argsort(streams, kind="stable")
        backwards = np.zeros(len(time), bool)
        backwards[order[1:]] = (streams[order][1:] == streams[order][:-1]) & (time[order][1:] < time[order][:-1])
        bad(
            backwards,
            "time_ns",
            lambda row: f"{time[row]} is earlier than the row before it in stream {streams[row]}; rows must be in time order",
        )
    if ids is not None:
        again = np.ones(len(ids), bool)
        again[np.unique(ids, return_index=True)[1]] = False
        bad(again, "sample_id", lambda row: f"id {ids[row]} is used twice")
    if label is not None:
        most = "the last class" if classes is None else classes - 1
        outside = (label < -1) | (label >= (np.inf if classes is None else classes))
        bad(outside, "label", lambda row: f"{label[row]} is outside -1 (unknown) to {most}")


def first(rows: np.ndarray, say, *, file: object, field: str) -> None:
    """Raise BadInput for the first row where `rows` is true."""
    if rows.any():
        row = int(np.argmax(rows))
        raise BadInput(f"row {row}: {say(row)}", file=file, field=field)
