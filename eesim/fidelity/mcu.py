"""Documents of the microcontroller profiles: rates and power from the pooled fits, and the errors they state."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from eesim.fidelity.document import assemble, named, source
from eesim.fidelity.mlperf_tiny import DEPTHWISE, SYSTEMS, Pool
from eesim.fidelity.reference_networks import NETWORKS, load_networks
from eesim.hardware.fit import Term, design_matrix, error_statistics, rates_by_kind
from eesim.hardware.models.linear import Parameters, price
from eesim.hardware.profile import OperatingPoint

DATA_TYPE = "int8"
REPOSITORIES = {
    "v0.5": "mlcommons/tiny_results_v0.5 at d75aef6",
    "v0.7": "mlcommons/tiny_results_v0.7 at 64623f4",
    "v1.0": "mlcommons/tiny_results_v1.0 at c7761cf",
    "v1.1": "mlcommons/tiny_results_v1.1 at c32ef94",
    "v1.2": "mlcommons/tiny_results_v1.2 at cadb362",
}
PROFILES = {system[0]: system[1] for system in SYSTEMS if system[0]}
"""Profile -> pool, in the order of the table of systems."""
_EXPECTED = "the depthwise rate was expected near {} times the arithmetic rate ({}), then fitted"
DEPTHWISE_ORIGIN = {
    "mcu": f"a depthwise MAC, beside its bytes, fixed at {DEPTHWISE['mcu']} dense ones, the middle of per-layer logs: 2.8 (MobileNet-v2 in the "
    "TensorFlow Lite Micro model runner of NXP's eIQ, Cortex-M7) to 4.6 (README of espressif/esp-nn at 0798b58, optimised), bytes included",
    "gap9": _EXPECTED.format(16, "the NE16 takes 16 input channels at a time"),
    "ndp120": _EXPECTED.format(DEPTHWISE["ndp120"], "per-layer logs of microcontrollers"),
}


def documents(rows: list[dict], traces: Path | None = None) -> list[tuple[dict, list[dict]]]:
    """Each profile as a document, with its rows of the error table. `rows` is the published table, `traces` is `power_traces.csv`
    (without it, idle powers are not known)."""
    pools = {name: Pool(name, rows) for name in dict.fromkeys(PROFILES.values())}
    idle = _active_idle(traces) if traces else {}
    return [*(_document(name, pools[pool], idle) for name, pool in PROFILES.items()), (esp32s3(), [])]


ESP_NN = {"pointwise": 331_008 / 409_600, "depthwise": 191_931 / 36_864, "fully_connected": 4_439 / 795}
"""Cycles per MAC of single kernels on an ESP32-S3, README of espressif/esp-nn."""
PERSON_DETECTION_MS = 54.0


def esp32s3() -> dict:
    """The ESP32-S3 from single kernels and one network, all assumed: rates of the kernels times one factor that makes person
    detection (MobileNet-v1 0.25 at 96x96 with one input channel) take its published time."""
    dense, full = {"per_mac": ESP_NN["pointwise"]}, {"per_mac": ESP_NN["fully_connected"]}
    first = (643_689 - 110_592 * dense["per_mac"]) / 6_188  # 10x10x3 in, 8x8x64 out, 64 filters of 3x3x3
    per_byte = {"pooling": 160_580 / 8_192, "elementwise": 71_644 / 4_845, "normalization": 71_644 / 4_845, "softmax": 75.0, "reshape": 0.5}
    rates = {"conv": {**dense, "per_byte": first}, "pointwise": dense, "depthwise": {"per_mac": ESP_NN["depthwise"]}}
    rates |= dict.fromkeys(("fully_connected", "matmul", "recurrent"), full) | {kind: {"per_byte": value} for kind, value in per_byte.items()}
    layers = list(load_networks()["vww"].layers)
    layers[0] = replace(layers[0], macs=layers[0].macs // 3, elements_in=layers[0].elements_in // 3, params=9 * 8 + 8)
    terms = [Term(f"{kind} {rate}", {kind: {rate: 1.0}}) for kind, found in rates.items() for rate in found]
    values = [value for found in rates.values() for value in found.values()]
    factor = PERSON_DETECTION_MS * 240e3 / float(design_matrix([layers], terms, item_bytes=1)[0] @ values)
    scaled = rates_by_kind(terms, [factor * value for value in values])
    cost_model = {"model": "linear", "time_unit": "cycles", "data_types": {DATA_TYPE: scaled}}
    return assemble("esp32s3-esp-nn", cost_model, {"240MHz": {"active_mw": None, "idle_mw": None}}, [])


def predict(document: dict, point: str) -> tuple[np.ndarray, np.ndarray]:
    """Latency in ms and energy in uJ of the four reference networks, by the document's rounded coefficients: plain sums over layers."""
    parameters = Parameters.model_validate(document["cost_model"])
    place = OperatingPoint.model_validate(document["operating_points"][point])
    costs = [[price(layer, DATA_TYPE, parameters, place) for layer in network.layers] for network in load_networks().values()]
    return np.array([sum(c.ns for c in cost) * 1e-6 for cost in costs]), np.array(
        [sum(np.nan if c.nj is None else c.nj for c in cost) * 1e-3 for cost in costs]
    )


