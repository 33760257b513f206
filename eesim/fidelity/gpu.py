"""Documents of the profiles of graphics processors: kernels fitted to tables of matrix products and convolutions.

H200, A100 and L40S rest on tables of products (the H200's with power), T4 on DeepBench's products and convolutions. Xavier NX and AGX Orin
were never measured by layer: theirs are T4's kernels, scaled to the time of ResNet-50.
``EESIM_RAW_DATA=<folder> python -m eesim.fidelity.gpu`` writes these profiles alone.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from eesim.bundled import data_folder
from eesim.errors import EesimError
from eesim.fidelity.document import assemble, named, rounded, source, write
from eesim.hardware.fit import error_statistics, significant
from eesim.hardware.models.gpu import Energy, FewRows, Host, Kernels, Parameters, power_mw, price_batch, product, product_times
from eesim.network.layer import KINDS, Layer
from eesim.network.network import Network
from eesim.network.onnx_import import import_onnx

ORIGIN = "ai-dynamo/aiconfigurator at 095f58a, aic-core/src/aiconfigurator_core/systems/data/{}/gemm_perf.parquet"
DEEPBENCH = "baidu-research/DeepBench at da81ba7, results/{inference,train}/DeepBench_NV_T4.xlsx (CUDA 10.1, cuDNN 7.6)"
PRODUCTS = ("fully_connected", "matmul", "recurrent")
CONVOLUTIONS = ("conv", "pointwise")
FREE = ("launch_ns", "gops", "dram_gbps", "l2_bytes", "l2_gbps", "k_ns", "sm_gbps", "block_ns", "split_ns", "quantisation")
HELD_OUT_SHARE, SEED, ROWS = 0.25, 0, 2500
"""Of the weight shapes (n, k), those held out with all their rows; seed of every draw; rows of a table that a fit looks at."""
EDGE_SHARE = 1 / 3
"""Of those rows, the part drawn from products as small as an edge network's (`_edge`), of which the tables of language models hold few."""
STEADY_NS = 1e5
"""NVML's power is an average over 100 ms: shorter kernels leave gaps in it that the table does not tell apart."""
CAP_MW = 692e3
"""What NVML reports of an H200 at its 700 W limit."""
PLAIN_SHARE = 0.25
"""Of the datasheet's fp32 rate, what layers off the matrix units are assumed to reach."""


@dataclass(frozen=True)
class Type:
    """One data type of a table: its name there, bytes of an input or weight and of an output, and where its fit starts."""

    name: str
    item: int
    output: int
    start: dict[str, float]
    host: bool = False
    few_rows: int = 0


@dataclass(frozen=True)
class Gpu:
    """Facts about one device, and where its table is. `plain_gops`: fp32 on the ordinary units; `start` holds for all data types."""

    multiprocessors: int
    plain_gops: float
    dram_gbps: float
    start: dict[str, float]
    types: dict[str, Type]
    file: str = ""
    table: str = ""


