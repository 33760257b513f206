"""`.npy` with logits [E, N, K], as MSDNet's and EENet's evaluation scripts keep them; labels in a second `.npy` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import Given, assemble
from eesim.trace.converters.npz import UNREADABLE, unreadable
from eesim.trace.trace import ExitTrace

SUFFIXES = (".npy",)


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Without labels every label is unknown."""
    logits = _array(path)
    columns = {} if given.labels is None else {"label": _array(Path(given.labels))}
    for label in columns.values():
        if logits.ndim == 3 and label.shape != logits.shape[1:2]:
            raise BadInput(f"is of shape {list(label.shape)} where '{path}' has {logits.shape[1]} samples", file=given.labels, field="labels")
    return assemble(path, logits, columns, given)


def _array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise BadInput("no such file", file=path)
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise unreadable(".npy", error, path) from None
    if not isinstance(array, np.ndarray):
        raise BadInput("holds several arrays; is it an .npz file?", file=path)
    return array
