"""The space of a sweep: which workloads, devices, mechanisms, settings, exits and loads, point by point."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from eesim.bundled import find_arrivals, profile_names
from eesim.errors import BadInput, unknown
from eesim.hardware.profile import Profile, load_profile
from eesim.mechanisms.base import Mechanism, Values
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.simulation import Load, settle
from eesim.workload import Workload, bundled_workloads, load_workload

PART_SETTINGS = 32
"""Settings of one mechanism that are simulated and stored together, on all devices."""


@dataclass(frozen=True, eq=False)
class Device:
    """A profile at one operating point; `data_type` None: as the network and the profile have it."""

    profile: Profile
    operating_point: str
    data_type: str | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """Points that share workload, exits, load and mechanism: a few settings of it on every device. Computed and stored as one."""

    workload: Workload
    exits: tuple[int, ...]
    load: Load
    mechanism: Mechanism
    settings: tuple[Values, ...]
    devices: tuple[Device, ...]

    def __len__(self) -> int:
        return len(self.settings) * len(self.devices)

    def point_id(self, setting: Values, device: Device) -> str:
        """A name for one point that depends on everything its figures depend on, and on nothing else."""
        values = {name: str(value) for name, value in setting.items()}
        content = [self._fingerprint, values, device.profile.content_hash, device.operating_point, *filter(None, [device.data_type])]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _fingerprint(self) -> list:
        """What all points of the part share: contents, not names of files that may change."""
        load = {name: str(value) for name, value in vars(self.load).items() if value is not None and name != "arrivals"}
        arrivals = self.workload.arrivals if self.load.arrivals is None else self.load.arrivals
        return [
            self.workload.name, self.workload.trace.content_hash, self.workload.network.content_hash, list(self.exits), load,
            self.mechanism.name, _content_of_mechanism(self.mechanism), _content_of_arrivals(arrivals, self.workload.folder),
        ]  # fmt: skip


def _content_of_arrivals(arrivals: Any, folder: Path) -> str:
    """Text of a process, with what is in the file or array it names."""
    if isinstance(arrivals, np.ndarray):
        return f"times {hashlib.sha256(np.ascontiguousarray(arrivals, np.int64).tobytes()).hexdigest()}"
    text = getattr(arrivals, "text", None) or str(arrivals)
    keyword, _, path = text.partition(":")
    if keyword == "file":
        for place in (path, folder / path):
            try:
                return f"file {hashlib.sha256(find_arrivals(str(place)).read_bytes()).hexdigest()}"
            except BadInput:
                continue
    return text


def _content_of_mechanism(mechanism: Mechanism) -> str:
    """The source of a mechanism of one's own, which may change under its name; bundled ones change with the version of eesim."""
    if type(mechanism).__module__.startswith("eesim.mechanisms."):
        return ""
    path = Path(getattr(sys.modules.get(type(mechanism).__module__), "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path)


@dataclass(frozen=True)
class Space:
    """All parts of a sweep in a fixed order, and the record of what they are made of."""

    parts: tuple[Part, ...]
    record: dict[str, Any]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def named(names: Any, known: Iterable[str], what: str) -> list:
    """A list from 'all', one name or object, or several; the order given. Raises BadInput when it is empty."""
    if names is None or names == "all":
        names = list(known)
    chosen = [names] if isinstance(names, (str, bytes)) or not isinstance(names, Iterable) else list(names)
    if not chosen:
        raise BadInput(f"no {what} is named", field=what)
    return list(dict.fromkeys(chosen))


def workloads_of(names: Any = None) -> tuple[list[Workload], list[str]]:
    """The workloads named; of all the bundled ones those with a trace, and a remark on each that is left out."""
    if names is not None and names != "all":
        return [load_workload(name) for name in named(names, (), "workloads")], []
    recorded, without = bundled_workloads()
    return [load_workload(name) for name in recorded], [f"'{name}' is left out: it ships without a trace" for name in without]


def build_space(
    workloads: Any = None,
    profiles: Any = None,
    mechanisms: Any = None,
    *,
    thresholds: Sequence[float] | None = None,
    settings: int = 20,
    grid: Mapping[str, Sequence[Any]] | None = None,
    exits: Any = None,
    operating_points: Any = None,
    data_type: str | None = None,
    loads: Sequence[Load] = (Load(),),
) -> Space:
    """Lay out a sweep.

    mechanisms : names, or {name: {parameter: [values]}}, a grid of all combinations. Bounds and baselines always join.
    thresholds : values for mechanisms that have a parameter of that name; others give their default, and a remark.
    settings : without thresholds, about how many settings of each mechanism, at quantiles of what it sees in calibration.
    grid : {parameter: [values]} for every mechanism that has it.
    exits : a set of exits, a list of such sets, or 'subsets' for all of them.
    operating_points : names, or 'all'; by default each profile's default.
    data_type : int8, fp32, …; by default the profile's, or the network's own if it is quantised.
    """
    chosen, left_out = workloads_of(workloads)
    everything = mechanisms is None or mechanisms == "all"
    devices = tuple(devices_of(named(profiles, profile_names(), "profiles"), operating_points, data_type))
    rules = _rules(mechanisms)
    parameters = {parameter.name for rule in rules for parameter in rule.parameters}
    for name in grid or {}:
        if name not in parameters:
            raise unknown("parameter", name, sorted(parameters), field=f"set {name}")
    if isinstance(settings, bool) or not isinstance(settings, int) or settings < 1:
        raise BadInput(f"'{settings}' must be a whole number of at least 1", field="settings")
    if not loads:
        raise BadInput("no arrivals are named", field="arrivals")
    parts: list[Part] = []
    remarks: dict[str, None] = dict.fromkeys(left_out)
    for workload in chosen:
        for subset, load, (rule, own) in product(subsets_of(exits, workload), loads, rules.items()):
            try:
                values = list(_settings(workload, subset, rule, own, thresholds, settings, grid or {}, remarks))
            except BadInput as error:
                if own or not (rule.bound or everything):
                    raise
                remarks[f"'{rule.name}' is left out on '{workload.name}': {error}"] = None
                continue
            for begin in range(0, len(values), PART_SETTINGS):
                parts.append(Part(workload, subset, load, rule, tuple(values[begin : begin + PART_SETTINGS]), devices))
    record = {
        "workloads": {workload.name: workload.trace.content_hash for workload in chosen},
        "devices": {f"{device.profile.name}@{device.operating_point}": device.profile.content_hash for device in devices},
        "mechanisms": sorted(rule.name for rule in rules),
        "points": sum(len(part) for part in parts),
        "layout": hashlib.sha256(
            "".join(part.point_id(value, device) for part in parts for value in part.settings for device in devices).encode()
        ).hexdigest(),
    }
    return Space(tuple(parts), record, tuple(remarks))


def _rules(mechanisms: Any) -> dict[Mechanism, dict[str, Sequence[Any]]]:
    grids = mechanisms if isinstance(mechanisms, Mapping) else {name: {} for name in named(mechanisms, mechanism_names(), "mechanisms")}
    rules = {load_mechanism(name): dict(grid or {}) for name, grid in grids.items()}
    have = {rule.name for rule in rules}
    bounds = [load_mechanism(name) for name in mechanism_names()]
    return {**{rule: {} for rule in bounds if rule.bound and rule.name not in have}, **rules}


def devices_of(profiles: Iterable[Any], operating_points: Any = None, data_type: str | None = None) -> list[Device]:
    """Every profile at its default operating point (None), at all it has ('all'), or at those named that it has."""
    loaded = [load_profile(profile) for profile in profiles]
    if operating_points is None:
        return [Device(profile, profile.default_operating_point, data_type) for profile in loaded]
    known = list(dict.fromkeys(name for profile in loaded for name in profile.operating_points))
    wanted = known if operating_points == "all" else named(operating_points, (), "operating_points")
    for name in wanted:
        if name not in known:
            raise unknown("operating point", name, known, field="operating_points")
    return [Device(profile, name, data_type) for profile in loaded for name in profile.operating_points if name in wanted]


def subsets_of(exits: Any, workload: Workload) -> list[tuple[int, ...]]:
    """Sets of enabled exits: all of them (None), one set, several sets, or every subset ('subsets'), the largest first."""
    if exits is None:
        return [workload.enabled()]
    if isinstance(exits, str):
        if exits != "subsets":
            raise BadInput(f"'{exits}' is neither a list of exits nor 'subsets'", field="exits")
        last = workload.network.exits - 1
        return [(*chosen, last) for size in range(last, -1, -1) for chosen in combinations(range(last), size)]
    exits = list(exits) if isinstance(exits, Iterable) else [exits]
    several = exits if exits and not isinstance(exits[0], int) else [exits]
    return list(dict.fromkeys(workload.enabled(subset) for subset in several))


def _settings(
    workload: Workload,
    exits: tuple[int, ...],
    rule: Mechanism,
    own: Mapping[str, Sequence[Any]],
    thresholds: Sequence[float] | None,
    count: int,
    grid: Mapping[str, Sequence[Any]],
    remarks: dict[str, None],
) -> Iterator[Values]:
    """Settings of one mechanism: its own grid, else thresholds, else candidates from the calibration split; else its defaults."""
    view = workload.view("test", exits)
    known = {parameter.name for parameter in rule.parameters}
    axes = {
        name: list(values) if isinstance(values, (list, tuple, range)) or hasattr(values, "__array__") else [values] for name, values in own.items()
    }
    axes |= {name: list(values) for name, values in grid.items() if name in known and name not in axes}
    if thresholds is not None and "threshold" not in axes:
        if "threshold" in known:
            axes["threshold"] = list(thresholds) if isinstance(thresholds, Iterable) else [thresholds]
        elif not rule.bound:
            remarks[f"'{rule.name}' has no threshold, so it gives {'one point' if not axes else 'the points of its own grid'} per device"] = None
    additions = {parameter.name for parameter in rule.parameters if parameter.optional}
    looked_for = set(axes) <= additions and thresholds is None and not rule.bound and len(exits) > 1
    once: dict[str, None] = {}
    for combination in product(*axes.values()):
        given = dict(zip(axes, combination))
        if looked_for:
            calibration = workload.view("calibration", exits)
            candidates = rule.candidates(calibration, count, rule.check(given, calibration))
        else:
            candidates = [{}]
        for candidate in candidates:
            values = settle(rule, {**candidate, **given}, workload, view)
            if repr(values) not in once:
                once[repr(values)] = None
                yield values


def able(workload: Workload, rules: Iterable[Mechanism], named_ones: Any, remarks: list[str]) -> list[Mechanism]:
    """The mechanisms that this workload has all data for. Where they were not named, those that lack some are left out with a remark."""
    found = []
    for rule in rules:
        try:
            if not rule.bound and workload.network.exits > 1:
                rule.candidates(workload.view("calibration"), 4)
        except BadInput as error:
            if named_ones is not None and named_ones != "all":
                raise
            if (remark := f"'{rule.name}' is left out on '{workload.name}': {error}") not in remarks:
                remarks.append(remark)
            continue
        found.append(rule)
    return found


def with_arrivals(load: Load, arrivals: Any) -> list[Load]:
    """One load for each arrival process named."""
    return [replace(load, arrivals=text) for text in arrivals] if isinstance(arrivals, (list, tuple)) else [replace(load, arrivals=arrivals)]
