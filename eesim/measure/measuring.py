"""`measure_model`: what a network takes on this machine, end to end, layer by layer and exit by exit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eesim.errors import BadInput, unknown
from eesim.files import write_text
from eesim.measure.energy import Energy, find_meter, idle_power, measure_energy
from eesim.measure.machine import Machine, pinned, this_machine
from eesim.measure.onnx_model import DEVICES, Prepared, prepare, session
from eesim.measure.timing import CLOCKS, FEWEST, LONGEST_S, PATIENCE, Repeats, Timing, clock_of, joined, statistics, summary, timed, undisturbed, warm
from eesim.network.layer import ITEM_BYTES, Layer
from eesim.network.network import Network

RUNTIMES = ("onnxruntime", "torch")
SECONDS = 3.0
"""By default measured for so long, warm-up left out."""
ROUNDS = 5
"""Whole network, layers and exits take turns so often, so that a machine that changes meanwhile changes for all of them."""
SHARES = {"whole": 0.4, "layers": 0.35, "exits": 0.25}
UNSTABLE = 0.1
"""Above this drift, or this share of disturbed repeats, a measurement is called doubtful."""
ROWS = ("network", "layer", "latency_ms", "energy_mj")
CALL, INSERTED = "(call)", "(inserted {})"
"""Rows of the layer table that are no layers: the fixed cost of calling the runtime, and nodes that it inserts, by operator."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one network took on this machine.

    name : as it was given: a bundled workload, a folder or a file; file : the model's; network : as imported, None for torch modules
    layers : DataFrame with a row for each layer in order of execution, then the rows that are none (kind 'runtime'): network, layer,
        part ('segment 0', 'head 0'), op, kind, macs, bytes, latency_ms, iqr_ms, repeats, inside. `latency_ms` is free of the overhead of
        profiling, and all rows sum to the latency of the whole network; `inside` names the layer whose node executes this one,
        whose own time is then 0. Empty where the device tells nothing about layers.
    totals : DataFrame with a row for the whole network with all its heads (exit empty) and one for each exit (segments up to it
        and its head, a session each): network, exit, calls (of the runtime; each costs about the layer '(call)'), latency_ms
        (median), middle_ms (mean of the middle half), mean_ms, iqr_ms, min_ms, p95_ms, repeats, disturbed (share), drift,
        left_out, scaled (shares of repeats, see `Timing`), energy_mj, idle_mw
    profiling : how layer times were made: overhead_us that was taken off each profiled node, chain_us that a chain of empty nodes shows,
        profiled_ms (sum as profiled), call_ms, and `scale`, what the times free of overhead were multiplied with so that they
        sum to the whole: near 1, with overheads alike, where all is well
    notes : sentences about what is doubtful or was not measured
    """

    name: str
    file: Path
    runtime: str
    device: str
    threads: int
    clock: str
    cores: list[int]
    machine: Machine
    network: Network | None
    layers: pd.DataFrame
    totals: pd.DataFrame
    data_type: str = "fp32"
    profiling: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def latency_ms(self) -> float:
        """Median latency of the whole network, all heads included."""
        return float(self.totals["latency_ms"].iloc[0])

    @property
    def energy_mj(self) -> float | None:
        """Energy of one inference of the whole network, idle power included; None where it was not measured."""
        value = self.totals["energy_mj"].iloc[0]
        return None if pd.isna(value) else float(value)

    def exit_ms(self) -> list[float]:
        """Median latency of each exit."""
        return self.totals.loc[self.totals["exit"].notna(), "latency_ms"].tolist()

    @property
    def file_name(self) -> str:
        """How tables name the network, such that `eesim calibrate` finds it in a folder: 'a.onnx', or 'ecg-mitbih/network.onnx'."""
        return "/".join(self.file.parts[-2:]) if self.file.stem == "network" else self.file.name

    def rows(self) -> pd.DataFrame:
        """The whole network (layer empty), then its layers: columns network (its `file_name`), layer, latency_ms, energy_mj.

        Layers that take no time since they are executed inside another's node are left out, and so is what is no layer.
        """
        own = self.layers[(self.layers["kind"] != "runtime") & (self.layers["latency_ms"] > 0)]
        found = [("", self.latency_ms, self.energy_mj), *((row.layer, row.latency_ms, None) for row in own.itertuples())]
        return pd.DataFrame([(self.file_name, *row) for row in found], columns=list(ROWS)).astype({"energy_mj": float})

    def record(self) -> dict[str, Any]:
        """Everything as plain data."""
        plain = lambda frame: frame.astype(object).where(frame.notna(), None).to_dict("records")  # noqa: E731
        names = ("runtime", "device", "threads", "clock", "cores", "data_type", "profiling", "notes")
        tables = {"totals": plain(self.totals), "layers": plain(self.layers)}
        return {"network": self.name, "machine": self.machine.record()} | {name: getattr(self, name) for name in names} | tables


def to_csv(measurements: Iterable[Measurement], path: str | Path) -> None:
    """Write the rows of measurements as CSV, columns network, layer, latency_ms, energy_mj, whole or not at all. See `Measurement.rows`."""
    frame = pd.concat([measurement.rows() for measurement in measurements], ignore_index=True)
    write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def measure_model(
    path: str | Path,
    *,
    runtime: str = "onnxruntime",
    device: str = "cpu",
    threads: int = 1,
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    clock: str = "wall",
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Measure a network on this machine: the whole of it, its layers, and each of its exits.

    path : an ONNX file, a bundled workload or its folder; with ``runtime='torch'`` FILE.py:NAME, a function that returns
        `(module, example_inputs)` (its code runs).
    threads : inside one operator; as many of the quietest cores are used, where the system allows to choose.
    warmup : runs before; by default until the time is stable.
    repeats, seconds : of the whole network; without either 3 s together with layers and exits.
    seed : of made-up inputs, and of weights where the file has none.
    clock : 'wall', or 'own', which stands still while other programs have the core, and leaves out what was measured while
        the machine was slower than it can be (see `eesim.measure.yardstick`): for machines that are shared. A machine that grows hot and
        slow under its own load shows its cool speed so. Takes up to PATIENCE times as long and LONGEST_S more.
    progress : called with 1, ROUNDS times.

    Latency with the device 'cuda' is that of a call: inputs go to the device and answers come back.

    Raises BadInput for a model that cannot be run here, and where the runtime or the device is missing.
    """
    _check(runtime, device, threads, warmup, repeats, seconds)
    if clock_of(clock) is not CLOCKS["wall"] and (device != "cpu" or threads > 1):
        raise BadInput("the own clock of a thread sees nothing of other threads and devices; use it with one thread on the cpu", field="clock")
    seconds = SECONDS if repeats is None and seconds is None else seconds
    until = time.perf_counter() + PATIENCE * (seconds or SECONDS) + LONGEST_S
    settings = _Settings(device, int(threads), warmup, repeats, seconds, seed, clock, progress or _nothing, until)
    if runtime == "torch":
        from eesim.measure.torch_model import measure_torch

        return measure_torch(str(path), settings)
    file, final_head = find_onnx(path)
    prepared = prepare(file, final_head=final_head, seed=seed)
    return _measure_onnx(str(path), prepared, final_head, settings)