_COMMON = {"k_ns": 1.5, "sm_gbps": 60.0, "block_ns": 500.0, "split_ns": 1500.0, "quantisation": 0.5}
TABLES = {
    "h200": Gpu(
        132, 67e3, 4800, {"launch_ns": 2100, "gops": 7.5e5, "dram_gbps": 4000, "l2_bytes": 4e7, "l2_gbps": 6000, **_COMMON},
        {"bf16": Type("bfloat16", 2, 2, {}), "fp8": Type("fp8_block", 1, 2, {"gops": 1.35e6, "launch_ns": 5000}, host=True)},
        "h200_sxm_vllm_0.22.0_gemm_perf.parquet", "h200_sxm/gemm/vllm/0.22.0",
    ),
    "a100": Gpu(
        108, 19.5e3, 2039, {"launch_ns": 2500, "gops": 2.7e5, "dram_gbps": 1700, "l2_bytes": 3e7, "l2_gbps": 3500, **_COMMON},
        {"bf16": Type("bfloat16", 2, 2, {}), "int8": Type("sq", 1, 2, {"gops": 4.9e5, "launch_ns": 6500}, few_rows=4)},
        "a100_sxm_trtllm_1.0.0_gemm_perf.parquet", "a100_sxm/gemm/trtllm/1.0.0",
    ),
    "l40s": Gpu(
        142, 91.6e3, 864, {"launch_ns": 1800, "gops": 2.8e5, "dram_gbps": 780, "l2_bytes": 1.4e7, "l2_gbps": 3000, **_COMMON},
        {
            "bf16": Type("bfloat16", 2, 2, {}),
            "fp8": Type("fp8", 1, 2, {"gops": 5e5, "launch_ns": 10500}),
            "int8": Type("sq", 1, 2, {"gops": 5e5, "launch_ns": 3500}, few_rows=4),
        },
        "l40s_trtllm_1.0.0_gemm_perf.parquet", "l40s/gemm/trtllm/1.0.0",
    ),
}  # fmt: skip
STARTS = ({"quantisation": 0.2}, {"block_ns": 2000.0})
"""Changes to where a fit to a table starts: it ends in different places, and the errors of the rows it saw choose."""
_TURING = {**_COMMON, "dram_gbps": 250, "l2_bytes": 4e6, "l2_gbps": 800, "sm_gbps": 20.0, "block_ns": 1500.0}
T4 = Gpu(
    40, 8.14e3, 320, _TURING,
    {
        "fp16": Type("fp16_acc32", 2, 2, {"gops": 4e4, "launch_ns": 8000}),
        "fp32": Type("fp32", 4, 4, {"gops": 6e3, "launch_ns": 12000}),
        "int8": Type("int8", 1, 4, {"gops": 8e4, "launch_ns": 5000}),
    },
)  # fmt: skip
_WIDE = {"split_ns": None, "tiles": [[128, 32], [128, 64], [128, 128]], "channel_step": 32}
CONV_FORMS = {
    "fp16": {**_WIDE, "gops": 4.2e4, "launch_ns": 14000, "k_ns": 5.0, "sm_gbps": 30.0},
    "fp32": {"tiles": [[32, 32], [32, 64], [64, 64], [64, 128], [128, 128]], "channel_step": 1, "winograd": 1.6, "gops": 5500, "launch_ns": 20000,
             "k_ns": 5.0, "sm_gbps": 30.0},
    "int8": {**_WIDE, "gops": 9.4e4, "launch_ns": 14000, "k_ns": 5.0, "sm_gbps": 30.0},
}  # fmt: skip
"""How cuDNN 7.6 convolves on T4, and where its fit starts. Tiles, channel step, no split and the Winograd gain were chosen in sight of all rows."""
T4_INT8_GOPS = 130e3
"""Peak of T4's matrix units."""
ENGINE_SHARE = 0.25
"""Of the fixed time of a call through cuDNN, what a compiled engine pays for a layer; assumed."""
FOLDS = {"gemm": 4, "conv": 5}

MLPERF = "mlcommons/inference_results_v2.0 at e1f8956, closed/NVIDIA/results/{}/resnet50/{{SingleStream,MultiStream}}/performance/run_1"


@dataclass(frozen=True)
class Jetson:
    """A module with T4's kind of kernels. `int8_gops`: dense peak of its GPU, assumed; `single_ns`, `eight_ns`: mean latency of ResNet-50 in int8
    for one image and for eight at once; `saving_ns`, `saving_mw`: latency and wall power of one image in the power-saving mode MaxQ."""

    multiprocessors: int
    dram_gbps: float
    l2_bytes: float
    plain_gops: float
    int8_gops: float
    single_ns: float
    eight_ns: float
    saving_ns: float
    saving_mw: float
    system: str


JETSONS = {
    "xavier-nx": Jetson(6, 51.2, 512 * 1024, 844, 12.6e3, 2_455_711, 10_211_581, 3_065_097, 10_500, "Xavier_NX_TRT"),
    "agx-orin": Jetson(16, 204.8, 4096 * 1024, 5_300, 85e3, 691_572, 3_370_446, 911_949, 27_700, "Orin_TRT"),
}