def _document(name: str, pool: Pool, idle: dict[tuple, float]) -> tuple[dict, list[dict]]:
    systems = {system[7]: index for index, system in enumerate(pool.systems) if system[0] == name}
    default = next(iter(systems))
    power = {}
    for point, system in systems.items():
        dense, rest, full = pool.power_mw[system]
        active = {"default": rest, "conv": dense, "fully_connected": full, "matmul": full, "recurrent": full} if np.isfinite(full) else None
        power[point] = {"active_mw": active, "idle_mw": idle.get(pool.systems[system][4:7])}

    def build(cycles_per_ms: float, sources: list[dict]) -> dict:
        rates = rates_by_kind(pool.recipe.terms, pool.coefficients[systems[default]] * cycles_per_ms)
        return assemble(name, {"model": "linear", "time_unit": "cycles", "data_types": {DATA_TYPE: rates}}, power, sources)

    cycles_per_ms = 1e3 * build(1.0, [])["operating_points"][default]["clock_mhz"]
    document = build(cycles_per_ms, [])
    errors, table = _errors(name, document, pool, systems)
    return build(cycles_per_ms, _sources(pool, systems, errors, idle)), table


def _errors(name: str, document: dict, pool: Pool, systems: dict[str, int]) -> tuple[dict[str | None, dict[str, float]], list[dict]]:
    """Stated errors: of the cost model under None, of each operating point's energy under its name; and rows for the printed table."""
    stated: dict[str | None, dict[str, float]] = {}
    table = []
    latencies: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"in_sample": [], "leave_one_out": [], "unseen_network": []}
    for point, system in systems.items():
        latency, energy = predict(document, point)
        held_latency, held_energy = pool.held_out(system)
        alone_latency, alone_energy = pool.held_out(system, alone=True)
        for case, predicted in zip(latencies, (latency, held_latency, pool.unseen(system)), strict=True):
            latencies[case].append((predicted, pool.latency_ms[system]))
        if np.isfinite(pool.energy_uj[system]).any():
            stated[point] = {
                **named("energy_in_sample", error_statistics(energy, pool.energy_uj[system])),
                **named("energy_leave_one_out", error_statistics(held_energy, pool.energy_uj[system])),
            }
        for what, measured, fitted, held, alone in (
            ("latency", pool.latency_ms[system], latency, held_latency, alone_latency),
            ("energy", pool.energy_uj[system], energy, held_energy, alone_energy),
        ):
            if not np.isfinite(measured).any():
                continue
            errors = {"held_out": held / measured - 1, "alone": alone / measured - 1, "in_sample": fitted / measured - 1}
            table.append({"profile": name, "point": point, "what": what, "networks": NETWORKS, **errors})
    together = {case: tuple(map(np.concatenate, zip(*parts, strict=True))) for case, parts in latencies.items()}
    latency_errors = [named(f"latency_{case}", error_statistics(*pair)) for case, pair in together.items()]
    stated[None] = {key: value for errors in latency_errors for key, value in errors.items()}
    return stated, table


def _sources(pool: Pool, systems: dict[str, int], errors: dict[str | None, dict[str, float]], idle: dict[tuple, float]) -> list[dict]:
    def logs(index: int) -> str:
        round_, submitter, system = pool.systems[index][4:7]
        return f"{REPOSITORIES[round_]}, closed/{submitter}/results/{system}"

    default = next(iter(systems.values()))
    others = sorted({" ".join(entry[4:7]) for index, entry in enumerate(pool.systems) if index != default})
    pooled = ", ".join(others) if len(others) < 6 else f"{len(others)} other systems (hwprofiles/published/mlperf-tiny.csv, pool {pool.name})"
    entries = [
        source(
            "fitted",
            f"latency of the performance runs, {logs(default)}; pooled with {pooled}; {DEPTHWISE_ORIGIN[pool.name]}. "
            "Leave-one-out: the measurement and its repeats on the same board are hidden from the fit. Unseen network: hidden on all boards",
            ["cost_model.*"],
            errors[None],
        )
    ]
    for point, index in systems.items():
        power = f"energy of the inference windows divided by latency, {logs(index)}: one power for dense convolutions, one for fully connected layers"
        floor = f"smallest 5th percentile between inference windows, median over networks, {logs(index)}/*/energy/trace1-energy.bin (1 kHz); awake"
        if point in errors:
            entries.append(source("fitted", f"{power}, one for the rest", [f"operating_points.{point}.active_mw.*"], errors[point]))
        if pool.systems[index][4:7] in idle:
            entries.append(source("measured", floor, [f"operating_points.{point}.idle_mw"]))
    return entries


def _active_idle(traces: Path) -> dict[tuple, float]:
    """Active-idle floor in mW by (round, submitter, system): median over networks of the smallest 5th percentile between windows."""
    found: dict[tuple, list[float]] = {}
    with traces.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            _, submitter, _, *system = row["path"].split("/")[:-3]  # without network, 'energy' and the file
            found.setdefault((row["round"], submitter, "/".join(system)), []).append(float(row["gap_p5_min_mW"]))
    return {key: float(np.median(values)) for key, values in found.items()}
