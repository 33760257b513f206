"""`.npy` with logits [E, N, K], as MSDNet's and EENet's evaluation scripts keep them; labels in a second `.npy` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import Given, assemble
from eesim.trace.converters.npz import UNREADABLE
from eesim.trace.trace import ExitTrace

SUFFIXES = (".npy",)


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`. Without labels every label is unknown."""
    columns = {} if given.labels is None else {"label": _array(Path(given.labels))}
    return assemble(path, _array(path), columns)


def _array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise BadInput("no such file", file=path)
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise BadInput(f"not a readable .npy file ({(str(error).splitlines() or [type(error).__name__])[0][:120]})", file=path) from None
    if not isinstance(array, np.ndarray):
        raise BadInput("holds several arrays; is it an .npz file?", file=path)
    return array
