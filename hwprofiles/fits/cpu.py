"""Documents of the Raspberry Pi profiles: many networks on one processor, so an ordinary robust regression per profile."""

from __future__ import annotations

import csv
import re
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eesim.hardware.fit import Term, design_matrix, error_statistics, fit_relative, leave_one_out, rates_by_kind
from eesim.network.layer import ITEM_BYTES, KINDS, Layer
from eesim.network.network import Network
from eesim.network.onnx_import import import_onnx
from fits.document import assemble, named, source

MLPERF = "mlcommons/inference_results_v2.0 at 425a0d3, open/Krai/results/rpi4-tflite-v2.7.1-ruy/*/singlestream/performance/run_1"
NB360 = "roldebijvank/HW-NAS-Bench-360 at a9b243e, results/dataset.parquet, device pi5, task cifar100"
_DENSE = ("fully_connected", "matmul", "recurrent")

RASPBERRY_PI_4 = (
    Term("arithmetic", {kind: {"per_mac": 1.0} for kind in ("conv", "pointwise", *_DENSE)}),
    Term("bytes", {kind: {"per_byte": 1.0} for kind in KINDS}),
    Term("patches", {"conv": {"per_byte": 1.0}}),
    Term("depthwise", {"depthwise": {"per_mac": 1.0}}),
    Term("calls", {kind: {"per_call": 1.0} for kind in KINDS}),
)
"""Convolutions pay more per byte than other layers: patches are gathered into a matrix first."""

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

HELD_OUT, SEED = 100, 20261120
"""Of the 400 networks on the Raspberry Pi 5, the number held out and the seed that chooses them."""


def documents(folder: Path) -> list[tuple[dict, list[dict]]]:
    """The four profiles with their rows of the error table. `folder` holds `rpi4_mlperf` and `nb201_pi5`."""
    pi4, pi5 = folder / "rpi4_mlperf", folder / "nb201_pi5"
    graphs4, graphs5 = _graphs(pi4 / "onnx.zip"), _graphs(pi5 / "onnx.zip")
    topology = {row["arch_idx"]: row["edge_status"] for row in _rows(pi5 / "topology.csv")}
    return [
        *(_pi4(_rows(pi4 / "calibration.csv"), graphs4, data_type) for data_type in ("fp32", "uint8")),
        *(_pi5(_rows(pi5 / "calibration.csv"), graphs5, topology, runtime) for runtime in ("onnx", "litert")),
    ]


def _rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _graphs(archive: Path) -> dict[str, Network]:
    """Weightless ONNX graphs of a zip, by file name without suffix."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".onnx"))
        file.extractall(folder, names)
        return {Path(name).stem: import_onnx(Path(folder) / name) for name in names}


def _column(rows: Sequence[dict], name: str) -> np.ndarray:
    """Milliseconds or millijoules as nanoseconds or nanojoules."""
    return np.array([float(row[name]) for row in rows]) * 1e6


def _pi4(rows: list[dict], graphs: dict[str, Network], data_type: str) -> tuple[dict, list[dict]]:
    rows = [row for row in rows if row["system"] == "rpi4-tflite-v2.7.1-ruy" and row["precision"] == data_type]
    name = f"raspberry-pi-4-tflite-{data_type}"
    design = design_matrix([graphs[Path(row["onnx"]).stem].layers for row in rows], RASPBERRY_PI_4, ITEM_BYTES[data_type])
    lite = np.array([row["family"].startswith("efficientnet") for row in rows])
    fits, errors, table = {}, {}, []
    for what, column in (("latency", "mean_ms"), ("energy", "energy_mj")):
        values = _column(rows, column)
        coefficients = fit_relative(design, values)
        held = leave_one_out(design, values, fit_relative)
        other = design[lite] @ fit_relative(design[~lite], values[~lite])
        fits[what] = rates_by_kind(RASPBERRY_PI_4, coefficients)
        errors |= named(f"{what}_in_sample", error_statistics(design @ coefficients, values), ("median",))
        errors |= named(f"{what}_leave_one_out", error_statistics(held, values), ("median", "max", "within_10pct"))
        errors |= named(f"{what}_efficientnet_from_the_others", error_statistics(other, values[lite]), ("median",))
        table.append({"profile": name, "point": "1.8GHz", "what": what, "held_out": held / values - 1})
    active, idle = (1e3 * float(np.median([float(row[column]) for row in rows])) for column in ("mean_W", "min_W"))
    origin = f"mean latency, and mean power x latency, of {len(rows)} networks: {MLPERF}; graphs written from the published architectures"
    sources = [
        source("fitted", origin, ["cost_model.*"], errors),
        source("measured", f"median of the mean wall power inside the measured window: {MLPERF}", ["operating_points.*.active_mw.*"]),
        source("measured", f"median over logs of the smallest sample of spl.txt: {MLPERF}", ["operating_points.*.idle_mw"]),
    ]
    return assemble(name, _cost_model(data_type, fits), {"1.8GHz": {"active_mw": {"default": active}, "idle_mw": idle}}, sources), table


def _pi5(rows: list[dict], graphs: dict[str, Network], topology: dict[str, str], runtime: str) -> tuple[dict, list[dict]]:
    rows = sorted((row for row in rows if row["framework"] == runtime), key=lambda row: int(row["arch_idx"]))
    name = {"onnx": "raspberry-pi-5-onnxruntime", "litert": "raspberry-pi-5-litert"}[runtime]
    held = np.zeros(len(rows), bool)
    held[np.random.default_rng(SEED).permutation(len(rows))[:HELD_OUT]] = True
    networks = [row["arch_idx"] for row in rows]
    layers = [executed(graphs[network].layers, topology[network]) if runtime == "litert" else graphs[network].layers for network in networks]
    design = design_matrix(layers, RASPBERRY_PI_5, ITEM_BYTES["fp32"])
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
    return assemble(name, _cost_model("fp32", fits), {"default": {"active_mw": {"default": active}, "idle_mw": 755.0}}, sources), table


def _cost_model(data_type: str, fits: dict[str, dict]) -> dict:
    return {"model": "linear", "time_unit": "ns", "data_types": {data_type: fits["latency"]}, "energy": {data_type: fits["energy"]}}


def executed(layers: Iterable[Layer], edge_status: str) -> list[Layer]:
    """What LiteRT executes of a NAS-Bench-201 export: no `none` edges (N), no dead edges (D), no pooling of zeros (Z), live sums only.

    `edge_status` has one letter for each of the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3; layers are named `s<stage>c<cell>.e<edge>.<operator>`
    and `s<stage>c<cell>.n<node>.add<index>`.
    """
    status = dict(zip(("01", "02", "12", "03", "13", "23"), edge_status, strict=True))
    kept = []
    for layer in layers:
        edge, total = re.match(r"s\dc\d\.e(\d\d)\.(\w+)", layer.name), re.match(r"s\dc\d\.n(\d)\.add(\d)", layer.name)
        if edge and (status[edge[1]] in "ND" or (status[edge[1]] == "Z" and edge[2] == "pool")):
            continue
        if total and int(total[2]) >= sum(letter == "L" for name, letter in status.items() if name[1] == total[1]):
            continue
        kept.append(layer)
    return kept
