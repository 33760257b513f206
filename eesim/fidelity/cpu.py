"""Documents of the profiles of Arm processors under Linux: twenty networks on several cores, or hundreds on one."""

from __future__ import annotations

import csv
import tempfile
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from eesim.fidelity.document import assemble, devices, named, rounded, sizes_of, source
from eesim.hardware.fit import Term, design_matrix, error_statistics, fit_expected, fit_relative, rates_by_kind
from eesim.network.layer import ITEM_BYTES, KINDS
from eesim.network.network import Network
from eesim.network.onnx_import import import_onnx

MLPERF = "mlcommons/inference_results_v2.0 at 425a0d3, open/Krai/results/{}/*/singlestream/performance/run_1"
NB360 = "roldebijvank/HW-NAS-Bench-360 at a9b243e, results/dataset.parquet, device pi5, task cifar100"
_DENSE = ("fully_connected", "matmul", "recurrent")

_PRODUCTS = ("pointwise", *_DENSE)

ARM_CPU = (
    Term("products", {kind: {"per_mac": 1.0} for kind in _PRODUCTS}),
    Term("convolution", {"conv": {"per_mac": 1.0}}),
    Term("depthwise", {"depthwise": {"per_mac": 1.0}}),
    Term("bytes", {kind: {"per_byte": 1.0} for kind in KINDS}),
    Term("far bytes", {kind: {"per_far_byte": 1.0} for kind in KINDS}),
    Term("weights", {kind: {"per_weight": 1.0} for kind in ("conv", *_PRODUCTS)}),
    Term("positions", {kind: {"per_position": 1.0} for kind in ("conv", "depthwise", *_PRODUCTS)}),
    Term("calls", {kind: {"per_call": 1.0} for kind in KINDS if kind != "reshape"}),
)
"""Terms of several Arm cores with caches. Each rate is expected near a physical value (`EXPECTED`): seven to nine cannot be told apart by
twenty networks, and no fewer predict a family that the fit has not seen."""

EXPECTED = {
    "fp32": {"products": (0.06, 0.7), "convolution": (0.06, 0.7), "depthwise": (0.17, 0.7), "bytes": (0.3, 0.7), "far bytes": (0.25, 0.7),
             "weights": (0.4, 1.0), "positions": (15.0, 1.0), "calls": (15e3, 1.0), "input": (35.0, 0.35)},
    "uint8": {"products": (0.035, 0.7), "convolution": (0.035, 0.7), "depthwise": (0.17, 0.7), "bytes": (0.5, 0.7), "far bytes": (0.4, 0.7),
              "weights": (0.05, 1.0), "positions": (15.0, 1.0), "calls": (15e3, 1.0), "input": (0.7, 0.7)},
}  # fmt: skip
"""Rate in ns and its standard deviation (natural logarithm), for four cores of 1.8 to 2.3 GHz. Written after fits had been looked at.
Weights pay this beside their bytes."""
TIED = 0.25
"""By how much (natural logarithm) energies may leave time multiplied by the mean power."""
CACHE_KIB = 1024

RASPBERRY_PI_5 = (
    Term("convolution", {"conv": {"per_mac": 1.0}}),
    Term("pointwise", {kind: {"per_mac": 1.0} for kind in ("pointwise", *_DENSE)}),
    Term("pooling", {"pooling": {"per_byte": 1.0}, "depthwise": {"per_byte": 1.0}}),
    Term(
        "elementwise",
        {kind: {"per_byte": 1.0} for kind in ("elementwise", "normalization", "reshape")}
        | {kind: {"per_byte": 2.0} for kind in _DENSE}
        | {"softmax": {"per_byte": 25.0}},
    ),
)
"""The four operators of NAS-Bench-201 fix four rates. Weights other than those are assumptions, explained in `devices.yaml`."""

PI5_RUNTIMES = {"onnx": "onnxruntime", "litert": "litert", "torchmobile": "torchmobile"}
PI5_PASSES = {"onnx": ["common-subexpressions"], "litert": ["zero-folding", "common-subexpressions"], "torchmobile": ["common-subexpressions"]}
"""What the runtimes do to the exported graphs, inferred from the latencies: two equal poolings cost as much as one."""

