"""Putting a profile together: facts and notes from `devices.yaml`, measured and fitted numbers from the fits, one YAML file a device."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eesim.bundled import data_folder
from eesim.hardware.document import named, source, write_profile
from eesim.hardware.fit import significant
from eesim.network.layer import KINDS
from eesim.network.network import Network

__all__ = ["assemble", "devices", "named", "rounded", "sizes_of", "source", "write"]

HEADER = "# Written by `python -m eesim.fidelity` from measured data; change eesim/fidelity or texts/devices.yaml, not this file.\n"
_FACTS = ("title", "vendor", "board", "core", "runtime", "device_class", "data_type", "memory")


def assemble(name: str, cost_model: dict, power: dict[str, dict], sources: list[dict], **more: Any) -> dict:
    """The document of one profile.

    power : for each operating point of `devices.yaml`, `active_mw` (kind -> mW) and `idle_mw`; None where unknown
    sources : origins of what was measured and fitted; those of facts and assumptions are added. The first that covers a number counts.
    more : further sections, such as `fitted_over`
    """
    facts = devices()[name]
    unknown = {"sleep_mw": None, "wake_us": None, "wake_uj": None}
    points = {point: {**fixed, **{key: _kept(value) for key, value in power[point].items()}, **unknown} for point, fixed in facts["points"].items()}
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
        **more,
        "notes": facts["notes"],
        "sources": [
            *([source(facts.get("memory_kind", "datasheet"), facts["memory_origin"], ["memory.*"])] if facts["memory"] else []),
            *([source("datasheet", facts["points_origin"], clocks)] if "points_origin" in facts else []),
            *(source("assumed", reason, covers) for reason, covers in patterns),
            *sources,
            source("assumed", facts["decision_origin"], ["decision.*"]),
        ],
    }


def rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    """A mapping of numbers with so many significant digits each."""
    return {key: significant(float(value), digits) for key, value in values.items()}


def sizes_of(networks: Iterable[Network], kinds: Collection[str]) -> dict[str, dict[str, list[int]]]:
    """Smallest and largest MACs and elements of the layers of each kind, for `fitted_over`."""
    spans: dict[str, dict[str, list[int]]] = {}
    for network in networks:
        for layer in network.layers:
            if layer.kind in kinds:
                span = spans.setdefault(layer.kind, {"macs": [layer.macs] * 2, "elements": [layer.elements] * 2})
                for name, value in (("macs", layer.macs), ("elements", layer.elements)):
                    span[name] = [min(span[name][0], value), max(span[name][1], value)]
    return {kind: spans[kind] for kind in KINDS if kind in spans}


def write(document: dict, folder: Path) -> Path:
    """Write `<name>.yaml` into `folder`; the same document gives the same bytes."""
    return write_profile(document, folder / f"{document['name']}.yaml", HEADER)


@cache
def devices() -> dict[str, dict[str, Any]]:
    """What `devices.yaml` says about each profile."""
    return yaml.safe_load((data_folder("hwprofiles") / "texts" / "devices.yaml").read_text(encoding="utf-8"))["profiles"]


def _kept(value: float | dict[str, float] | None) -> float | dict[str, float] | None:
    """A power to so many digits; unknown stays unknown, never 0."""
    return None if value is None else rounded(value) if isinstance(value, dict) else significant(value)
