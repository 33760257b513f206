"""Putting a profile together: facts and notes from `devices.yaml`, measured and fitted numbers from the fits, one YAML file a device."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eesim.hardware.fit import significant

HEADER = "# Written by hwprofiles/fit_profiles.py from measured data; change the script or fits/devices.yaml, not this file.\n"
_FACTS = ("title", "vendor", "board", "core", "runtime", "device_class", "data_type", "memory")


def assemble(name: str, cost_model: dict, power: dict[str, dict], sources: list[dict]) -> dict:
    """The document of one profile.

    power : for each operating point of `devices.yaml`, `active_mw` (kind -> mW) and `idle_mw`
    sources : origins of what was measured and fitted; those of facts and assumptions are added. The first that covers a number counts.
    """
    facts = _devices()[name]
    unknown = {"sleep_mw": None, "wake_us": None, "wake_uj": None}
    points = {
        point: {**fixed, "active_mw": rounded(power[point]["active_mw"]), "idle_mw": significant(power[point]["idle_mw"]), **unknown}
        for point, fixed in facts["points"].items()
    }
    patterns = [(entry["reason"], [f"cost_model.*.{kind}.*" for kind in entry["kinds"]]) for entry in facts["assumed"]]
    clocks = [f"operating_points.*.{key}" for key in ("clock_mhz", "supply_v")]
    return {
        "name": name,
        **{key: facts[key] for key in _FACTS},
        "default_operating_point": next(iter(points)),
        "operating_points": points,
        "energy_scope": facts["energy_scope"],
        "cost_model": cost_model,
        "decision": facts["decision"],
        "notes": facts["notes"],
        "sources": [
            *([source(facts.get("memory_kind", "datasheet"), facts["memory_origin"], ["memory.*"])] if facts["memory"] else []),
            *([source("datasheet", facts["points_origin"], clocks)] if "points_origin" in facts else []),
            *(source("assumed", reason, covers) for reason, covers in patterns),
            *sources,
            source("assumed", facts["decision_origin"], ["decision.*"]),
        ],
    }


def source(kind: str, origin: str, covers: list[str], error: dict[str, float] | None = None) -> dict:
    """One entry of `sources`. Errors are fractions, kept to four decimals."""
    entry = {"covers": covers, "kind": kind, "origin": origin}
    return entry | {"error": {name: round(value, 4) for name, value in error.items()}} if error else entry


def named(prefix: str, statistics: dict[str, float], keep: tuple[str, ...] = ("median", "max")) -> dict[str, float]:
    """Error statistics under names such as `latency_leave_one_out_median`."""
    return {f"{prefix}_{name}": statistics[name] for name in keep}


def rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    """A mapping of numbers with so many significant digits each."""
    return {key: significant(float(value), digits) for key, value in values.items()}


def write(document: dict, folder: Path) -> Path:
    """Write `<name>.yaml` into `folder`; the same document gives the same bytes."""
    path = folder / f"{document['name']}.yaml"
    body = yaml.dump({"schema_version": 1, **document}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
    path.write_text(HEADER + body, encoding="utf-8")
    return path


@cache
def _devices() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((Path(__file__).parent / "devices.yaml").read_text(encoding="utf-8"))["profiles"]


class _Dumper(yaml.SafeDumper):
    """Short collections of plain values on one line, everything else spread out; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, flow_style=_short(sequence))

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_mapping(tag, mapping, flow_style=_short([*mapping, *mapping.values()]))


def _short(values: list) -> bool:
    return not any(isinstance(value, (dict, list)) for value in values) and sum(len(str(value)) + 2 for value in values) < 110
