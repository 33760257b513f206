"""CSV with one row a sample. Logits stand in columns named by a pattern with `{exit}` and `{class}`, both counted from 0."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import Given, assemble, columns_of
from eesim.trace.trace import ExitTrace

SUFFIXES = (".csv",)


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Labels may be words where `given.classes` says which logit each stands for."""
    from pyarrow import ArrowException
    from pyarrow import csv as reader

    if any(given.logits.count(part) != 1 for part in ("{exit}", "{class}")):
        raise BadInput(f"'{given.logits}' must hold {{exit}} and {{class}} once each, as in 'logit_{{exit}}_{{class}}'", field="logits")
    try:
        table = reader.read_csv(path)
        there = table.column_names
    except UnicodeDecodeError:
        raise BadInput("is not text in UTF-8; save it as UTF-8", file=path) from None
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"not a readable CSV file ({str(error).splitlines()[0][:120]})", file=path) from None
    for name in there:
        if there.count(name) > 1:
            raise BadInput("there are two columns of this name", file=path, field=name)
    logits = _logits(table, there, given.logits, path)
    theirs = columns_of(there, given, path)
    columns = {ours: _column(table, name, path, words=ours in ("label", "split")) for ours, name in theirs.items()}
    return assemble(path, logits, columns, given, theirs=given.columns)


def _logits(table, there: list[str], given: str, path: Path) -> np.ndarray:
    """float32 [E, N, K] from the columns whose names fit the pattern."""
    pattern = re.escape(given).replace(r"\{exit\}", r"(?P<exit>\d+)").replace(r"\{class\}", r"(?P<kind>\d+)")
    places: dict[tuple[int, int], str] = {}
    for name in there:
        if match := re.fullmatch(pattern, name):
            place = int(match["exit"]), int(match["kind"])
            if place in places:
                raise BadInput(f"is exit {place[0]}, class {place[1]}, and so is '{places[place]}'", file=path, field=name)
            places[place] = name
    if not places:
        raise BadInput(f"no column is named like '{given}'; the file has {', '.join(there[:8])}", file=path, field="logits")
    exits, classes = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    for place in ((exit, kind) for exit in range(exits) for kind in range(classes)):  # before room is made for what is not there
        if place not in places:
            raise BadInput("this column is missing", file=path, field=given.replace("{exit}", str(place[0])).replace("{class}", str(place[1])))
    logits = np.empty((exits, table.num_rows, classes), np.float32)
    for (exit, kind), name in places.items():
        values = _column(table, name, path)
        if values.dtype.kind not in "iuf":
            raise BadInput("holds something that is not a number", file=path, field=name)
        with np.errstate(over="ignore"):
            logits[exit, :, kind] = values
    return logits


def _column(table, name: str, path: Path, words: bool = False) -> np.ndarray:
    """A column as numbers, or as words where those may stand; whole numbers written with a point are whole numbers."""
    try:
        found = table.column(name).to_pylist()
    except UnicodeDecodeError:
        raise BadInput("holds text that is not in UTF-8; save the file as UTF-8", file=path, field=name) from None
    if None in found:
        raise BadInput(f"row {found.index(None)}: is empty, or no number", file=path, field=name)
    values = np.array(found)
    if values.dtype.kind not in "iufb" + "U" * words:
        raise BadInput("holds something that is not a number", file=path, field=name)
    whole = values.dtype.kind == "f" and np.all((values == np.rint(values)) & (np.abs(values) < 2**53))
    return values.astype(np.int64) if whole else values
