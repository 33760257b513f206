"""`.pt` and `.pth` files of tensors alone, opened with `weights_only=True`, so that no code in them can run.

Either a mapping with `logits` [E, N, K] and `labels` [N] (or `targets`), optionally the columns of a trace; or the tuple
that the evaluation scripts of MSDNet and EENet save: (validation logits, validation labels, test logits, test labels).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.columns import array_of
from eesim.trace.converters import Given, assemble, columns_of
from eesim.trace.trace import ExitTrace

SUFFIXES = (".pt", ".pth")


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`."""
    try:
        import torch
    except ImportError:
        raise BadInput("reading it needs torch; install it with pip install 'eesim[torch]'", file=path) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old kinds of tensors, which are read all the same
            data = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch and pickle raise without a common base; their own text would advise to unpickle everything
        text = (str(error).splitlines() or [type(error).__name__])[0][:120]
        text = "it holds more than tensors, or is no such file; code in it is never run" if "eights" in text or "ickl" in text else text
        raise BadInput(f"cannot be opened with weights_only=True ({text})", file=path) from None
    if isinstance(data, (tuple, list)) and len(data) == 4:
        logits = [_array(data[place], path) for place in (0, 2)]
        labels = [_array(data[place], path) for place in (1, 3)]
        for part, label in zip(logits, labels, strict=True):
            if part.ndim != 3 or label.shape != part.shape[1:2] or part.shape[::2] != logits[0].shape[::2]:
                shapes = " and ".join(f"{list(part.shape)} with labels {list(label.shape)}" for part, label in zip(logits, labels, strict=True))
                raise BadInput(f"must be logits [exits, samples, classes] with labels [samples], twice; is {shapes}", file=path)
        split = np.repeat(["calibration", "test"], [len(part) for part in labels])
        return assemble(path, np.concatenate(logits, axis=1), {"label": np.concatenate(labels), "split": split}, given)
    if not isinstance(data, Mapping) or "logits" not in data:
        raise BadInput("must hold 'logits' and 'labels' by name, or the tuple (validation logits, labels, test logits, labels)", file=path)
    theirs = columns_of(map(str, data), given, path, label="labels" if "labels" in data else "targets")
    columns = {ours: _array(data[name], path) for ours, name in theirs.items()}
    return assemble(path, _array(data["logits"], path), columns, given, theirs=theirs)


def _array(value, path: Path) -> np.ndarray:
    """A tensor of any type, or a list of tensors stacked, or a list of words or numbers, as numpy."""
    try:
        if isinstance(value, (list, tuple)) and not isinstance(value[0], (int, str)):
            return np.stack([_array(part, path) for part in value])
        if isinstance(value, (list, tuple)) or hasattr(value, "detach"):
            return array_of(value)
        raise ValueError
    except (IndexError, ValueError) as error:
        about = f" ({str(error).splitlines()[0][:80]})" if str(error) else ""
        raise BadInput(f"holds a {type(value).__name__} that is no tensor of numbers{about}", file=path) from None