@dataclass(frozen=True)
class Rows:
    """Products as matrices see them, with the bytes they move and their time; `power_mw` where it was measured; `held` took no part in a fit."""

    m: np.ndarray
    n: np.ndarray
    k: np.ndarray
    moved: np.ndarray
    ns: np.ndarray
    held: np.ndarray
    power_mw: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> Rows:
        return Rows(*(None if part is None else part[chosen] for part in self.__dict__.values()))


def documents(folder: Path) -> list[tuple[dict, list[dict]]]:
    """The profiles with their rows of the error table. `folder` holds the raw data's `gpu`; beside it lies `rpi4_mlperf` with ResNet-50's graph."""
    t4 = _t4(folder / "deepbench")
    resnet = _graph(folder.parent / "rpi4_mlperf" / "onnx.zip", "onnx/resnet50.onnx")
    return [*(_from_table(name, folder) for name in TABLES), t4, *((_jetson(name, t4[0]["cost_model"], resnet), []) for name in JETSONS)]


def _graph(archive: Path, name: str) -> Network:
    """One weightless ONNX graph of a zip."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as file:
        return import_onnx(file.extract(name, folder))


def read_table(name: str, data_type: str, folder: Path) -> Rows:
    """The table of products of one device and data type."""
    import pyarrow.parquet as parquet

    given = TABLES[name].types[data_type]
    names = ["gemm_dtype", "m", "n", "k", "latency", *(["power"] if name == "h200" else [])]
    table = parquet.read_table(folder / TABLES[name].file, columns=names, filters=[("gemm_dtype", "==", given.name)])
    m, n, k = (table[axis].to_numpy().astype(float) for axis in "mnk")
    pairs = n.astype(np.int64) * 1_000_000 + k.astype(np.int64)
    shapes = np.unique(pairs)
    held = np.isin(pairs, np.random.default_rng(SEED).permutation(shapes)[: int(len(shapes) * HELD_OUT_SHARE)])
    moved = given.item * (m * k + n * k) + given.output * m * n
    return Rows(m, n, k, moved, table["latency"].to_numpy() * 1e6, held, table["power"].to_numpy() * 1e3 if name == "h200" else None)


def read_deepbench(precision: str, what: str, folder: Path, form: Kernels) -> tuple[Rows, np.ndarray, list[Layer]]:
    """T4's products ('gemm') or convolutions ('conv') of one precision, the group of each (its layer without the batch), and their layers."""
    given = next(given for given in T4.types.values() if given.name == precision)
    with (folder / f"{what}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["device"] == "T4" and row["precision"] == precision]
    layers = [_deepbench_layer(what, {key: int(value) for key, value in row.items() if value.isdigit()}) for row in rows]
    groups = [" ".join(row[key] for key in (("m", "k") if what == "gemm" else ("c", "k", "r", "s", "h", "w", "stride_w"))) for row in rows]
    moved = [given.item * (layer.elements_in + layer.params) + given.output * layer.elements_out for layer in layers]
    shapes = np.array([product(layer, 1, form, given.item, size)[:3] for layer, size in zip(layers, moved, strict=True)])
    ns = np.array([float(row["time_ms" if what == "gemm" else "fwd_ms"]) for row in rows]) * 1e6
    return Rows(*shapes.T, np.array(moved, float), ns, np.zeros(len(ns), bool)), np.unique(groups, return_inverse=True)[1], layers


def times(rows: Rows, kernels: Kernels, multiprocessors: int, item: int) -> np.ndarray:
    """Predicted nanoseconds of each row."""
    return product_times(rows.m, rows.n, rows.k, rows.moved, kernels, multiprocessors, (item, item)).total


def fit_kernels(
    rows: Rows, starts: Sequence[Kernels], multiprocessors: int, item: int, highest: dict[str, float], passes: int = 3, edge_share: float = EDGE_SHARE
) -> Kernels:
    """The numbers of a family of kernels: of the descents from each start, the one with the least errors on the rows it looks at.

    highest : the most that some numbers may be; edge_share : see `EDGE_SHARE`
    """
    rows = rows[_drawn(rows, edge_share)]
    found = [_descend(rows, start, multiprocessors, item, highest, passes) for start in starts]
    return min(found, key=lambda one: one[0])[1]


def _descend(rows: Rows, start: Kernels, multiprocessors: int, item: int, highest: dict[str, float], passes: int) -> tuple[float, Kernels]:
    """Sum of errors and numbers. Errors are logarithmic, those beyond 10 % count by their size, and a number leaves its start only if the rows ask
    for it. Ceilings make the form jump, so a search along each axis follows the steps of least squares."""
    from scipy.optimize import least_squares

    names = [name for name in FREE if getattr(start, name) is not None]
    target, knee = np.log(rows.ns), 0.1
    first = np.array([_stretched(name, getattr(start, name)) for name in names])
    low, high = first - 4.0, np.minimum(first + 4.0, [np.log(highest.get(name, np.inf)) for name in names])
    low[names.index("quantisation")], high[names.index("quantisation")] = -5.0, 5.0
    first = np.minimum(first, high - 1e-3)

    def built(z: np.ndarray) -> Kernels:
        return start.model_copy(update={name: _natural(name, value) for name, value in zip(names, z, strict=True)})

    def residuals(z: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(times(rows, built(z), multiprocessors, item)) - target, 0.3 * (z - first)])

    def loss(z: np.ndarray) -> float:
        return float(np.sum(np.sqrt(1 + (residuals(z) / knee) ** 2)))

    best, step = first, np.full(len(names), 0.3)
    least = loss(best)
    for _ in range(passes):
        found = least_squares(residuals, best, bounds=(low, high), loss="soft_l1", f_scale=knee, diff_step=1e-2, max_nfev=10).x
        if (value := loss(found)) < least:
            best, least = found, value
        for axis in [*range(len(names))] * 2:
            for sign in (1, -1):
                other = best.copy()
                other[axis] = np.clip(other[axis] + sign * step[axis], low[axis], high[axis])
                if (value := loss(other)) < least:
                    best, least, step[axis] = other, value, step[axis] * 1.3
                    break
            else:
                step[axis] /= 2
    never = "split_ns" in names and best[names.index("split_ns")] > first[names.index("split_ns")] + 3.9  # at its bound: k is not split
    return least, built(best).model_copy(update={"split_ns": None} if never else {})


