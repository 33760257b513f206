"""Document of the H200 profile: launch, arithmetic and bandwidth from a table of matrix products, power from the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eesim.hardware.fit import error_statistics, fit_relative, significant
from eesim.network.layer import KINDS
from eesim.fidelity.document import assemble, named, rounded, source

TABLE = "ai-dynamo/aiconfigurator at 095f58a, aic-core/src/aiconfigurator_core/systems/data/h200_sxm/gemm/vllm/0.22.0/gemm_perf.parquet"
DATA_TYPES = {"bf16": ("bfloat16", 2)}
"""Name in eesim -> name in the table, bytes of one input or weight. The table's `fp8_block` is left out: half of its cases are off by
more than 17 % in this model."""
MEASURED_KINDS = ("fully_connected", "matmul")
HELD_OUT_SHARE, SEED = 0.25, 0
STEADY_NS = 1e5
"""NVML's power is an average over 100 ms: shorter kernels leave gaps in it that the table does not tell apart."""
DEPTHWISE_SHARE = 1 / 32
"""Of the rate of matrix products; assumed, see `devices.yaml`."""


def documents(folder: Path) -> list[tuple[dict, list[dict]]]:
    """The profiles with their rows of the error table. `folder` holds the raw data's `gpu`."""
    return [document(folder)]


def document(folder: Path) -> tuple[dict, list[dict]]:
    """The profile with its rows of the error table. `folder` holds the parquet file."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "h200_sxm_vllm_0.22.0_gemm_perf.parquet", columns=["gemm_dtype", "m", "n", "k", "latency", "power"])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    held = _held_out(columns["n"], columns["k"])
    static_mw = float(columns["power"].min()) * 1e3
    data_types, energy, errors, rows = {}, {}, {}, []
    launch_ns = bandwidth = None
    for data_type, (name, item) in DATA_TYPES.items():
        chosen = columns["gemm_dtype"] == name
        m, n, k = (columns[axis][chosen].astype(float) for axis in "mnk")
        ns, power_mw, test = columns["latency"][chosen] * 1e6, columns["power"][chosen] * 1e3, held[chosen]
        macs, outputs, moved = m * n * k, m * n, item * (m * k + n * k) + 2 * m * n
        launch, gops, half, bandwidth = _fit_time(macs[~test], outputs[~test], moved[~test], ns[~test], bandwidth)
        launch_ns = launch_ns or launch
        predicted = launch + np.maximum(2 * macs / gops * (1 + half / outputs), moved / bandwidth)
        steady, energy_pj = ns >= STEADY_NS, power_mw * ns
        above_pj = np.maximum(power_mw - static_mw, 1.0) * ns
        per_mac, per_byte = fit_relative(np.stack([macs, moved], axis=1)[steady & ~test], above_pj[steady & ~test])
        predicted_pj = static_mw * predicted + per_mac * macs + per_byte * moved
        errors[data_type] = {}
        for case, cases in (("", test), ("_small", test & (m <= 64)), ("_large", test & (m >= 1024))):
            errors[data_type] |= named(f"latency_held_out{case}", error_statistics(predicted[cases], ns[cases]), ("median", "within_10pct"))
        cases = test & steady
        errors[data_type] |= named("energy_held_out_steady", error_statistics(predicted_pj[cases], energy_pj[cases]), ("median", "within_10pct"))
        rates = {"gops": significant(gops), "half_outputs": significant(half), "launches": significant(launch / launch_ns, 3)}
        data_types[data_type] = {kind: dict(rates) for kind in KINDS}
        data_types[data_type]["depthwise"]["gops"] = significant(gops * DEPTHWISE_SHARE)
        energy[data_type] = rounded({"static_mw": static_mw, "pj_per_mac": per_mac, "pj_per_byte": per_byte})
        rows.append({"profile": "h200", "point": data_type, "what": "latency", "held_out": predicted[test] / ns[test] - 1})
        rows.append({"profile": "h200", "point": data_type, "what": "energy", "held_out": predicted_pj[cases] / energy_pj[cases] - 1})
    cost_model = {
        "model": "roofline",
        "launch_ns": significant(launch_ns),
        "bandwidth_gbps": significant(bandwidth),
        "data_types": data_types,
        "energy": energy,
    }
    power = {"default": {"active_mw": {"default": static_mw}, "idle_mw": static_mw}}
    return assemble("h200", cost_model, power, _sources(errors)), rows


def _held_out(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """A quarter of the weight shapes (n, k), with all their m."""
    pairs = n.astype(np.int64) * 1_000_000 + k
    shapes = np.unique(pairs)
    return np.isin(pairs, np.random.default_rng(SEED).permutation(shapes)[: int(len(shapes) * HELD_OUT_SHARE)])


def _fit_time(macs, outputs, moved, ns, bandwidth: float | None) -> tuple[float, float, float, float]:
    """Launch in ns, rate in 10^9 operations/s, outputs at half that rate, bandwidth in GB/s; logarithmic errors, outliers count linearly."""
    from scipy.optimize import least_squares

    def residuals(z: np.ndarray) -> np.ndarray:
        launch, gops, half = np.exp(z[:3])
        speed = np.exp(z[3]) if bandwidth is None else bandwidth
        return np.log(launch + np.maximum(2 * macs / gops * (1 + half / outputs), moved / speed)) - np.log(ns)

    start = np.log([float(ns.min()), float(np.max(2 * macs / ns)), 1e5, 4000.0][: 4 if bandwidth is None else 3])
    solution = np.exp(least_squares(residuals, start, loss="soft_l1", f_scale=0.1).x)
    return tuple(float(value) for value in (*solution[:3], solution[3] if bandwidth is None else bandwidth))


def _sources(errors: dict[str, dict[str, float]]) -> list[dict]:
    what = "a quarter of the weight shapes (n, k) held out; small is m <= 64, large m >= 1024, steady at least 0.1 ms"
    lowest = "smallest power in the table, while trivial kernels repeat. Idle power was not measured and is lower"
    return [
        source("assumed", lowest, ["operating_points.*", "cost_model.energy.*.static_mw"]),
        *(
            source(
                "fitted",
                f"latency and power of {DATA_TYPES[data_type][0]}: {TABLE}; {what}",
                [*(f"cost_model.data_types.{data_type}.{kind}.*" for kind in MEASURED_KINDS), f"cost_model.energy.{data_type}.*"],
                error,
            )
            for data_type, error in errors.items()
        ),
        source("fitted", f"with the rates of bf16: {TABLE}", ["cost_model.launch_ns", "cost_model.bandwidth_gbps"], errors["bf16"]),
    ]
