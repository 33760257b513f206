"""Fitting what a learned mechanism needs: on the calibration split only, once, and kept on disk by content.

The calibration split itself is judged out of fold, so that tuning on it does not reward a model for what it has memorised:
each fold (whole streams where there are enough, else runs of neighbouring samples) is judged by a model fitted on the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.files import whole
from eesim.jit import fingerprint
from eesim.trace.view import TraceView

FOLDS = 3
Model = dict[str, np.ndarray]
_NAME = "eesim_content"
"""Where a file of a model says whose it is."""
_remembered: dict[str, Model] = {}
_from_disk: set[str] = set()
_distrusted: set[str] = set()


def judged(
    view: TraceView, key: tuple, fit: Callable[[TraceView], Model], apply: Callable[[Model, TraceView], Any], *, features: bool = False
) -> Any:
    """What `apply(model, samples)` says of each sample of a whole split, as an array or a tuple of arrays with one row a sample.

    fit : makes the model from calibration samples; a pure function of the view and of `key`, which names it and its settings.
    features : whether `fit` reads `view.features`.

    Call it inside `view.derived`. Raises BadInput when there is no calibration split, or no label in it.
    """
    while True:
        try:
            return _judged(view, key, fit, apply, features)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            if not _distrust():  # a file that is no such model counts as absent
                raise


def _judged(view: TraceView, key: tuple, fit: Callable, apply: Callable, features: bool) -> Any:
    if view.split != "calibration":
        return apply(fitted(view.calibration, key, fit, features=features), view)
    parts = []
    for fold in folds(view):
        rest = np.setdiff1d(np.arange(len(view)), fold)
        parts.append((fold, apply(fitted(view.taken(rest), key, fit, features=features), view.taken(fold))))
    order = np.argsort(np.concatenate([fold for fold, _ in parts]), kind="stable")
    if isinstance(parts[0][1], tuple):
        return tuple(np.concatenate(columns)[order] for columns in zip(*(said for _, said in parts), strict=True))
    return np.concatenate([said for _, said in parts])[order]


def folds(view: TraceView) -> list[np.ndarray]:
    """Rows of each fold: streams dealt out by size, the largest first, or runs of equal length where there are too few."""
    codes, count = view.streams
    if count < FOLDS:
        return np.array_split(np.arange(len(view)), FOLDS)
    sizes, load, home = np.bincount(codes, minlength=count), [0] * FOLDS, np.zeros(count, np.int64)
    for stream in np.argsort(-sizes, kind="stable"):
        home[stream] = fold = int(np.argmin(load))
        load[fold] += int(sizes[stream])
    return [np.flatnonzero(home[codes] == fold) for fold in range(FOLDS)]


def fitted(view: TraceView, key: tuple, fit: Callable[[TraceView], Model], *, features: bool = False) -> Model:
    """`fit(view)`, from memory or from disk where the same content was fitted with the same code before."""
    if not (view.label >= 0).any():
        raise BadInput(f"the calibration split has no labels to fit '{key[0]}' to")
    name = _content(view, key, fit, features)
    if name not in _remembered:
        path = None if (folder := cache_folder()) is None else folder / f"{name}.npz"
        if stored := None if name in _distrusted else _read(path):
            _from_disk.add(name)
        _remembered[name] = stored or _keep(fit(view), path)
    return _remembered[name]


def _distrust() -> bool:
    """Forget what was read from disk, never to read it again; whether there was any."""
    for name in _from_disk:
        _remembered.pop(name, None)
    _distrusted.update(_from_disk)
    found = bool(_from_disk)
    _from_disk.clear()
    return found


def cache_folder() -> Path | None:
    """Where fitted models are kept: EESIM_CACHE, else the user's cache folder; None where EESIM_CACHE is empty."""
    given = os.environ.get("EESIM_CACHE")
    if given is not None:
        return Path(given) if given else None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "eesim" / "fitted"


def _content(view: TraceView, key: tuple, fit: Callable, features: bool) -> str:
    rows = hashlib.sha256(np.ascontiguousarray(view.rows, np.int64).tobytes()).hexdigest()
    parts = [view.trace.content_hash, view.split, rows, view.recorded_exits, view.temperatures, key, fingerprint(fit)]
    if features:
        parts.append([hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in view.features])
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _read(path: Path | None) -> Model | None:
    """A model from disk, None where there is none or where it cannot be read."""
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        own = found.pop(_NAME, None)  # files that were written before there was one have none
        return found if own is None or (own.dtype.kind == "U" and str(own) == path.stem) else None
    except Exception:  # torn and foreign files make numpy and zipfile raise many kinds
        return None


def _keep(model: Model, path: Path | None) -> Model:
    """Write a model where that is possible; a folder that cannot be written to only costs the time of fitting again."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as unfinished, open(unfinished, "wb") as file:
                np.savez(file, **model, **{_NAME: np.array(path.stem)})
        except (OSError, BadInput):
            pass
    return model
