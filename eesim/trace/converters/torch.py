"""`.pt` and `.pth` files of tensors alone, opened with `weights_only=True`, so that no code in them can run.

Either a mapping with `logits` [E, N, K] and `labels` [N] (or `targets`), optionally the columns of a trace; or the tuple
that the evaluation scripts of MSDNet and EENet save: (validation logits, validation labels, test logits, test labels).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import COLUMNS, Given, assemble
from eesim.trace.trace import ExitTrace

SUFFIXES = (".pt", ".pth")


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`."""
    try:
        import torch
    except ImportError:
        raise BadInput("reading it needs torch; install it with pip install 'eesim[torch]'", file=path) from None
    try:
        data = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch and pickle raise without a common base
        raise BadInput(f"cannot be opened with weights_only=True ({(str(error).splitlines() or [''])[0][:120]})", file=path) from None
    if isinstance(data, (tuple, list)) and len(data) == 4:
        logits = [_array(data[place], path) for place in (0, 2)]
        labels = [_array(data[place], path) for place in (1, 3)]
        split = np.repeat(["calibration", "test"], [len(part) for part in labels])
        return assemble(path, np.concatenate(logits, axis=1), {"label": np.concatenate(labels), "split": split})
    if not isinstance(data, Mapping) or "logits" not in data:
        raise BadInput("must hold 'logits' and 'labels' by name, or the tuple (validation logits, labels, test logits, labels)", file=path)
    theirs = {"label": "labels" if "labels" in data else "targets", **given.columns}
    columns = {name: _array(data[theirs.get(name, name)], path) for name in COLUMNS if theirs.get(name, name) in data}
    return assemble(path, _array(data["logits"], path), columns, theirs=theirs)


def _array(value, path: Path) -> np.ndarray:
    """A tensor, or a list of tensors stacked, as numpy."""
    try:
        if isinstance(value, (list, tuple)):
            return np.stack([_array(part, path) for part in value]) if not isinstance(value[0], (int, str)) else np.array(value)
        return value.detach().cpu().numpy()
    except (AttributeError, IndexError, ValueError):
        raise BadInput(f"holds a {type(value).__name__} where a tensor is wanted", file=path) from None