def _edge(rows: Rows) -> np.ndarray:
    """Which products are as small as those of an edge network."""
    return (rows.m <= 64) & (rows.n <= 2048) & (rows.k <= 2048)


def _drawn(rows: Rows, edge_share: float) -> np.ndarray:
    """Places of the rows that a fit looks at: all where there are few."""
    if len(rows.ns) <= ROWS:
        return np.arange(len(rows.ns))
    random, edge = np.random.default_rng(SEED), np.flatnonzero(_edge(rows))
    small = random.permutation(edge)[: round(ROWS * edge_share)]
    return np.concatenate([small, random.permutation(len(rows.ns))[: ROWS - len(small)]])


def _stretched(name: str, value: float) -> float:
    """A number as the fit moves it: its logarithm, or the log-odds of a share."""
    return float(np.log(value / (1 - value)) if name == "quantisation" else np.log(value))


def _natural(name: str, value: float) -> float:
    """The number itself, with four digits."""
    return significant(float(1 / (1 + np.exp(-value)) if name == "quantisation" else np.exp(value)))


def fit_table(name: str, data_type: str, rows: Rows) -> Kernels:
    """Kernels of one data type of a table, from the rows that are not held out."""
    gpu, given = TABLES[name], TABLES[name].types[data_type]
    start = Kernels(**{**gpu.start, **given.start}, output_bytes=given.output)
    starts = [start.model_copy(update=changes) for changes in STARTS]
    seen, highest = rows[~rows.held], {"dram_gbps": gpu.dram_gbps}
    if not given.host:
        kernels = fit_kernels(seen, starts, gpu.multiprocessors, given.item, highest)
    else:
        host = _host(seen)
        issued = start.model_copy(update={"host": host})
        free = seen[seen.ns > 1.15 * times(_tiny(seen), issued, gpu.multiprocessors, given.item)]
        kernels = fit_kernels(free, starts, gpu.multiprocessors, given.item, highest, edge_share=0).model_copy(update={"host": host})
    if given.few_rows:
        kernels = kernels.model_copy(update={"few_rows": _fit_few_rows(seen[seen.m <= given.few_rows], kernels, given, gpu)})
    return kernels


