"""`.npz` with logits [E, N, K] and labels [N], as numpy writes it; also Apparate's tables when they are what it holds."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import Given, assemble, columns_of
from eesim.trace.trace import ExitTrace

SUFFIXES = (".npz",)

UNREADABLE = (OSError, ValueError, EOFError, MemoryError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""What numpy and zipfile raise for broken files; RuntimeError covers encrypted and unknown compression."""


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Arrays that are not known are ignored."""
    arrays = arrays_of(path)
    if {"conf", "acc"} <= arrays.keys() and "logits" not in arrays:
        from eesim.trace.converters.apparate import of_tables

        return of_tables(path, arrays["conf"], arrays["acc"], given)
    theirs = columns_of(arrays, given, path, label="labels")
    for name in ("logits", given.columns.get("label", "labels")):
        if name not in arrays:
            raise BadInput(f"this array is missing; the file has {', '.join(sorted(arrays)) or 'none'}", file=path, field=name)
    classes = np.ravel(arrays["classes"]).tolist() if "classes" in arrays else None
    columns = {ours: arrays[name] for ours, name in theirs.items()}
    return assemble(path, arrays["logits"], columns, given, classes=classes, theirs=theirs)


def unreadable(what: str, error: Exception, path: Path) -> BadInput:
    """The error for a broken file. Numpy's own text would advise to unpickle what it does not know."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:120]
    text = "it holds no numpy arrays, or Python objects, which are never opened because they can run code" if "pickle" in text else text
    return BadInput(f"not a readable {what} file ({text})", file=path)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; nothing is unpickled. Raises BadInput where it cannot be read."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise unreadable(".npz", error, path) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise BadInput("is not a numpy array", file=path, field=name)
    return arrays
