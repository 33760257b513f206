"""A study on disk: finished parts at once, everything in one file at the end.

While a study runs, `parts/` holds one Parquet file for each finished part, written beside and renamed, so that whatever
interrupts it, at most the part in flight is lost. When all are there they become `points.parquet`, sorted by point id,
which therefore does not depend on how often the study was interrupted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from eesim import __version__
from eesim.errors import BadInput
from eesim.files import whole, write_text

_PART_KEY = b"eesim.part"


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
            except (ValueError, OSError):
                found = None
            if not isinstance(found, dict):
                raise BadInput("is not readable; choose another --out or remove the folder", file=path)
            differs = [key for key, value in self.manifest.items() if found.get(key) != json.loads(json.dumps(value))]
            if differs:
                raise BadInput(f"the folder holds another study ({', '.join(differs)} differ); choose another --out or remove it", file=path)
        else:
            write_text(path, json.dumps(self.manifest, indent=1))
        try:
            self._pieces.mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot be used as a folder: {error.strerror}", file=self._pieces) from None
        if self.points.exists():
            self._check_points()

    def _check_points(self) -> None:
        """Raise BadInput where the finished file cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            pq.read_schema(self.points)
        except (OSError, pa.ArrowException):
            raise BadInput("is not readable; remove it, and the sweep makes it again", file=self.points) from None

    @property
    def _pieces(self) -> Path:
        return self.folder / "parts"

    @property
    def points(self) -> Path:
        """The finished file."""
        return self.folder / "points.parquet"

    def has(self, part: int) -> bool:
        """Whether a part is done: it is there, can be read and is this part. Any other is computed again."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.points.exists():
            return True
        try:
            return (pq.read_schema(self._piece(part)).metadata or {}).get(_PART_KEY) == self._mark(part)
        except (OSError, pa.ArrowException):
            return False

    def _mark(self, part: int) -> bytes:
        return f"{part}/{self.manifest.get('layout', '')}".encode()

    def _piece(self, part: int) -> Path:
        return self._pieces / f"{part:06d}.parquet"

    def write(self, part: int, rows: list[dict[str, Any]]) -> None:
        """Store one finished part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with whole(self._piece(part)) as unfinished:
            pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({_PART_KEY: self._mark(part)}), unfinished, compression="zstd")

    def finish(self) -> None:
        """Make one file of all parts. They must all be there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.points.exists():
            tables = [pq.read_table(self._piece(part)) for part in range(self.parts)]
            points = pa.concat_tables([table.replace_schema_metadata(None) for table in tables], promote_options="permissive")
            with whole(self.points) as unfinished:
                pq.write_table(points.sort_by("point").combine_chunks(), unfinished, compression="zstd")
        shutil.rmtree(self._pieces, ignore_errors=True)