def _tiny(rows: Rows) -> Rows:
    """Rows of the same m that compute and move next to nothing: what is left is the host's time."""
    one = np.ones(len(rows.m))
    return replace(rows, n=one, k=one, moved=one)


def _host(rows: Rows) -> Host:
    """Median time of small products, by m: what the framework needs to issue one."""
    small = rows[(rows.n * rows.k < 2048**2) & (rows.m < 2048)]
    few, aligned = small.m < 32, small.m % 4 == 0
    medians = {"few_rows_ns": few, "aligned_ns": ~few & aligned, "other_ns": ~few & ~aligned}
    return Host(**{name: significant(float(np.median(small.ns[chosen]))) for name, chosen in medians.items()})


def _fit_few_rows(rows: Rows, kernels: Kernels, given: Type, gpu: Gpu) -> FewRows:
    """The kernel for few rows; logarithmic errors, outliers count by their size."""
    from scipy.optimize import minimize

    def built(z: np.ndarray) -> FewRows:
        values = zip(("launch_ns", "k_ns", "output_ns", "l2_gbps"), np.exp(z), strict=True)
        return FewRows(rows=given.few_rows, **{name: significant(float(value)) for name, value in values})

    def loss(z: np.ndarray) -> float:
        predicted = times(rows, kernels.model_copy(update={"few_rows": built(z)}), gpu.multiprocessors, given.item)
        return float(np.sum(np.sqrt(1 + (np.log(predicted / rows.ns) / 0.1) ** 2)))

    starts = ([5000, 0.2, 0.3, 2000.0], [4000, 0.1, 0.1, 1000.0])
    found = [minimize(loss, np.log(start), method="Nelder-Mead", options={"maxiter": 250}) for start in starts]
    return built(min(found, key=lambda one: one.fun).x)


def fit_energy(rows: Rows, macs: np.ndarray, ns: np.ndarray) -> Energy:
    """Power of steady products. Rows at the limit say little, so most of them are left out; the static power is the smallest of the table."""
    from scipy.optimize import least_squares

    draw = np.random.default_rng(SEED).random(len(rows.ns))
    chosen = (rows.ns >= STEADY_NS) & ~rows.held & ((rows.power_mw < 0.98 * CAP_MW) | (draw < 0.3))
    static = significant(float(rows.power_mw.min()))

    def built(z: np.ndarray) -> Energy:
        return Energy.model_construct(static_mw=static, busy_mw=z[0], pj_per_mac=z[1], pj_per_byte=z[2], cap_mw=CAP_MW)

    def residuals(z: np.ndarray) -> np.ndarray:
        return np.log(power_mw(built(z), ns[chosen], macs[chosen], rows.moved[chosen]) / rows.power_mw[chosen])

    bounds = ([0, 0, 0], [300e3, 3, 200])
    found = least_squares(residuals, [50e3, 0.6, 50], bounds=bounds, x_scale=[5e4, 0.5, 50], loss="soft_l1", f_scale=0.1).x
    return Energy(**rounded(built(found).model_dump()))


def held_out_errors(rows: Rows, kernels: Kernels, multiprocessors: int, item: int) -> dict[str, float]:
    """Errors on the held-out rows of a table; where a host is slow, of those that the device decides, and of all beside them."""
    rows = rows[rows.held]
    predicted = times(rows, kernels, multiprocessors, item)
    every, case = np.ones(len(rows.ns), bool), "latency_held_out"
    errors: dict[str, float] = {}
    if kernels.host is not None:
        errors = named("latency_with_host", error_statistics(predicted, rows.ns), ("median", "within_10pct"))
        every = rows.ns > 1.15 * times(_tiny(rows), kernels, multiprocessors, item)
    errors = named(case, error_statistics(predicted[every], rows.ns[every]), ("median", "max", "within_10pct")) | errors
    errors[f"{case}_p90"] = float(np.quantile(np.abs(predicted / rows.ns - 1)[every], 0.9))
    for size, chosen in (("small", rows.m <= 64), ("large", rows.m >= 1024)):
        errors |= named(f"{case}_{size}", error_statistics(predicted[chosen & every], rows.ns[chosen & every]), ("median",))
    if kernels.host is None:
        errors |= named(f"{case}_edge", error_statistics(predicted[_edge(rows)], rows.ns[_edge(rows)]), ("median",))
    return errors


