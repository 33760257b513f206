"""A study on disk: finished parts at once, everything in one file at the end.

While a study runs, `parts/` holds one Parquet file for each finished part, written beside and renamed, so that whatever
interrupts it, at most the part in flight is lost. When all are there they become `points.parquet`, sorted by point id,
which therefore does not depend on how often the study was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from eesim import __version__
from eesim.errors import BadInput


class Study:
    """A folder with `manifest.json`, and `points.parquet` once complete."""

    def __init__(self, folder: str | Path, record: dict[str, Any], parts: int):
        """Open or continue a study. Raises BadInput when the folder holds another one, naming what differs."""
        self.folder, self.parts = Path(folder), parts
        self.manifest = {"eesim": __version__, "schema_version": 1, "parts": parts, **record}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot be used as a folder: {error.strerror}", file=folder) from None
        path = self.folder / "manifest.json"
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except ValueError:
                raise BadInput("is not readable; choose another --out or remove the folder", file=path) from None
            differs = [key for key, value in self.manifest.items() if found.get(key) != json.loads(json.dumps(value))]
            if differs:
                raise BadInput(f"the folder holds another study ({', '.join(differs)} differ); choose another --out or remove it", file=path)
        else:
            write_text(path, json.dumps(self.manifest, indent=1))
        self._pieces.mkdir(exist_ok=True)

    @property
    def _pieces(self) -> Path:
        return self.folder / "parts"

    @property
    def points(self) -> Path:
        """The finished file."""
        return self.folder / "points.parquet"

    def has(self, part: int) -> bool:
        """Whether a part is done."""
        return self.points.exists() or self._piece(part).exists()

    def _piece(self, part: int) -> Path:
        return self._pieces / f"{part:06d}.parquet"

    def write(self, part: int, rows: list[dict[str, Any]]) -> None:
        """Store one finished part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._piece(part)
        unfinished = path.with_suffix(".unfinished")
        pq.write_table(pa.Table.from_pylist(rows), unfinished, compression="zstd")
        os.replace(unfinished, path)

    def finish(self) -> None:
        """Make one file of all parts. They must all be there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.points.exists():
            tables = [pq.read_table(self._piece(part)) for part in range(self.parts)]
            whole = pa.concat_tables(tables, promote_options="permissive")
            whole = whole.sort_by("point").replace_schema_metadata(None)
            unfinished = self.points.with_suffix(".unfinished")
            pq.write_table(whole.combine_chunks(), unfinished, compression="zstd")
            os.replace(unfinished, self.points)
        shutil.rmtree(self._pieces, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
