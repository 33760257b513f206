"""Writing a profile: one YAML file, short collections on one line, the same document always the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from eesim.files import write_text
from eesim.hardware.profile import SCHEMA_VERSION
from eesim.schema import Dumper

WIDTH = 140


def write_profile(document: dict[str, Any], path: str | Path, header: str = "") -> Path:
    """Write the document of a profile (plain dicts, lists, numbers and texts, keys in their order) to `path`."""
    body = yaml.dump({"schema_version": SCHEMA_VERSION, **document}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    write_text(path, header + body)
    return Path(path)


def named(prefix: str, statistics: dict[str, float], keep: tuple[str, ...] = ("median", "max")) -> dict[str, float]:
    """Error statistics under names such as `latency_leave_one_out_median`."""
    return {f"{prefix}_{name}": statistics[name] for name in keep}


def source(kind: str, origin: str, covers: list[str], error: dict[str, float] | None = None) -> dict[str, Any]:
    """One entry of `sources`. Errors are fractions, kept to four decimals."""
    entry = {"covers": covers, "kind": kind, "origin": origin}
    return entry | {"error": {name: round(value, 4) for name, value in error.items()}} if error else entry


class _Dumper(Dumper):
    """Short collections of plain values on one line, everything else spread out; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, flow_style=_short(sequence))

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_mapping(tag, mapping, flow_style=_short([*mapping, *mapping.values()]))


def _short(values: list) -> bool:
    return not any(isinstance(value, (dict, list)) for value in values) and sum(len(str(value)) + 2 for value in values) < 110
