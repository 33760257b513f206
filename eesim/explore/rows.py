"""One design point as one flat row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.mechanisms.base import Values
from eesim.result import flatten

if TYPE_CHECKING:
    from eesim.explore.space import Device, Part


def point_row(part: Part, values: Values, device: Device, summary: dict[str, Any], *, without_percentiles: bool = False) -> dict[str, Any]:
    """One flat row. Parameters also stand as JSON; 'never' is infinity in their columns, lists stand in the JSON only."""
    row = flatten({name: value for name, value in summary.items() if name not in ("parameters", "tuned", "confidence")})
    if without_percentiles:
        row |= {name: None for name in row if name.startswith(("latency_ms_p", "wait_ms_p")) or name == "latency_ms_max"}
    parameters = {f"parameters_{name}": _number(value) for name, value in values.items()}
    text = json.dumps({name: list(value) if isinstance(value, tuple) else value for name, value in values.items()})
    return {"point": part.point_id(values, device), **row, "parameters": text, **parameters}


def _number(value: Any) -> float | None:
    if value == "never":
        return float("inf")
    return float(value) if isinstance(value, (int, float, np.number)) else None
