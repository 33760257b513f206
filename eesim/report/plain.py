"""JSON and CSV: what is not known is null or empty, never NaN."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` with nothing in it that JSON lacks: NaN and infinities become None, numpy scalars Python ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def to_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(plain(value), indent=2, allow_nan=False)


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with the columns in order of first appearance."""
    rows = [plain(row) for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")