@dataclass(frozen=True)
class _Settings:
    device: str
    threads: int
    warmup: int | None
    repeats: int | None
    seconds: float | None
    seed: int
    clock: str
    progress: Callable[[int], None]
    until: float

    def block(self, what: str) -> dict[str, Any]:
        """How long or how often `what` is timed in one round, as `timed` takes it."""
        if self.repeats is not None:
            return {"repeats": -(-self.repeats // ROUNDS), **self.way}
        return {"seconds": self.seconds * SHARES[what] / ROUNDS, **self.way}

    @property
    def way(self) -> dict[str, Any]:
        """By which clock `timed` goes, and how long it waits for the machine."""
        return {"clock": self.clock, "until": self.until}


def _nothing(_: int) -> None:
    """No progress is shown."""


def _check(runtime, device, threads, warmup, repeats, seconds) -> None:
    """Raise BadInput for anything out of range."""
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES, field="runtime")
    if device not in DEVICES:
        raise unknown("device", device, DEVICES, field="device")
    for name, value, least in (("threads", threads, 1), ("warmup", warmup, 0), ("repeats", repeats, 1)):
        if value is None and name != "threads":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise BadInput(f"'{value}' must be a whole number of at least {least}", field=name)
    if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < float("inf")):
        raise BadInput(f"'{seconds}' must be a positive number", field="seconds")
    if repeats is not None and seconds is not None:
        raise BadInput("give repeats or seconds, not both", field="repeats")


