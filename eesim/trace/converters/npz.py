"""`.npz` with logits [E, N, K] and labels [N], as numpy writes it; also Apparate's tables when they are what it holds."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import COLUMNS, Given, assemble
from eesim.trace.trace import ExitTrace

SUFFIXES = (".npz",)

UNREADABLE = (OSError, ValueError, EOFError, MemoryError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""What numpy and zipfile raise for broken files; RuntimeError covers encrypted and unknown compression."""


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Arrays that are not known are ignored."""
    arrays = arrays_of(path)
    if {"conf", "acc"} <= arrays.keys() and "logits" not in arrays:
        from eesim.trace.converters.apparate import of_tables

        return of_tables(path, arrays["conf"], arrays["acc"])
    theirs = {"label": "labels", **given.columns}
    for name in ("logits", theirs["label"]):
        if name not in arrays:
            raise BadInput(f"this array is missing; the file has {', '.join(sorted(arrays)) or 'none'}", file=path, field=name)
    columns = {name: arrays[theirs.get(name, name)] for name in COLUMNS if theirs.get(name, name) in arrays}
    return assemble(path, arrays["logits"], columns, classes=list(arrays["classes"]) if "classes" in arrays else None, theirs=theirs)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; nothing is unpickled. Raises BadInput where it cannot be read."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise BadInput(f"not a readable .npz file ({(str(error).splitlines() or [type(error).__name__])[0][:120]})", file=path) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise BadInput("is not a numpy array", file=path, field=name)
    return arrays
