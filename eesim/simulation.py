"""`simulate`: the one door into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eesim.arrivals import Process, parse_arrivals
from eesim.cost import MechanismCost, NetworkCost, price_network, state_bytes
from eesim.engine.chooser import run
from eesim.engine.outcome import Outcome
from eesim.engine.scenario import NO_DEADLINE, UNLIMITED, Scenario
from eesim.errors import BadInput, unknown
from eesim.hardware.profile import Profile, load_profile
from eesim.mechanisms.base import Mechanism, Values
from eesim.mechanisms.registry import load_mechanism
from eesim.result import FEWEST_LABELLED, Result
from eesim.seeds import Seeds
from eesim.trace.view import TraceView
from eesim.units import duration_ns
from eesim.workload import Workload, load_workload

ORDERS = ("recorded", "shuffled", "resampled")
OVERFLOWS = ("reject", "drop-oldest")


@dataclass(frozen=True)
class Load:
    """How requests come and queue; everything about a run but network, device and mechanism. Durations in ns."""

    arrivals: str | np.ndarray | Process | None = None
    requests: int | None = None
    order: str = "recorded"
    split: str = "test"
    warmup: int = 0
    servers: int = 1
    queue: int | None = None
    overflow: str = "reject"
    deadline: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise BadInput for anything out of range."""
        for name, choices in (("order", ORDERS), ("overflow", OVERFLOWS), ("split", ("test", "calibration"))):
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices, field=name)
        for name, least in (("requests", 1), ("warmup", 0), ("servers", 1), ("queue", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name in ("requests", "queue"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise BadInput(f"{name} '{value}' must be a whole number of at least {least}", field=name)


def simulate(
    workload: str | Path | Workload,
    profile: str | Path | Profile,
    mechanism: str | Path | Mechanism = "static",
    parameters: Mapping[str, Any] | None = None,
    *,
    arrivals: str | np.ndarray | Process | None = None,
    requests: int | None = None,
    order: str = "recorded",
    split: str = "test",
    warmup: int = 0,
    replications: int = 1,
    exits: Iterable[int] | None = None,
    servers: int = 1,
    queue: int | None = None,
    overflow: str = "reject",
    deadline: str | None = None,
    operating_point: str | None = None,
    data_type: str | None = None,
    accuracy_drop: str | float | None = None,
    objective: str = "energy",
    metric: str = "accuracy",
    per_exit: bool = False,
    engine: str = "auto",
    seed: int = 0,
) -> Result:
    """Replay a workload's recorded exits on a device under one decision mechanism and one load.

    workload, profile, mechanism : names of bundled ones, paths, or loaded objects; a mechanism may be a path to a Python file.
    parameters : the mechanism's, e.g. ``{"threshold": 0.8}``; one value, or one for each recorded exit but the last.
    arrivals : text such as ``'poisson:20/s'``, or int64 times in ns; by default the workload's own.
    requests : how many; by default one pass over the split (all of a file's).
    order : how samples meet requests: 'recorded' and repeated from the start, 'shuffled' once, 'resampled' with replacement.
    warmup : that many first requests are simulated, then left out of everything that is averaged over requests; run totals
        (energy, utilisation, throughput) keep them.
    replications : independent repetitions with spawned seeds; figures become means with confidence intervals.
    exits : recorded exits to enable, the final one is always; by default all.
    servers, queue, overflow : K devices; waiting places (None: unlimited, 0: none); 'reject' or 'drop-oldest'.
    deadline : e.g. ``'30ms'`` after arrival; later answers and drops count as misses.
    accuracy_drop : tune the mechanism first, on the calibration split: the cheapest `objective` ('energy', 'latency' or
        'macs') that loses at most this much `metric` against the static network. What `parameters` hold stays as it is.
    engine : 'auto' picks the fastest exact one of 'counts', 'lindley', 'k-server', 'calendar'; 'simpy' is the slow oracle.

    Raises BadInput with one line for anything that cannot be used.
    """
    load = Load(arrivals, requests, order, split, warmup, servers, queue, overflow, deadline, seed)
    load.check()
    if isinstance(replications, bool) or not isinstance(replications, (int, np.integer)) or replications < 1:
        raise BadInput(f"replications '{replications}' must be a whole number of at least 1", field="replications")
    workload, profile, rule = load_workload(workload), load_profile(profile), load_mechanism(mechanism)
    enabled = workload.enabled(exits)
    priced = cached_price(workload, profile, operating_point, data_type)
    warnings = list(priced.warnings)
    tuned = None
    if accuracy_drop is not None:
        from eesim.tuning import tune_priced

        tuned = tune_priced(
            workload, priced, rule, accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit, exits=enabled,
            parameters=parameters or {},
        )  # fmt: skip
        rule, parameters = tuned.mechanism, tuned.parameters
        warnings += tuned.warnings
        if metric == "balanced_accuracy":
            warnings += _different_classes(workload)
    view = workload.view(split, enabled)
    values = settle(rule, parameters or {}, workload, view)
    scenario = compile_scenario(workload, view, priced, rule, values, load)
    outcomes = [run(scenario, engine)]
    for replication in range(1, replications):
        outcomes.append(run(compile_scenario(workload, view, priced, rule, values, load, replication=replication), engine))
    if replications > 1 and not (scenario.process.random or order == "resampled" or order == "shuffled"):
        warnings.append("nothing is random in this scenario, so all replications are the same")
    warnings += overload(outcomes[0])
    return Result(tuple(outcomes), setting(workload, priced, rule, values, scenario, load, tuned), tuple(dict.fromkeys(warnings)))


def _different_classes(workload: Workload) -> list[str]:
    """A warning where balanced accuracy is over other classes in calibration, where it was tuned, than in the test split."""
    counts = {split: workload.view(split).class_counts >= FEWEST_LABELLED for split in ("calibration", "test")}
    if (counts["calibration"] == counts["test"]).all():
        return []
    names = {
        split: ", ".join(name for name, enough in zip(workload.trace.header.classes, found, strict=True) if enough) for split, found in counts.items()
    }
    least = f"classes with at least {FEWEST_LABELLED} labelled samples"
    return [f"balanced accuracy was tuned over {names['calibration']} and is reported over {names['test']} ({least})"]


def settle(mechanism: Mechanism, given: Mapping[str, Any], workload: Workload, view: TraceView) -> Values:
    """Given parameters checked, the rest from the mechanism's defaults. Raises BadInput for one that has neither."""
    return mechanism.settle(given, view, lambda: workload.view("calibration", view.recorded_exits))


def compile_scenario(
    workload: Workload, view: TraceView, priced: NetworkCost, mechanism: Mechanism, values: Values, load: Load, *, replication: int = 0
) -> Scenario:
    """Arrays and rules for the engine. Raises BadInput where the parts do not go together."""
    seeds = Seeds(load.seed, replication)
    recording = workload.recording(load.split)
    process = parse_arrivals(workload.arrivals if load.arrivals is None else load.arrivals, recording)
    requests = int(load.requests or process.length or len(view))
    if process.length is not None and requests > process.length:
        raise BadInput(f"{requests} requests are asked for, {process.text} holds {process.length} arrivals", field="requests")
    if load.warmup >= requests:
        raise BadInput(f"warm-up of {load.warmup} leaves none of the {requests} requests to count", field="warmup")
    mechanism = mechanism.variant(values)
    if mechanism.live and mechanism.state in ("stream", "global"):
        raise BadInput(f"mechanism '{mechanism.name}' is live, so it can keep state within a sample only, not '{mechanism.state}'")
    rows, in_order = sample_order(view, load.order, requests, seeds, process)
    deadline = NO_DEADLINE if load.deadline is None else duration_ns(load.deadline, "deadline")
    cost = MechanismCost(priced, view.recorded_exits, mechanism, view.classes)
    capacity = UNLIMITED if load.queue is None else int(load.queue)
    return Scenario(
        view, rows, in_order, mechanism, values, cost, process, seeds, requests, int(load.servers), capacity,
        load.overflow == "drop-oldest", deadline, int(load.warmup),
    )  # fmt: skip


def sample_order(view: TraceView, order: str, requests: int, seeds: Seeds, process: Process) -> tuple[np.ndarray, bool]:
    """Rows of the view in the order of the pass, and whether that is simply all of them in recorded order."""
    if order == "resampled":
        return seeds.generator("order").integers(0, len(view), requests, dtype=np.int64), False
    if order == "shuffled":
        return seeds.generator("order").permutation(len(view)), False
    streams, _ = view.streams
    if process.groups_streams and (np.diff(streams) < 0).any():
        return streams.argsort(kind="stable"), False
    return np.arange(len(view)), True


def overload(outcome: Outcome) -> list[str]:
    """A warning when more work is offered than the servers can do."""
    return overload_warning(outcome.scenario, outcome.busy_ns, int(outcome.served.sum()), outcome.horizon_ns)


def overload_warning(scenario: Scenario, busy_ns: int, served: int, horizon_ns: int) -> list[str]:
    """`overload` from the bare totals."""
    rate = scenario.process.rate_hz
    if rate is None or not served:
        return []
    offered = rate * busy_ns / served * 1e-9 / scenario.servers
    if offered < 1:
        return []
    busy = busy_ns / max(scenario.servers * horizon_ns, 1)
    grows = "the queue and the waiting times grow with the length of the run" if scenario.capacity < 0 else "requests are dropped"
    return [f"overload: {offered:.2f} times what the servers can do is offered (utilisation {busy:.1%}); {grows}"]


def setting(
    workload: Workload, priced: NetworkCost, mechanism: Mechanism, values: Values, scenario: Scenario, load: Load, tuned: Any = None
) -> dict[str, Any]:
    """What was simulated, for the summary."""
    trained = workload.trace.header.training_mode or None
    subset = len(scenario.view.recorded_exits) < workload.network.exits
    profile = priced.profile
    return {
        "workload": workload.name,
        "profile": profile.name,
        "operating_point": priced.operating_point,
        "data_type": priced.data_type,
        "mechanism": mechanism.name,
        "parameters": {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        "tuned": None if tuned is None else tuned.record(),
        "exits": list(scenario.view.recorded_exits),
        "heads_trained": trained,
        "subset": None if not subset else "valid" if trained == "frozen" else "approximate",
        "arrivals": scenario.process.text,
        "order": load.order,
        "split": load.split,
        "warmup": scenario.warmup,
        "servers": scenario.servers,
        "queue": None if scenario.capacity < 0 else scenario.capacity,
        "overflow": load.overflow if scenario.capacity >= 0 else None,
        "deadline_ms": None if scenario.deadline_ns < 0 else scenario.deadline_ns / 1e6,
        "energy_scope": {"rail": profile.energy_scope.rail, "idle": profile.energy_scope.idle},
        "memory": priced.memory(scenario.view.recorded_exits, state_bytes(scenario.mechanism, scenario.view, values)),
        "seed": load.seed,
    }


def cached_price(workload: Workload, profile: Profile, operating_point: str | None, data_type: str | None) -> NetworkCost:
    """`price_network`, remembered with the workload."""
    key = ("price", profile.content_hash, operating_point, data_type)
    if key not in workload.memo:
        workload.memo[key] = price_network(workload.network, profile, operating_point, data_type)
    return workload.memo[key]
