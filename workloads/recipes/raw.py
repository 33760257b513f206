"""The folder of raw datasets, named by EESIM_RAW_DATA; without it a recipe stops with one sentence and exit status 2."""

import os
import sys
from pathlib import Path


def stop(sentence):
    """Say one sentence on stderr and leave with exit status 2."""
    print(f"recipe.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def raw_file(*parts):
    """Path of a raw file below EESIM_RAW_DATA."""
    folder = os.environ.get("EESIM_RAW_DATA")
    relative = Path(*parts)
    if not folder:
        stop(f"set EESIM_RAW_DATA to the folder that holds {relative}")
    path = Path(folder) / relative
    if not path.is_file():
        stop(f"{relative} is missing in the folder named by EESIM_RAW_DATA ({folder})")
    return path