ARM_SYSTEMS = {
    "raspberry-pi-4-tflite-fp32": ("rpi4-tflite-v2.7.1-ruy", ("fp32",), 1.0),
    "raspberry-pi-4-tflite-uint8": ("rpi4-tflite-v2.7.1-ruy", ("uint8",), 1.0),
    "raspberry-pi-4-armnn": ("rpi4-armnn-v21.11-neon", ("fp32", "uint8"), 1.0),
    "odroid-n2plus-tflite": ("odroid-tflite-v2.7.1-ruy", ("fp32", "uint8"), 1.0),
    "xavier-tflite": ("xavier-power.0-fan.cool-tflite-v2.7.1-ruy", ("fp32", "uint8"), 0.35),
}
"""Profile -> system of the measurements, data types, and how much faster than four 1.8 GHz cores its rates are expected to be."""

HELD_OUT, SEED = 100, 20261120
"""Of the 400 networks on the Raspberry Pi 5, the number held out and the seed that chooses them."""


def documents(folder: Path) -> list[tuple[dict, list[dict]]]:
    """The profiles with their rows of the error table. `folder` holds `rpi4_mlperf` and `nb201_pi5`."""
    pi4, pi5 = folder / "rpi4_mlperf", folder / "nb201_pi5"
    rows4, rows5 = _rows(pi4 / "calibration.csv"), _rows(pi5 / "calibration.csv")
    graphs = _graphs(pi4 / "onnx.zip")
    found = [_arm(name, *system, rows4, graphs) for name, system in ARM_SYSTEMS.items()]
    by_passes: dict[tuple[str, ...], dict[str, Network]] = {}
    for framework in PI5_RUNTIMES:
        passes = tuple(PI5_PASSES[framework])
        by_passes[passes] = by_passes.get(passes) or _graphs(pi5 / "onnx.zip", passes)
        found.append(_pi5(rows5, by_passes[passes], framework))
    return found


def _rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _graphs(archive: Path, passes: Sequence[str] = ()) -> dict[str, Network]:
    """Weightless ONNX graphs of a zip, by file name without suffix."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".onnx"))
        file.extractall(folder, names)
        return {Path(name).stem: import_onnx(Path(folder) / name, passes=passes) for name in names}


def _column(rows: Sequence[dict], name: str) -> np.ndarray:
    """Milliseconds or millijoules as nanoseconds or nanojoules."""
    return np.array([float(row[name]) for row in rows]) * 1e6


def _arm(name: str, system: str, data_types: Sequence[str], scale: float, rows: list[dict], graphs: dict[str, Network]) -> tuple[dict, list[dict]]:
    rows = [row for row in rows if row["system"] == system and row["precision"] in data_types]
    point = devices()[name]["points"]
    place = next(iter(point))
    model = {"model": "linear", "time_unit": "ns", "cache_kib": CACHE_KIB, "data_types": {}, "energy": {}, "input": {}}
    sources, table, spans = [], [], {}
    for data_type in data_types:
        here = [row for row in rows if row["precision"] == data_type]
        networks = [graphs[Path(row["onnx"]).stem] for row in here]
        design = arm_design(networks, data_type)
        family = np.array([row["family"].split("-")[0] for row in here])
        ns, nj = _column(here, "mean_ms"), _column(here, "energy_mj")
        time, energy = fit_arm(design, ns, nj, data_type, scale)
        model["data_types"][data_type] = rates_by_kind(ARM_CPU, time[:-1])
        model["energy"][data_type] = rates_by_kind(ARM_CPU, energy[:-1])
        model["input"][data_type] = rounded({"per_element": time[-1], "nj_per_element": energy[-1]})
        errors: dict[str, float] = {}
        for what, values, fitted, held in (("latency", ns, time, 0), ("energy", nj, energy, 1)):
            unseen = np.full(len(here), np.nan)
            for other in [name for name in dict.fromkeys(family) if np.sum(family == name) > 1]:  # of ResNet-50 there is one
                seen = family != other
                unseen[~seen] = design[~seen] @ fit_arm(design[seen], ns[seen], nj[seen], data_type, scale)[held]
            single = np.array([design[case] @ fit_arm(*(np.delete(part, case, 0) for part in (design, ns, nj)), data_type, scale)[held]
                               for case in range(len(here))])  # fmt: skip
            errors |= named(f"{what}_in_sample", error_statistics(design @ fitted, values), ("median",))
            errors |= named(f"{what}_leave_one_out", error_statistics(single, values), ("median", "max", "within_10pct"))
            errors |= named(f"{what}_unseen_network", error_statistics(unseen, values), ("median", "mean", "max"))
            table.append({"profile": name, "point": f"{place} {data_type}", "what": what, "held_out": unseen / values - 1})
        origin = (
            f"mean latency, and mean power x latency, of {len(here)} networks: {MLPERF.format(system)}; graphs written from the published "
            "architectures. Every rate is expected near a physical value and moves as far as the data ask. Unseen network: MobileNet-v1 and "
            "EfficientNet-lite, each predicted from the other families"
        )
        sources.append(source("fitted", origin, [f"cost_model.{part}.{data_type}.*" for part in ("data_types", "energy", "input")], errors))
        spans[data_type] = sizes_of(networks, ("conv", "depthwise", "pointwise", "fully_connected", "pooling", "elementwise", "softmax"))
    power = {place: {"active_mw": {"default": 1e3 * float(np.median([float(row["mean_W"]) for row in rows]))},
                     "idle_mw": 1e3 * float(np.median([float(row["min_W"]) for row in rows]))}}  # fmt: skip
    sources += [
        source("assumed", "the size of the second-level cache, above which activations are counted as far", ["cost_model.cache_kib"]),
        source("measured", f"median of the mean wall power inside the measured window: {MLPERF.format(system)}", ["operating_points.*.active_mw.*"]),
        source("measured", f"median over logs of the smallest sample of spl.txt: {MLPERF.format(system)}", ["operating_points.*.idle_mw"]),
    ]
    return assemble(name, model, power, sources, fitted_over=spans), table


def arm_design(networks: Sequence[Network], data_type: str) -> np.ndarray:
    """What one unit of each of `ARM_CPU` and of the input's rate costs each network: [networks, 9]."""
    design = design_matrix([network.layers for network in networks], ARM_CPU, ITEM_BYTES[data_type], CACHE_KIB)
    elements = [sum(prod(shape) for shape in network.inputs.values()) for network in networks]
    return np.column_stack([design, elements])


