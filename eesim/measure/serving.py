"""Really serving a multi-exit network on this machine, and the same in simulation.

One server, first in, first out, without batching: a single thread waits for the later of "the request has arrived" and "the one
before is done", runs the stages, decides after each, and stamps start and finish. Arrivals are known beforehand, so that no second
thread is needed that would disturb the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eesim.arrivals import parse_arrivals
from eesim.errors import BadInput
from eesim.measure.machine import Machine, pinned, this_machine
from eesim.measure.measuring import find_onnx
from eesim.measure.staged import (
    PATIENCE_S,
    SPIN_NS,
    Sample,
    StagedNetwork,
    StageTimes,
    at_once,
    go_through,
    service_times,
    stage_times,
    times_of,
    together,
    undisturbedly,
    wait_until,
)
from eesim.measure.timing import OUTLIER, clock_of, switches, undisturbed
from eesim.seeds import Seeds
from eesim.units import INT64_MAX
from eesim.workload import Workload, load_workload

LEAD_NS = 5_000_000
FIGURES = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "utilization")


@dataclass(frozen=True, eq=False)
class Served:
    """What was really served. requests: DataFrame with a row for each, int64 arrival_ns, start_ns, finish_ns from t = 0, exit, prediction.

    times : of the stages that were reached, -1 for the others; preempted : how often the system took the core away
    """

    requests: pd.DataFrame
    times: StageTimes
    preempted: int
    cores: list[int]

    @property
    def service_ns(self) -> np.ndarray:
        """Finish minus start, int64 [n]."""
        return (self.requests["finish_ns"] - self.requests["start_ns"]).to_numpy()


def serve(
    network: StagedNetwork,
    arrival_ns: np.ndarray,
    samples: Sequence[Sample] | None = None,
    *,
    threshold: float | Sequence[float] = 0.9,
    exits: np.ndarray | None = None,
    spin_ns: int = SPIN_NS,
    clock: str = "wall",
    pin: bool = True,
    patience_s: float = PATIENCE_S,
) -> Served:
    """Serve requests for real.

    arrival_ns : int64 [n], ascending, from t = 0; all equal is a closed loop
    samples : request i is sample i mod their number (see `StagedNetwork.samples`); by default one that is made up
    threshold : the smallest max-softmax that stops, for all exits or one for each but the last
    exits : int [n], the exit at which each request stops whatever the network says; softmax and comparison are made all the same
    spin_ns : how long before an arrival sleeping ends; larger is more exact, and takes the core from other programs
    clock : 'wall', or 'own', for machines that are shared: it stands still while other programs have the core, or slow the machine
        down (see `eesim.measure.yardstick`): it waits before a request, and a request that was disturbed is served again with the clock
        set back, while there is patience. Nothing is slept, since it would stand still there too.
    patience_s : how long is waited at most by the clock 'own'

    Raises BadInput for arrivals that descend, and exits or thresholds that do not fit.
    """
    arrivals = np.asarray(arrival_ns, np.int64)
    if arrivals.ndim != 1 or not arrivals.size or arrivals[0] < 0 or (np.diff(arrivals) < 0).any():
        raise BadInput("arrivals must be at least one time in ns, from 0 on and ascending", field="arrival_ns")
    bars = _bars(threshold, network.exits)
    forced = np.full(arrivals.size, -1, np.int64) if exits is None else np.asarray(exits, np.int64)
    if forced.shape != arrivals.shape or (exits is not None and not ((forced >= 0) & (forced < network.exits)).all()):
        raise BadInput(f"must be one exit of 0 to {network.exits - 1} for each of the {arrivals.size} requests", field="exits")
    samples = [network.example()] if samples is None else samples
    count, ask = arrivals.size, clock_of(clock)
    patient, until = clock == "own", time.perf_counter() + patience_s
    spin_ns = INT64_MAX if patient else spin_ns
    stamps = np.zeros((count, network.exits, 3), np.int64)
    start, finish, left, said, origins = (np.zeros(count, np.int64) for _ in range(5))
    plan, wanted, number = arrivals.tolist(), forced.tolist(), len(samples)
    with pinned(1 if pin else os.cpu_count() or 1) as cores, undisturbed():
        for warm in range(min(20, count)):
            go_through(network, samples[warm % number], bars, wanted[warm])
        lost = switches()
        origin = ask() + LEAD_NS
        for index in range(count):
            begun = wait_until(origin + plan[index], ask, spin_ns)
            once = lambda: go_through(network, samples[index % number], bars, wanted[index], stamps[index], ask)  # noqa: B023, E731
            start[index], finish[index], (left[index], said[index]) = undisturbedly(once, ask, until) if patient else at_once(once, ask, begun)
            origin += start[index] - begun  # the clock stood still
            origins[index] = origin
            origin += ask() - finish[index] if patient else 0
        lost = switches() - lost
    requests = pd.DataFrame(
        {"arrival_ns": arrivals, "start_ns": start - origins, "finish_ns": finish - origins, "exit": left.astype(np.int16), "prediction": said}
    )
    return Served(requests, times_of(start, finish, stamps), lost, cores)


def _bars(threshold: float | Sequence[float], exits: int) -> list[float]:
    """The bar of each exit but the last."""
    bars = [float(value) for value in np.ravel(np.asarray(threshold, float))]
    if len(bars) == 1:
        bars *= max(exits - 1, 1)
    if len(bars) != max(exits - 1, 1):
        raise BadInput(f"{len(bars)} thresholds for {exits - 1} exits before the last", field="threshold")
    return bars


def simulated(arrival_ns: np.ndarray, service_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and finishes int64 [n] of one first-in-first-out server by eesim's kernel; arrivals and service times int64 [n]."""
    from eesim.engine.lindley import lindley

    arrivals, service = np.ascontiguousarray(arrival_ns, np.int64), np.ascontiguousarray(service_ns, np.int64)
    start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
    lindley(arrivals, service, 0, 0, start, finish)
    return start, finish