def find_onnx(path: str | Path) -> tuple[Path, str | None]:
    """The ONNX file of a workload (by name or folder) or the file itself, and where its final head begins, where that is known."""
    from eesim.bundled import workload_names

    given = Path(path)
    if str(path) in workload_names() or (given / "workload.yaml").is_file():
        from eesim.workload import load_workload

        workload = load_workload(path)
        file = workload.folder / (workload.network.onnx or "network.onnx")
        if not file.is_file():
            raise BadInput(f"the workload '{workload.name}' has no ONNX file", file=file)
        return file, workload.network.final_head
    if not given.is_file():
        from eesim.errors import nearest

        close = nearest(str(path), workload_names())
        raise BadInput("no such model" + (f"; did you mean the bundled workload '{close[0]}'?" if close else ""), file=path)
    if given.suffix != ".onnx":
        raise BadInput(f"'{given.suffix}' is not a known kind of model; give an .onnx file (PyTorch: --runtime torch FILE.py:NAME)", file=path)
    return given, None


def _measure_onnx(name: str, prepared: Prepared, final_head: str | None, settings: _Settings) -> Measurement:
    from eesim.measure.staged import StagedNetwork, times_of
    from eesim.network.onnx_import import import_onnx

    network = import_onnx(prepared.path, final_head=final_head)
    sample, device = prepared.example(settings.seed), settings.device
    notes = []
    if prepared.random:
        notes.append(f"the file ships without weights: {prepared.random:,} numbers were drawn at random")
    with pinned(settings.threads) as cores, tempfile.TemporaryDirectory(prefix="eesim-measure-") as folder, undisturbed():
        if not cores:
            notes.append("the process could not be kept on one core")
        whole = session(prepared.model, threads=settings.threads, device=device, file=prepared.path)
        run = lambda: whole.run(prepared.outputs, sample)  # noqa: E731
        staged = StagedNetwork(prepared.path, final_head=final_head, threads=settings.threads, device=device, seed=settings.seed)
        layers = _Layers(prepared, Path(folder), settings, sample) if device == "cpu" else None
        warm(run, settings.warmup)
        chain = _chain_of(staged, sample)
        warm(chain, settings.warmup)
        if layers:
            layers.warm()
        rounds: list[Repeats] = []
        stamped: list[tuple[np.ndarray, Repeats]] = []
        for _ in range(ROUNDS):
            rounds.append(timed(run, **settings.block("whole")))
            if layers:
                layers.round()
            stamped.append(_exit_times(chain, staged, settings))
            settings.progress(1)
        meter = find_meter(device)
        idle = idle_power(meter)
        energies = [measure_energy(meter, run, idle)]
        for exit in range(staged.exits):
            energies.append(measure_energy(meter, lambda exit=exit: staged.run(sample, exit, every_head=False), idle))
        total = statistics(rounds)
        frame, profiling = layers.frame(name, network, total) if layers else (_no_layers(), {})
    counted = joined([repeats for _, repeats in stamped]).counted
    stamps = np.concatenate([stamps for stamps, _ in stamped])
    times = times_of(stamps[:, 0, 0], stamps[:, -1, 2], stamps[:, 1:])
    through = np.cumsum(times.segment, axis=1) + times.head
    timing = [total, *(summary(through[:, exit], counted=counted) for exit in range(staged.exits))]
    calls = [1, *(sum(part is not None for part in staged.segments[: exit + 1]) + 1 for exit in range(staged.exits))]
    if meter.why_not:
        notes.append(meter.why_not)
    if not layers:
        notes.append("layer by layer nothing was measured: calls of a graphics processor return before it is done")
    notes += doubts(total, settings.clock)
    if profiling and not 0.8 <= profiling["scale"] <= 1.25:
        notes.append(
            f"layers free of the profile's overhead sum to {1 / profiling['scale']:.2f} times the whole network; they were scaled to it, "
            "so single layers are uncertain by about as much"
        )
    totals = totals_frame(name, timing, energies, calls)
    return Measurement(
        name, prepared.path, "onnxruntime", device, settings.threads, settings.clock, cores, this_machine(), network, frame, totals,
        network.data_type, profiling, notes,
    )  # fmt: skip