def _from_table(name: str, folder: Path) -> tuple[dict, list[dict]]:
    gpu = TABLES[name]
    model = {"model": "gpu", "multiprocessors": gpu.multiprocessors, "kernels": {}, "data_types": {}}
    sources, table, spans, energies = [_facts()], [], {}, {}
    for data_type, given in gpu.types.items():
        rows = read_table(name, data_type, folder)
        kernels = fit_table(name, data_type, rows)
        errors = held_out_errors(rows, kernels, gpu.multiprocessors, given.item)
        predicted = times(rows, kernels, gpu.multiprocessors, given.item)
        table.append({"profile": name, "point": data_type, "what": "latency", "held_out": (predicted / rows.ns - 1)[rows.held]})
        covers = [f"cost_model.kernels.{data_type}.*", *(f"cost_model.data_types.{data_type}.{kind}.*" for kind in ("fully_connected", "matmul"))]
        if rows.power_mw is not None:
            macs = rows.m * rows.n * rows.k
            energies[data_type] = energy = fit_energy(rows, macs, rows.ns)
            ratio = power_mw(energy, predicted, macs, rows.moved) * predicted / (rows.power_mw * rows.ns)
            for case, chosen in (("steady", rows.ns >= STEADY_NS), ("short", rows.ns < STEADY_NS)):
                found = ratio[chosen & rows.held]
                errors |= named(f"energy_held_out_{case}", error_statistics(found, np.ones(len(found))), ("median", "max", "within_10pct"))
                table.append({"profile": name, "point": data_type, "what": f"energy {case}", "held_out": found - 1})
            covers.append(f"cost_model.energy.{data_type}.*")
        model["kernels"][data_type] = {"gemm": _written(kernels)}
        model["data_types"][data_type] = _kinds(gpu.plain_gops)
        spans[data_type] = _spans(rows)
        what = f"latency{' and power' if rows.power_mw is not None else ''} of {given.name}: {ORIGIN.format(gpu.table)}"
        sources.append(source("fitted", f"{what}; {_split_words(rows, kernels)}", covers, errors))
    if energies:
        model["energy"] = {data_type: energy.model_dump() for data_type, energy in energies.items()}
    static = min((energy.static_mw for energy in energies.values()), default=None)
    if energies:
        lowest = "smallest power in the table, while trivial kernels repeat. Idle power was not measured and is lower"
        sources.insert(0, source("assumed", lowest, ["operating_points.*"]))
    power = {"default": {"active_mw": None if static is None else {"default": static}, "idle_mw": static}}
    return assemble(name, model, power, sources, fitted_over=spans), table


def _split_words(rows: Rows, kernels: Kernels) -> str:
    held = "a quarter of the weight shapes (n, k) held out with all their m; small is m <= 64, large m >= 1024, edge m <= 64 and n, k <= 2048"
    if rows.power_mw is not None:
        held += "; steady at least 0.1 ms, short less"
    return held + ("; errors of the rows that the device decides (above 1.15 times the host's time), with_host of all" if kernels.host else "")


def _facts() -> dict:
    return source("datasheet", "streaming multiprocessors of the device: NVIDIA", ["cost_model.multiprocessors"])


def _written(kernels: Kernels) -> dict:
    """A family of kernels as the profile holds it."""
    return kernels.model_dump(exclude_defaults=True)


def _kinds(plain_gops: float) -> dict[str, dict]:
    """Rates of every kind: products and convolutions by their kernels, the rest on the ordinary units. One launch each."""
    plain = {"gops": significant(plain_gops * PLAIN_SHARE)}
    return {kind: {"launches": 1.0} | ({} if kind in (*PRODUCTS, *CONVOLUTIONS) else plain) for kind in KINDS}