def fit_arm(design: np.ndarray, ns: np.ndarray, nj: np.ndarray, data_type: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rates of `arm_design` in ns and in nJ; energies are expected near time multiplied by the mean power."""
    expected, spread = np.array([EXPECTED[data_type][name] for name in (*(term.name for term in ARM_CPU), "input")]).T
    calls = [term.name for term in ARM_CPU].index("calls")
    time = fit_expected(design, ns, np.where(np.arange(len(expected)) == calls, expected, expected * scale), spread)
    return time, fit_expected(design, nj, time * np.mean(nj / ns), [TIED] * len(time))


def _pi5(rows: list[dict], graphs: dict[str, Network], framework: str) -> tuple[dict, list[dict]]:
    rows = sorted((row for row in rows if row["framework"] == framework), key=lambda row: int(row["arch_idx"]))
    name = f"raspberry-pi-5-{PI5_RUNTIMES[framework]}"
    held = np.zeros(len(rows), bool)
    held[np.random.default_rng(SEED).permutation(len(rows))[:HELD_OUT]] = True
    networks = [graphs[row["arch_idx"]] for row in rows]
    design = design_matrix([network.layers for network in networks], RASPBERRY_PI_5, ITEM_BYTES["fp32"])
    fits, errors, table = {}, {}, []
    for what, column in (("latency", "lat_ms_median"), ("energy", "energy_mj")):
        values = _column(rows, column)
        coefficients = fit_relative(design[~held], values[~held])
        predicted = design[held] @ coefficients
        fits[what] = rates_by_kind(RASPBERRY_PI_5, coefficients)
        errors |= named(f"{what}_held_out", error_statistics(predicted, values[held]), ("median", "max", "within_10pct"))
        table.append({"profile": name, "point": "default", "what": what, "held_out": predicted / values[held] - 1})
    active = 1e3 * float(np.median(_column(rows, "energy_mj") / _column(rows, "lat_ms_median")))
    readme = "idle power of the core rail in the source's stability run: README of roldebijvank/HW-NAS-Bench-360 at a9b243e"
    sources = [
        source("fitted", f"lat_ms_median and energy_mj of 300 networks: {NB360}; errors on 100 others (seed {SEED})", ["cost_model.*"], errors),
        source("measured", f"median of energy_mj / lat_ms_median: {NB360}", ["operating_points.*.active_mw.*"]),
        source("measured", readme, ["operating_points.*.idle_mw"]),
    ]
    model = {"model": "linear", "time_unit": "ns", "data_types": {"fp32": fits["latency"]}, "energy": {"fp32": fits["energy"]}}
    spans = {"fp32": sizes_of(networks, ("conv", "pointwise", "pooling", "elementwise"))}
    power = {"default": {"active_mw": {"default": active}, "idle_mw": 755.0}}
    return assemble(name, model, power, sources, fitted_over=spans, graph_passes=PI5_PASSES[framework]), table