def _chain_of(staged: Any, sample: dict[str, np.ndarray]) -> Callable[[], object]:
    """All stages once, never stopping."""
    from eesim.measure.staged import go_through

    bars = [np.inf] * staged.exits
    return lambda *stamps: go_through(staged, sample, bars, -1, *stamps)


def _exit_times(chain: Callable, staged: Any, settings: _Settings) -> tuple[np.ndarray, Repeats]:
    """Stamps int64 [n, 1 + E, 3] of runs through all stages, the first row of each holding its start; and the n runs."""
    found: list[np.ndarray] = []
    ask = clock_of(settings.clock)

    def once() -> None:
        stamps = np.zeros((1 + staged.exits, 3), np.int64)
        stamps[0] = ask()
        chain(stamps[1:], ask)
        found.append(stamps)

    repeats = timed(once, **settings.block("exits"))
    return np.array(found), repeats


class _Layers:
    """Layer times of an ONNX model, gathered in rounds."""

    def __init__(self, prepared: Prepared, folder: Path, settings: _Settings, sample: dict[str, np.ndarray]):
        from eesim.measure.profiling import EventOverhead, NodeProfile, call_overhead

        self.profile, self.settings, self.sample = NodeProfile(prepared, folder, settings.threads), settings, sample
        self._call = call_overhead(prepared, settings.threads)
        self._overhead = EventOverhead(folder, **settings.way)
        self.calls: list[Repeats] = []
        self.runs: list[Repeats] = []

    def warm(self) -> None:
        """Runs that are not kept."""
        warm(lambda: self.profile.run(self.sample), 5)
        warm(self._call, 20)
        self.profile.forget()

    def round(self) -> None:
        """One round: the profiled network, an empty call, and the overhead of the profile."""
        block = self.settings.block("layers")
        if "repeats" in block:
            block["repeats"] = max(block["repeats"], FEWEST // ROUNDS)
        left = self.profile.most_runs - self.profile.runs
        if left > 0:
            if "repeats" in block:
                block["repeats"] = min(block["repeats"], left)
            self.runs.append(timed(lambda: self.profile.run(self.sample), **block))
        self.calls.append(timed(self._call, repeats=40, **self.settings.way))
        self._overhead.round()

    def frame(self, name: str, network: Network, total: Timing) -> tuple[pd.DataFrame, dict[str, float]]:
        """The table of layers, and how it was made."""
        from eesim.measure.profiling import free, settle, share

        durations, chain = self.profile.finish(), self._overhead.finish()
        most = len(next(iter(durations.values()), ()))  # what was asked for beyond the most a profile holds was not run
        kept, scales = (part[:most] for part in joined(self.runs).counted)
        durations = {node: (values * scales)[kept] for node, values in durations.items()}
        calls = joined(self.calls)
        call = statistics([calls]).median
        raw = {node: summary(values).middle for node, values in durations.items()}
        target = max(total.median - call, 0.1 * total.median)
        overhead, scale = settle(np.array(list(raw.values())), chain, target)
        scaled = {node: free(values, overhead) * scale for node, values in durations.items()}
        by_layer, inserted, inside = share(scaled, list(network.layers), self.profile.executed)
        middles = {node: free(np.array([value]), overhead) * scale for node, value in raw.items()}
        exact = share(middles, list(network.layers), self.profile.executed)
        parts = {layer.name: f"segment {index}" for index, group in enumerate(network.segments) for layer in group}
        parts |= {layer.name: f"head {index}" for index, group in enumerate(network.heads) for layer in group}
        rows = []
        for layer in network.layers:
            values = by_layer.get(layer.name)
            latency = 0.0 if values is None else float(exact[0][layer.name][0])
            rows.append(layer_row(name, layer, network.data_type, parts[layer.name], latency, values, inside.get(layer.name, "")))
        for operator, values in sorted(inserted.items()):
            rows.append(_extra(name, INSERTED.format(operator), operator, float(exact[1][operator][0]), values))
        rows.append(_extra(name, CALL, "", total.median - target, calls.durations))
        profiling = {"overhead_us": overhead / 1e3, "chain_us": chain / 1e3, "profiled_ms": sum(raw.values()) / 1e6, "call_ms": call / 1e6}
        profiling["scale"] = scale
        return pd.DataFrame(rows, columns=list(_COLUMNS)), profiling


_COLUMNS = ("network", "layer", "part", "op", "kind", "macs", "bytes", "latency_ms", "iqr_ms", "repeats", "inside")


def layer_row(name: str, layer: Layer, data_type: str, part: str, latency_ns: float, values: np.ndarray | None, inside: str = "") -> dict[str, Any]:
    """One row of the table of layers. values: durations [n] in ns, None where the layer has none of its own."""
    return {
        "network": name, "layer": layer.name, "part": part, "op": layer.op, "kind": layer.kind, "macs": layer.macs,
        "bytes": layer.bytes_moved(ITEM_BYTES[data_type]), "latency_ms": latency_ns / 1e6,
        "iqr_ms": 0.0 if values is None else summary(values).iqr / 1e6, "repeats": 0 if values is None else len(values), "inside": inside,
    }  # fmt: skip


def _extra(name: str, label: str, operator: str, latency_ns: float, values: np.ndarray) -> dict[str, Any]:
    return {
        "network": name, "layer": label, "part": "", "op": operator, "kind": "runtime", "macs": 0, "bytes": 0, "latency_ms": latency_ns / 1e6,
        "iqr_ms": summary(values).iqr / 1e6, "repeats": len(values), "inside": "",
    }  # fmt: skip


def _no_layers() -> pd.DataFrame:
    return pd.DataFrame(columns=list(_COLUMNS))


def totals_frame(name: str, timings: list[Timing], energies: list[Energy | None], calls: list[int]) -> pd.DataFrame:
    """The table of totals: the whole network first, then its exits; calls: of the runtime in each."""
    rows = []
    for place, (timing, energy) in enumerate(zip(timings, energies, strict=True)):
        found = asdict(timing)
        names = {"latency_ms": "median", "middle_ms": "middle", "mean_ms": "mean", "iqr_ms": "iqr", "min_ms": "least", "p95_ms": "p95"}
        power = (np.nan, np.nan) if energy is None else (energy.mj, energy.idle_mw)
        rows.append(
            {"network": name, "exit": place - 1 if place else None, "calls": calls[place]}
            | {column: found[key] / 1e6 for column, key in names.items()}
            | {key: found[key] for key in ("repeats", "disturbed", "drift", "left_out", "scaled")}
            | dict(zip(("energy_mj", "idle_mw"), power, strict=True))
        )
    return pd.DataFrame(rows).astype({"exit": "Int64"})


def doubts(total: Timing, clock: str) -> list[str]:
    """What speaks against trusting a measurement."""
    found = []
    if abs(total.drift) > UNSTABLE:
        found.append(f"the latency drifted by {total.drift:+.0%} while it was measured; other programs, heat or a changing clock")
    if total.left_out > UNSTABLE:
        found.append(f"{total.left_out:.0%} of the repeats were left out: the machine was slower than it can be: others use it, or it grows hot")
    if total.scaled:
        found.append(f"the machine was slow all along: {total.scaled:.0%} of the repeats were scaled to its best speed, which is off by some 10 %")
    if total.disturbed > UNSTABLE:
        own = ", whose time the clock 'own' would leave out" if clock == "wall" else ""
        found.append(f"{total.disturbed:.0%} of the repeats were disturbed; other programs use the cores{own}")
    return found
