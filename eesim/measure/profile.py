"""A profile of this machine from what networks took on it, layer by layer.

Every measured layer is a case for `eesim.hardware.calibrate`, weighted by its share of its network's time; what no network holds keeps
the ratios of `BASE`. Blocks of channels (`channel_multiple`) are chosen by leaving networks out. The layers that were measured stand
in the profile themselves, so that these very networks are priced as measured and others as fitted.

Layers are measured inside the whole network, and an early-exit network runs in stages: each segment and head is a call of the
runtime, layouts are converted at their edges, and layers find colder caches. `staging` finds both from the measured exits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.hardware import load_profile
from eesim.hardware.calibrate import Calibration, Case, calibrate
from eesim.hardware.document import named, source, write_profile
from eesim.hardware.fit import error_statistics, fit_expected, significant
from eesim.hardware.profile import Profile
from eesim.measure.measuring import CALL, Measurement
from eesim.schema import validate

BASE = "raspberry-pi-5-onnxruntime"
MULTIPLES = (None, 4, 8, 16)
FEWEST = 3
STAGING_SPREAD = (1.0, 0.3)
"""How far a call and the slowdown may be from what is expected (natural logarithm): tiny networks alone do not settle the slowdown."""
STAGE_CALLS = 2
"""The first exit, and going on to each next one, calls the runtime for a segment and for a head."""


def write_measured_profile(measurements: Sequence[Measurement], path: str | Path) -> Path:
    """Fit a profile to measurements of this machine and write it. Raises BadInput for fewer than 3 networks with layer times."""
    path = Path(path)
    document = measured_profile(measurements, path.stem)
    machine = measurements[0].machine
    header = f"# Written by `eesim measure` on {machine.cpu or machine.architecture}.\n"
    return write_profile(document, path, header)


def cases_of(measurement: Measurement, slowdown: float = 1.0) -> list[Case]:
    """A case for each layer that has a time of its own, those executed inside it added to it; times `slowdown`."""
    layers = {layer.name: layer for layer in measurement.network.layers}
    rows = measurement.layers[measurement.layers.kind != "runtime"]
    inside: dict[str, list[str]] = {}
    for row in rows[rows.inside.astype(bool)].itertuples():
        inside.setdefault(row.inside, []).append(row.layer)
    whole = rows.latency_ms.sum()
    return [
        Case(f"{measurement.name}:{row.layer}", measurement.name, tuple(layers[name] for name in (row.layer, *inside.get(row.layer, ()))),
             row.latency_ms * 1e6 * slowdown, weight=max(row.latency_ms / whole * len(rows), 1e-3))
        for row in rows.itertuples()
        if row.latency_ms > 0 and row.layer in layers
    ]  # fmt: skip


@dataclass(frozen=True)
class Staging:
    """What a network costs more in stages than in one piece: ns for each call of the runtime, and times each layer takes `slowdown` as long."""

    call_ns: float
    slowdown: float


def staging(measurements: Sequence[Measurement]) -> Staging:
    """Fitted to all exits, with small relative errors, near what a call costs without layers and a slowdown of 1."""
    design, measured, calls = [], [], []
    for measurement in measurements:
        own = _by_part(measurement, {row.layer: row.latency_ms * 1e6 for row in measurement.layers.itertuples()})
        for row in measurement.totals.dropna(subset=["exit"]).itertuples():
            layers, latency = _through(own, int(row.exit)), row.latency_ms * 1e6
            design.append((row.calls, layers))
            measured.append(latency)
            calls.append((latency - layers) / row.calls)
    if not design:
        return Staging(_call_ns(measurements), 1.0)
    expected = (max(float(np.median(calls)), 1.0), 1.0)
    return Staging(*map(float, fit_expected(np.array(design), np.array(measured), expected, STAGING_SPREAD)))


def _by_part(measurement: Measurement, times: Mapping[str, float]) -> dict[str, float]:
    """Sums of the times of layers, ns by name, for each part of the network ('segment 0', …)."""
    found: dict[str, float] = {}
    for row in measurement.layers[measurement.layers.kind != "runtime"].itertuples():
        found[row.part] = found.get(row.part, 0.0) + times.get(row.layer, 0.0)
    return found


def _through(parts: Mapping[str, float], exit: int) -> float:
    """Segments up to an exit, and its head."""
    return sum(parts.get(f"segment {index}", 0.0) for index in range(exit + 1)) + parts.get(f"head {exit}", 0.0)


def _call_ns(measurements: Sequence[Measurement]) -> float:
    """Of one call of the runtime in one piece."""
    return float(np.median([measurement.layers[measurement.layers.layer == CALL].latency_ms.sum() * 1e6 for measurement in measurements]))


def measured_profile(measurements: Sequence[Measurement], name: str) -> dict[str, Any]:
    """The document of a profile fitted to measurements, see the module's text. Errors are of the exits of networks left out of the fit.

    What staging costs is found from all networks, those left out included (two numbers), and the best of four blocks of channels is taken:
    the errors flatter a little.
    """
    known = [measurement for measurement in measurements if measurement.network is not None and len(measurement.layers)]
    if len({measurement.name for measurement in known}) < FEWEST:
        raise BadInput(
            f"{len(known)} networks with layer times are too few for a profile; measure at least {FEWEST} that differ, for example "
            "'ecg-mitbih cifar10-resnet8 kws-speech-commands vgg16 resnet18'"
        )
    types = sorted({measurement.data_type for measurement in known})
    if len(types) > 1:
        raise BadInput(f"networks of {' and '.join(types)} cannot share a profile; measure those of one data type")
    stages = staging(known)
    cases = [case for measurement in known for case in cases_of(measurement, stages.slowdown)]
    base = load_profile(BASE)
    tried = []
    for multiple in MULTIPLES:
        fitted = calibrate(_base(base, multiple, types[0], stages.call_ns), cases, name=name, origin=_origin(known))
        predicted, measured = _exits(fitted, known, stages.call_ns)
        tried.append((float(np.mean(np.abs(predicted / measured - 1))), multiple, fitted, predicted, measured))
    _, multiple, fitted, predicted, measured = min(tried, key=lambda entry: entry[0])
    errors = named("latency_held_out", error_statistics(predicted, measured), ("median", "mean", "max", "within_10pct"))
    return _described(fitted.document, known, stages, multiple, errors)


def _base(base: Profile, multiple: int | None, data_type: str, call_ns: float) -> Profile:
    model = {**base.data.cost_model, "channel_multiple": multiple, "input": {data_type: {"per_call": call_ns}}}
    model.pop("energy", None)
    data = base.data.model_copy(update={"cost_model": model})
    return replace(base, data=data, parameters=validate(type(base.parameters), model, base.path, "cost_model"))


def _exits(fitted: Calibration, measurements: Sequence[Measurement], call_ns: float) -> tuple[np.ndarray, np.ndarray]:
    """Exits (whole networks where none was measured) in ns: by fits that have not seen them, and as measured."""
    times: dict[str, dict[str, float]] = {measurement.name: {} for measurement in measurements}
    for case, value in zip(fitted.cases, fitted.quantities[0].held_out, strict=True):
        times[case.group][case.name.removeprefix(f"{case.group}:")] = value
    predicted, measured = [], []
    for measurement in measurements:
        parts = _by_part(measurement, times[measurement.name])
        exits = measurement.totals.dropna(subset=["exit"])
        for row in exits.itertuples():
            predicted.append(_through(parts, int(row.exit)) + row.calls * call_ns)
            measured.append(row.latency_ms * 1e6)
        if exits.empty:
            predicted.append(sum(parts.values()) + call_ns)
            measured.append(measurement.latency_ms * 1e6)
    return np.array(predicted), np.array(measured)


def _origin(measurements: Sequence[Measurement]) -> str:
    first = measurements[0]
    version = first.machine.versions.get(first.runtime, "")
    names = ", ".join(measurement.name for measurement in measurements)
    return f"node times of {first.runtime} {version} on this machine, {first.threads} thread(s), {first.clock} clock, of {names}"


def _described(document: dict[str, Any], measurements: Sequence[Measurement], stages: Staging, multiple: int | None, errors: dict) -> dict[str, Any]:
    """The document with this machine's facts in place of the base's."""
    first = measurements[0]
    machine, version = first.machine, first.machine.versions.get(first.runtime, "")
    core, call_ns = machine.cpu or machine.architecture, stages.call_ns
    document |= {
        "title": f"{core} with {first.runtime} {version}, {first.data_type}, {first.threads} thread(s)",
        "vendor": "this machine",
        "board": "this machine",
        "core": core,
        "runtime": f"{first.runtime} {version}",
        "device_class": "cpu",
        "memory": {"sram_kib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024},
    }
    document["default_operating_point"] = "default"
    document["operating_points"] = {"default": dict.fromkeys(("clock_mhz", "supply_v", "active_mw", "idle_mw", "sleep_mw", "wake_us", "wake_uj"))}
    document["energy_scope"] = {"rail": "not measured: this machine offers no counter that may be read", "idle": "included"}
    model = document["cost_model"]
    model["input"] = {first.data_type: {"per_call": significant(STAGE_CALLS * call_ns)}}
    if multiple is None:
        model.pop("channel_multiple", None)
    document["decision"] = {"ns": significant(STAGE_CALLS * call_ns)}
    document["notes"] = [
        f"Measured by `eesim measure` on this machine with {first.threads} thread(s), {first.clock} clock.",
        "Networks are priced as they run in stages, with a call of the runtime for each segment and each head; in one piece they take less.",
        f"In stages layers take {stages.slowdown:.2f} times as long as in one piece (conversions at the edges, colder caches); their prices hold it.",
        "A layer that was measured itself is priced as measured; others by the fit, whose error is that of exits of networks left out of it.",
        "Energy was not measured and is unknown.",
    ]
    times: dict[str, list[float]] = {}
    for measurement in measurements:
        for case in cases_of(measurement, stages.slowdown):
            if len(case.layers) == 1:
                times.setdefault(case.layers[0].signature, []).append(case.latency_ns)
    document["measured_layers"] = {first.data_type: {key: {"ns": significant(float(np.median(values)))} for key, values in sorted(times.items())}}
    sources = [entry for entry in document["sources"] if any(path.startswith("cost_model") for path in entry["covers"])]
    for entry in sources:
        if entry["kind"] == "fitted":
            entry["error"] = {key: round(value, 4) for key, value in errors.items()}
    calls = f"two calls of {first.runtime}, one for a segment and one for a head: what exits took beyond their layers, {first.clock} clock"
    measured = source("measured", calls, ["cost_model.input.*", "decision.*"])
    memory = source("measured", "the operating system of this machine", ["memory.*"])
    chosen = "the block of channels with the smallest error on networks left out of the fit"
    blocks = source("fitted", chosen, ["cost_model.channel_multiple"], errors)
    document["sources"] = [measured, memory, *([blocks] if multiple else []), *sources]
    if first.runtime != "onnxruntime":
        document.pop("graph_passes", None)
    return document
