"""Parts of a recording that is under way: one file a batch, kept beside the trace until it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.files import whole
from eesim.trace.converters.npz import UNREADABLE


class Parts:
    """Files `<batch>-<hash>.npz` in `<trace>.parts-<settings>`; a part counts only for the same inputs, model and settings."""

    def __init__(self, target: Path, settings: str):
        self._target = target
        self.folder = target.with_name(f"{target.name}.parts-{settings[:12]}")

    @property
    def count(self) -> int:
        """Finished parts that are there, those of an earlier run among them."""
        return len(list(self.folder.glob("*.npz")))

    def load(self, index: int, content_hash: str) -> dict[str, np.ndarray] | None:
        """A finished part, or None."""
        path = self.folder / f"{index:06d}-{content_hash}.npz"
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        except UNREADABLE:  # not there, or cut off: to be recorded again
            return None
        return found if "logits" in found else None

    def save(self, index: int, content_hash: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep a finished part; whole or not at all. The folder comes with the first."""
        path = self.folder / f"{index:06d}-{content_hash}.npz"
        try:
            with whole(path) as unfinished, unfinished.open("wb") as stream:
                np.savez(stream, **arrays)
        except BadInput as error:
            raise BadInput(error.problem, file=self._target) from None

    def remove(self) -> None:
        """The trace is whole: its parts are not needed any more, nor those of other settings."""
        for folder in self._target.parent.iterdir():
            if folder.name.startswith(f"{self._target.name}.parts-"):
                shutil.rmtree(folder, ignore_errors=True)
