"""CSV with one row a sample. Logits stand in columns named by a pattern with `{exit}` and `{class}`, both counted from 0."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from eesim.errors import BadInput, choose
from eesim.trace.converters import COLUMNS, Given, assemble
from eesim.trace.trace import ExitTrace

SUFFIXES = (".csv",)


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Labels may be words: they are then the class names, in alphabetical order."""
    from pyarrow import ArrowException
    from pyarrow import csv as reader

    try:
        table = reader.read_csv(path)
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"not a readable CSV file ({str(error).splitlines()[0][:120]})", file=path) from None
    there = table.column_names
    if not {"{exit}", "{class}"} <= set(re.findall(r"\{\w+\}", given.logits)):
        raise BadInput(f"'{given.logits}' must hold {{exit}} and {{class}}, as in 'logit_{{exit}}_{{class}}'", field="logits")
    pattern = re.escape(given.logits).replace(r"\{exit\}", r"(?P<exit>\d+)").replace(r"\{class\}", r"(?P<kind>\d+)")
    places = {(int(match["exit"]), int(match["kind"])): name for name in there if (match := re.fullmatch(pattern, name))}
    if not places:
        raise BadInput(f"no column is named like '{given.logits}'; the file has {', '.join(there[:8])}", file=path, field="logits")
    exits, classes = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    logits = np.empty((exits, table.num_rows, classes), np.float32)
    for exit in range(exits):
        for kind in range(classes):
            if (exit, kind) not in places:
                missing = given.logits.replace("{exit}", str(exit)).replace("{class}", str(kind))
                raise BadInput("this column is missing", file=path, field=missing)
            logits[exit, :, kind] = _numbers(table, places[exit, kind], path)
    columns = {}
    for ours in COLUMNS:
        theirs = given.columns.get(ours, ours)
        if theirs in there:
            columns[ours] = np.array(table.column(theirs).to_pylist())
        elif ours in given.columns:
            raise BadInput(f"there is no such column; {choose(theirs, there)}", file=path, field=theirs)
    names = None
    if "label" in columns and columns["label"].dtype.kind == "U":
        names, columns["label"] = np.unique(columns["label"], return_inverse=True)
    for name in set(columns) - {"split"}:
        if columns[name].dtype.kind == "f" and (columns[name] == np.rint(columns[name])).all():
            columns[name] = columns[name].astype(np.int64)
    return assemble(path, logits, columns, theirs=given.columns, classes=None if names is None else [str(name) for name in names])


def _numbers(table, name: str, path: Path) -> np.ndarray:
    try:
        return np.array(table.column(name).to_pylist(), np.float32)
    except (TypeError, ValueError):
        raise BadInput("holds something that is not a number", file=path, field=name) from None