@dataclass(frozen=True, eq=False)
class Comparison:
    """Serving and simulating the same requests.

    runs : DataFrame with a row for each run and source: run, source, mean_ms, p50_ms, p95_ms, p99_ms (latency), utilization,
        exit_agreement (share of requests that left where the simulation says), preempted, disturbed (share of services that took
        more than 1.5 medians of their exit). Sources: 'real'; 'stages' (simulated with the means of stages measured in isolation,
        one sample after the other, right before and after the run); 'drawn' (each request with the time of one of those samples that left at
        its exit, drawn at random, so that what varies in isolation varies); names of predictions that were given; 'replayed'
        (simulated with the very service times of the real run: what is left is the queue).
    differences : DataFrame with a row for each source but 'real': source, and of each figure the median over the runs of the
        relative difference from the real run; `<figure>_low` and `_high`: the smallest and largest of them
    stages : all stage times in isolation; service_ns: int64 [E], of a request that leaves at each exit, from their means
    rate_hz : offered; requests : of each run; exits : int [n], where each request leaves in simulation
    forced : whether real requests were made to leave there, since there were no inputs
    """

    workload: str
    threshold: float | list[float]
    clock: str
    load: float
    rate_hz: float
    requests: int
    forced: bool
    stages: StageTimes
    service_ns: np.ndarray
    runs: pd.DataFrame
    differences: pd.DataFrame
    machine: Machine
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain data."""
        segment, head, decision, request = self.stages.means()
        names = ("workload", "threshold", "clock", "load", "rate_hz", "requests", "forced", "notes")
        times = {"segment_ns": segment, "head_ns": head, "decision_ns": decision, "request_ns": request, "service_ns": self.service_ns}
        tables = {"runs": self.runs.to_dict("records"), "differences": self.differences.to_dict("records"), "machine": self.machine.record()}
        plain = {name: values.tolist() for name, values in times.items()}
        return {name: getattr(self, name) for name in names} | plain | tables


def serving_versus_simulation(
    workload: str | Path | Workload,
    inputs: Mapping[str, np.ndarray] | None = None,
    labels: np.ndarray | None = None,
    *,
    load: float = 0.5,
    requests: int = 2000,
    runs: int = 5,
    threshold: float | Sequence[float] = 0.9,
    predicted: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray | int]] | None = None,
    repeats: int = 1000,
    seed: int = 0,
    spin_ns: int = SPIN_NS,
    clock: str = "wall",
) -> Comparison:
    """Serve a workload's test samples for real under Poisson arrivals, and simulate the same arrivals.

    inputs, labels : arrays [N, …] by name and labels [N], rows as in ``workload.view('test')`` (see `eesim.measure.recorded`). Without
        them inputs are made up, and each request leaves where the simulation says.
    load : offered load, the arrival rate times the mean service time of stages that never rest; the stages that the simulation uses
        are timed with the mean gap of that load before each
    requests, runs : of each run; how many, with other arrivals each
    threshold : of max-softmax, for all exits or one for each but the last
    predicted : further simulations, name -> (segment_ns [E], head_ns [E], decision_ns [E] or number), such as those of a profile:
        ``price_network(...)`` has segment_ns and head_ns
    repeats : of the stage times in isolation (other test samples, that leave where the trace says), half of them before each run and half after
    spin_ns, clock : see `serve`

    Real exits come from float32 logits, simulated ones from the recorded trace, which may hold float16: they may differ at near ties.
    Raises BadInput where the network cannot be run, or inputs do not fit.
    """
    workload = load_workload(workload)
    for name, value, least in (("requests", requests, 1), ("runs", runs, 1), ("repeats", repeats, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise BadInput(f"'{value}' must be a whole number of at least {least}", field=name)
    if not 0 < load < float("inf"):
        raise BadInput(f"'{load}' must be a positive number, such as 0.5", field="load")
    path, final_head = find_onnx(workload.folder)
    network = StagedNetwork(path, final_head=final_head)
    _bars(threshold, network.exits)
    view = workload.view("test")
    if labels is not None and not np.array_equal(np.asarray(labels), view.label):
        raise BadInput("are not those of the recorded test samples, or not in their order", field="labels")
    samples = None if inputs is None else network.samples(inputs)
    if samples is not None and len(samples) != len(view):
        raise BadInput(f"{len(samples)} samples, the trace has {len(view)} in its test split", field="inputs")
    decided = recorded_exits(workload, threshold)
    rows = np.random.default_rng(seed).permutation(len(view))[np.arange(requests) % len(view)]
    exits, forced = decided[rows], None if samples is not None else decided[rows]
    order = None if samples is None else [samples[row] for row in rows]
    given = {name: service_times(*parts) for name, parts in (predicted or {}).items()}
    for name, values in given.items():
        if values.shape != (network.exits,):
            raise BadInput(f"'{name}' gives times of {values.size} exits, the network has {network.exits}", field="predicted")
    others = np.random.default_rng((seed, 1)).permutation(len(view))[np.arange(repeats) % len(view)]
    seen, forms = decided[others], None if samples is None else [samples[row] for row in others]
    way = {"exits": seen, "repeats": -(-repeats // 2), "clock": clock}
    with pinned(1) as cores:
        hot = stage_times(network, forms, **way)
        busy = float(hot.service_ns()[exits].mean())
        rate, gap = load * 1e9 / busy, int(busy / load * max(1 - load, 0.0))
        isolated = lambda: stage_times(network, forms, gap_ns=gap, spin_ns=spin_ns, **way)  # noqa: E731
        measured = [isolated()]
        found = []
        for run in range(runs):
            arrivals = parse_arrivals(f"poisson:{rate:.9g}/s", None).times(Seeds(seed, run), requests)
            real = serve(network, arrivals, order, threshold=threshold, exits=forced, spin_ns=spin_ns, clock=clock)
            measured.append(isolated())
            around = together(measured[-2:])  # before and after, so that a machine that changes slowly changes for both
            left = real.requests["exit"].to_numpy().astype(np.int64)
            own = real.service_ns
            typical = np.array([np.median(own[left == exit]) if (left == exit).any() else np.inf for exit in range(network.exits)])
            about = {
                "exit_agreement": float((left == exits).mean()),
                "preempted": real.preempted,
                "disturbed": float((own > OUTLIER * typical[left]).mean()),
            }
            timeline = real.requests["start_ns"].to_numpy(), real.requests["finish_ns"].to_numpy()
            found.append({"run": run, "source": "real", **figures(arrivals, *timeline), **about})
            lottery = np.random.default_rng((seed, run, 2))
            predictions = {"stages": around.service_ns()[exits], "drawn": around.draw(exits, lottery)}
            predictions |= {name: values[exits] for name, values in given.items()} | {"replayed": own}
            for name, service in predictions.items():
                found.append({"run": run, "source": name, **figures(arrivals, *simulated(arrivals, service)), **about})
    stages = together(measured)
    frame = pd.DataFrame(found)
    notes = [] if cores else ["the process could not be kept on one core"]
    notes += _doubts(frame)
    bars = threshold if isinstance(threshold, (int, float)) else list(threshold)
    return Comparison(
        workload.name, bars, clock, load, rate, requests, samples is None, stages, stages.service_ns(), frame, relative(frame), this_machine(), notes
    )  # fmt: skip


def recorded_exits(workload: Workload, threshold: float | Sequence[float]) -> np.ndarray:
    """Where max-softmax stops each test sample according to the trace, int64 [N]."""
    from eesim.mechanisms._deciding import decide
    from eesim.mechanisms.registry import load_mechanism
    from eesim.simulation import settle

    view, rule = workload.view("test"), load_mechanism("max-softmax")
    values = {"threshold": threshold if isinstance(threshold, (int, float)) else list(threshold)}
    return decide(rule, view, settle(rule, values, workload, view)).exit.astype(np.int64)


def figures(arrival_ns: np.ndarray, start_ns: np.ndarray, finish_ns: np.ndarray) -> dict[str, float]:
    """Latency in ms (mean, and percentiles by nearest rank) and utilisation (busy time over that from t = 0 to the last finish)."""
    latency = (finish_ns - arrival_ns) / 1e6
    cuts = np.quantile(latency, [0.5, 0.95, 0.99], method="inverted_cdf")
    busy = float((finish_ns - start_ns).sum()) / float(finish_ns.max())
    return dict(zip(FIGURES, [float(latency.mean()), *map(float, cuts), busy], strict=True))


def relative(runs: pd.DataFrame) -> pd.DataFrame:
    """Relative differences from the real runs, over runs: median, smallest and largest of each figure. See `Comparison`."""
    real = runs[runs["source"] == "real"].set_index("run")
    rows = []
    for source, part in runs[runs["source"] != "real"].groupby("source", sort=False):
        off = part.set_index("run")[list(FIGURES)] / real[list(FIGURES)] - 1
        row: dict[str, Any] = {"source": source}
        for name in FIGURES:
            row |= {name: float(off[name].median()), f"{name}_low": float(off[name].min()), f"{name}_high": float(off[name].max())}
        rows.append(row)
    return pd.DataFrame(rows)


def _doubts(runs: pd.DataFrame) -> list[str]:
    real = runs[runs["source"] == "real"]
    share, lost = float(real["disturbed"].median()), int(real["preempted"].median())
    if share <= 0.01 and not lost:
        return []
    return [f"other programs used the core: it was taken away {lost} times a run, and {share:.1%} of the services took more than 1.5 medians"]
