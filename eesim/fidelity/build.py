"""All bundled profiles that rest on measured data, as documents, with the errors on what their fits have not seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eesim.errors import BadInput
from eesim.fidelity import cpu, gpu, mcu, mlperf_tiny


def raw_folder() -> Path:
    """The folder `hardware` of the raw data that the variable EESIM_RAW_DATA names. Raises BadInput without it."""
    raw = os.environ.get("EESIM_RAW_DATA")
    folder = Path(raw or "") / "hardware"
    if not raw or not folder.is_dir():
        raise BadInput("set it to the folder that holds the raw data ('hardware/' among it)", field="EESIM_RAW_DATA")
    return folder


def build(folder: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each profile as a document, with its rows of the error table, from the folder `hardware` of the raw data."""
    rows = mlperf_tiny.rows_from_measured(folder / "mlperf_tiny" / "measured.csv")
    return [*mcu.documents(rows, folder / "mlperf_tiny" / "power_traces.csv"), *cpu.documents(folder), *gpu.documents(folder / "gpu")]
