"""Files that belong to an ONNX model: itself, and those that hold its weights where they are stored outside."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import external_data_helper

from eesim.errors import BadInput


def external_files(path: Path) -> list[Path]:
    """The files of weights outside the model's own, sorted, each relative to its folder.

    Raises BadInput where one is missing or lies outside the folder.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        stored = {
            external_data_helper.ExternalDataInfo(tensor).location
            for tensor in external_data_helper._get_all_tensors(model)  # the helper's only way to also find those inside nodes
            if external_data_helper.uses_external_data(tensor)
        }
    except Exception as error:  # onnx raises without a common base
        raise BadInput(f"not a readable ONNX model: {(str(error).splitlines() or [type(error).__name__])[0]}", file=path) from None
    for name in sorted(stored):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"its weights are in '{name}', which is not in the model's folder", file=path)
        if not (path.parent / name).is_file():
            raise BadInput(f"its weights are in '{name}', which is missing beside it", file=path)
    return [Path(name) for name in sorted(stored)]
