"""Writing files so that they appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eesim.errors import BadInput


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its place when the block ends, and is removed when the block fails.

    Folders on the way are made. Raises BadInput where the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror or error}", file=path) from None
    finally:
        with suppress(OSError):  # where not even a folder could be made
            unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8. Raises BadInput where it cannot be written."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """Raise BadInput now if a file (or a folder) of this name could not be written later, after long work."""
    if not str(path).strip():
        raise BadInput("names nothing", file="''", field="out")
    path = Path(path)
    if not folder and path.is_dir():
        raise BadInput("is a folder, not a file", file=path, field="out")
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise BadInput("is neither a file nor a folder", file=path, field="out")
    if folder and path.is_file():
        raise BadInput("is a file, not a folder", file=path, field="out")
    there = next(place for place in (path if path.is_dir() else path.parent, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise BadInput(f"'{there}' is not a folder", file=path, field="out")
    if not os.access(there, os.W_OK):
        raise BadInput(f"the folder '{there}' may not be written to", file=path, field="out")