def _spans(rows: Rows) -> dict[str, dict[str, list[int]]]:
    """Sizes that a table of products has seen."""
    macs, elements = rows.m * rows.n * rows.k, rows.m * rows.k + rows.n * rows.k + rows.m * rows.n
    span = {"macs": [int(macs.min()), int(macs.max())], "elements": [int(elements.min()), int(elements.max())]}
    return dict.fromkeys(("fully_connected", "matmul"), span)


def _deepbench_layer(what: str, row: dict[str, int]) -> Layer:
    """A row of DeepBench as a layer whose shapes hold the whole batch."""
    if what == "gemm":  # its n is the batch, its m the outputs
        m, n, k = row["n"], row["m"], row["k"]
        return Layer("", "Gemm", "fully_connected", (m, k), (m, n), m * n * k, n * k, m * k, m * n)
    high, wide = ((row[size] + 2 * row[f"pad_{size}"] - row[kernel]) // row[f"stride_{size}"] + 1 for size, kernel in (("h", "r"), ("w", "s")))
    kernel, kind = (row["r"], row["s"]), "pointwise" if row["r"] * row["s"] == 1 else "conv"
    out, taken = (row["n"], row["k"], high, wide), (row["n"], row["c"], row["h"], row["w"])
    macs, params = prod(out) * row["c"] * prod(kernel), row["k"] * row["c"] * prod(kernel)
    layer = Layer("", "Conv", kind, taken, (1, row["k"], row["n"] * high, wide), macs, params, prod(taken), prod(out), kernel)
    return replace(layer, stride=(row["stride_h"], row["stride_w"]))


def _t4(folder: Path) -> tuple[dict, list[dict]]:
    model = {"model": "gpu", "multiprocessors": T4.multiprocessors, "kernels": {}, "data_types": {}}
    sources, table, spans = [_facts()], [], {}
    for data_type, given in T4.types.items():
        model["kernels"][data_type], spans[data_type] = {}, {}
        for family, form, kinds in (("gemm", {}, ("fully_connected", "matmul")), ("conv", CONV_FORMS[data_type], CONVOLUTIONS)):
            start = Kernels(**{**T4.start, **given.start, **form}, output_bytes=given.output)
            rows, groups, layers = read_deepbench(given.name, family, folder, start)
            highest = {"dram_gbps": T4.dram_gbps}
            kernels = fit_kernels(rows, [start], T4.multiprocessors, given.item, highest)
            folds = np.random.default_rng(SEED).permutation(groups.max() + 1)[groups] % FOLDS[family]
            unseen = np.zeros(len(rows.ns))
            for fold in range(FOLDS[family]):
                held = folds == fold
                other = fit_kernels(rows[~held], [kernels], T4.multiprocessors, given.item, highest, passes=1)
                unseen[held] = times(rows[held], other, T4.multiprocessors, given.item)
            errors = named("latency_held_out", error_statistics(unseen, rows.ns), ("median", "max", "within_10pct"))
            errors["latency_held_out_p90"] = float(np.quantile(np.abs(unseen / rows.ns - 1), 0.9))
            table.append({"profile": "t4", "point": f"{data_type} {family}", "what": "latency", "held_out": unseen / rows.ns - 1})
            covers = [f"cost_model.kernels.{data_type}.{family}.*", *(f"cost_model.data_types.{data_type}.{kind}.*" for kind in kinds)]
            parts = f"{len(layers)} {'products' if family == 'gemm' else 'convolutions'} of {given.name}"
            origin = f"time of {parts}: {DEEPBENCH}; errors of {FOLDS[family]} folds that leave out whole layers with all their batches"
            if family == "conv":
                origin += ". Tiles, channel step and the gain of Winograd were chosen in sight of all rows, so the errors flatter a little"
            sources.append(source("fitted", origin, covers, errors))
            model["kernels"][data_type][family] = _written(kernels)
            spans[data_type] |= _spans(rows) if family == "gemm" else _spans_of(layers)
        model["data_types"][data_type] = _kinds(T4.plain_gops)
    power = {"default": {"active_mw": None, "idle_mw": None}}
    return assemble("t4", model, power, sources, fitted_over=spans), table


def _spans_of(layers: Sequence[Layer]) -> dict[str, dict[str, list[int]]]:
    """Sizes of the convolutions of each kind."""
    spans = {}
    for kind in CONVOLUTIONS:
        sizes = np.array([(layer.macs, layer.elements) for layer in layers if layer.kind == kind])
        spans[kind] = {name: [int(column.min()), int(column.max())] for name, column in zip(("macs", "elements"), sizes.T, strict=True)}
    return spans


def _jetson(name: str, t4: dict, resnet: Network) -> dict:
    """T4's int8 kernels with the module's multiprocessors, peak, memory and cache, a quarter of the fixed times, and one factor on all rates but
    the memory's: the one with which ResNet-50 takes what was measured for one image."""
    from scipy.optimize import brentq

    facts, base = JETSONS[name], t4["kernels"]["int8"]
    peak = facts.int8_gops / T4_INT8_GOPS

    def built(logarithm: float) -> dict:
        rate, each = float(np.exp(logarithm)), facts.multiprocessors / T4.multiprocessors
        families = {}
        for family, numbers in base.items():
            changed = {
                "gops": min(numbers["gops"] * peak * rate, facts.int8_gops), "sm_gbps": numbers["sm_gbps"] * rate, "k_ns": numbers["k_ns"] / rate,
                "dram_gbps": numbers["dram_gbps"] * facts.dram_gbps / T4.dram_gbps, "l2_bytes": facts.l2_bytes,
                "l2_gbps": numbers["l2_gbps"] * each * rate,
            }  # fmt: skip
            fixed = {key: base["conv"][key] * ENGINE_SHARE for key in ("launch_ns", "block_ns")}
            families[family] = {**{key: value for key, value in numbers.items() if key != "output_bytes"}, **rounded(changed | fixed)}
        kinds = _kinds(facts.plain_gops)
        return {"model": "gpu", "multiprocessors": facts.multiprocessors, "kernels": {"int8": families}, "data_types": {"int8": kinds}}

    def taken(logarithm: float, batch: int) -> float:
        parameters = Parameters(**built(logarithm))
        return sum(price_batch(layer, "int8", parameters, None, batch).ns for layer in resnet.layers)

    found = brentq(lambda logarithm: taken(logarithm, 1) - facts.single_ns, -2, 3, xtol=1e-4)
    origin = (
        f"T4's int8 kernels (see that profile), fixed times a quarter of those of its convolutions, {facts.int8_gops / 1e3:.1f} TOP/s dense "
        f"(assumed) and {facts.dram_gbps} GB/s at T4's efficiency, and one factor ({np.exp(found):.2f}) on all rates but the memory's, with which "
        f"ResNet-50 takes the {facts.single_ns / 1e6:.3f} ms that were measured for one image: {MLPERF.format(facts.system)}. One number sets one "
        f"factor. A check: for eight images at once this gives {taken(found, 8) / 1e6:.2f} ms, {facts.eight_ns / 1e6:.2f} were measured"
    )
    spread = (
        f"wall power that spreads the energy of one image in the power-saving mode MaxQ ({facts.saving_mw / 1e3:.1f} W for "
        f"{facts.saving_ns / 1e6:.3f} ms: {MLPERF.format(facts.system + '_MaxQ')}) over the time it takes here; at higher clocks it is hardly less"
    )
    sources = [_facts(), source("assumed", origin, ["cost_model.*"]), source("assumed", spread, ["operating_points.*"])]
    energy = facts.saving_mw * facts.saving_ns / facts.single_ns
    return assemble(name, built(found), {"default": {"active_mw": {"default": energy}, "idle_mw": None}}, sources)


def main() -> int:
    """Write these profiles alone; exit status 2 with one sentence without the raw data."""
    from eesim.fidelity.build import raw_folder

    try:
        for document, _ in documents(raw_folder() / "gpu"):
            print(write(document, data_folder("hwprofiles")))
    except EesimError as error:
        print(f"eesim.fidelity.gpu: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
