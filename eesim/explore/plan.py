"""Planning a deployment: which device, mechanism, thresholds and exits meet the constraints, and what the others break.

Settings are chosen on the calibration split: without time first (accuracy and mean cost of every threshold of every
mechanism over every subset of exits), then the promising ones under the load. What survives is replayed on the test
split, and only what meets every constraint there too is called a deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eesim.bundled import profile_names, workload_names
from eesim.cost import MechanismCost, NetworkCost
from eesim.engine.chooser import run
from eesim.errors import BadInput, unknown
from eesim.explore.space import Device, devices_of, named, subsets_of
from eesim.hardware import load_profile
from eesim.mechanisms.base import Mechanism, Values
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.result import Result
from eesim.simulation import Load, cached_price, compile_scenario, setting, settle
from eesim.tuning import OBJECTIVES, evaluate
from eesim.units import duration_ns, energy_mj, fraction, rate_hz
from eesim.workload import Workload, load_workload

SETTINGS = 60
"""Settings of each mechanism and subset of exits that are evaluated without time."""
SHORTLIST = 24
"""Candidates of a device that are simulated under the load."""
NEAR_MISSES = 4
"""Of a device without a deployment, that many of the nearest misses are replayed on the test split."""
PLAN_OBJECTIVES = (*OBJECTIVES, "accuracy")


@dataclass(frozen=True)
class Constraint:
    """A limit on one figure. `sense` is +1 where at least `limit` is wanted, -1 where at most."""

    name: str
    figure: str
    limit: float
    sense: int
    unit: str = ""

    def margin(self, value: float | None) -> float | None:
        """How much is to spare, negative where it is broken; None where the figure is not known."""
        return None if value is None else self.sense * (value - self.limit)

    def excess(self, value: float | None) -> float:
        """How badly it is broken, as a share of the limit; 0 where it holds, infinite where the figure is not known."""
        margin = self.margin(value)
        return np.inf if margin is None else max(-margin, 0.0) / (abs(self.limit) or 1.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One setting of one mechanism on one device, with what the calibration split says of it without time."""

    workload: Workload
    device: Device
    price: NetworkCost
    exits: tuple[int, ...]
    mechanism: Mechanism
    values: Values
    accuracy: float
    balanced_accuracy: float
    energy: float
    latency: float
    macs: float


@dataclass(frozen=True)
class Deployment:
    """A candidate as replayed on one split: all figures, and the margin to each constraint."""

    candidate: Candidate
    summary: dict[str, Any]
    memory: dict[str, Any]
    margins: dict[str, float | None]
    broken: dict[str, float | None]
    """Constraints that are not met, with the value reached (None: not known)."""


@dataclass
class Plan:
    """Deployments, the best first; and for each device without one, the nearest miss."""

    constraints: list[Constraint]
    objective: str
    deployments: list[Deployment] = field(default_factory=list)
    rejected: list[Deployment] = field(default_factory=list)
    bounds: list[Deployment] = field(default_factory=list)
    """Static, first exit, oracle and constant answer on the device of the best deployment of each workload."""
    candidates: int = 0

    def record(self) -> dict[str, Any]:
        """As plain data for JSON."""

        def plain(item: Deployment) -> dict[str, Any]:
            return {**item.summary, "memory": item.memory, "margins": item.margins, "broken": item.broken}

        return {
            "objective": self.objective,
            "constraints": {constraint.name: constraint.limit for constraint in self.constraints},
            "candidates": self.candidates,
            "deployments": [plain(item) for item in self.deployments],
            "rejected": [plain(item) for item in self.rejected],
            "bounds": [plain(item) for item in self.bounds],
        }


def constraints_of(
    *,
    min_accuracy: Any = None,
    min_balanced_accuracy: Any = None,
    max_mean: Any = None,
    max_p95: Any = None,
    max_p99: Any = None,
    max_energy: Any = None,
    max_active_energy: Any = None,
    max_miss_rate: Any = None,
    fits: bool = False,
) -> list[Constraint]:
    """Constraints from their options. Latencies are responses under the load, energies are per inference (with idling, and without)."""
    found = [Constraint("rate", "offered_load", 1.0, -1)]
    for name, figure, value in (("min_accuracy", "accuracy", min_accuracy), ("min_balanced_accuracy", "balanced_accuracy", min_balanced_accuracy)):
        if value is not None:
            found.append(Constraint(name, figure, fraction(value, name.replace("_", " ")), +1))
    for name, figure, value in (
        ("max_mean", "latency_ms.mean", max_mean),
        ("max_p95", "latency_ms.p95", max_p95),
        ("max_p99", "latency_ms.p99", max_p99),
    ):
        if value is not None:
            found.append(Constraint(name, figure, duration_ns(value, name.replace("_", " "), positive=True) / 1e6, -1, "ms"))
    for name, figure, value in (("max_energy", "energy_mj.mean", max_energy), ("max_active_energy", "active_mj_mean", max_active_energy)):
        if value is not None:
            found.append(Constraint(name, figure, energy_mj(value, name.replace("_", " ")), -1, "mJ"))
    if max_miss_rate is not None:
        found.append(Constraint("max_miss_rate", "deadline_miss_rate", fraction(max_miss_rate, "max miss rate"), -1))
    if fits:
        found.append(Constraint("fits", "fits", 1.0, +1))
    return found


def plan(
    workloads: Any = None,
    profiles: Any = None,
    mechanisms: Any = None,
    *,
    rate: str | None = None,
    arrivals: Any = None,
    objective: str = "energy",
    exits: Any = "subsets",
    operating_points: Any = None,
    progress: Callable[[int], None] | None = None,
    requests: int | None = None,
    servers: int = 1,
    queue: int | None = None,
    deadline: str | None = None,
    seed: int = 0,
    **limits: Any,
) -> Plan:
    """Search devices x mechanisms x thresholds x exit subsets for the best deployment that meets every limit.

    rate : Poisson arrivals at this rate, e.g. ``'10/s'``; or `arrivals` as for `simulate`. It must be sustained.
    objective : 'energy' (per inference, idling included), 'latency' (mean), 'macs', or 'accuracy'.
    **limits : min_accuracy, min_balanced_accuracy, max_mean, max_p95, max_p99, max_energy, max_active_energy,
        max_miss_rate (with a deadline), fits; see `constraints_of`.

    Thresholds and exits are chosen on the calibration split; every figure of a deployment is from the test split.
    """
    if objective not in PLAN_OBJECTIVES:
        raise unknown("objective", objective, PLAN_OBJECTIVES, field="objective")
    if (rate is None) == (arrivals is None):
        raise BadInput("give either a rate or arrivals", field="rate")
    if "max_miss_rate" in limits and limits["max_miss_rate"] is not None and deadline is None:
        raise BadInput("a limit on missed deadlines needs a deadline", field="deadline")
    if rate is not None:
        rate_hz(rate)
        arrivals = f"poisson:{rate}"
    load = Load(arrivals, requests, servers=servers, queue=queue, deadline=deadline, seed=seed)
    load.check()
    result = Plan(constraints_of(**limits), objective)
    chosen = [load_workload(name) for name in named(workloads, workload_names(), "workloads")]
    devices = [device for name in named(profiles, profile_names(), "profiles") for device in devices_of(load_profile(name), operating_points)]
    rules = {rule.name: rule for rule in map(load_mechanism, named(mechanisms, mechanism_names(), "mechanisms")) if not rule.bound}
    rules = {"static": load_mechanism("static"), "first-exit": load_mechanism("first-exit"), **rules}
    for workload in chosen:
        seen: dict = {}
        for device in devices:
            candidates = list(_candidates(workload, device, rules.values(), exits, seen))
            result.candidates += len(candidates)
            kept, missed = _search(candidates, result, load)
            result.deployments += kept
            if not kept and missed is not None:
                result.rejected.append(missed)
            if progress:
                progress(1)
    result.deployments.sort(key=lambda item: _rank(item.summary, objective))
    for workload in chosen:
        best = next((item for item in [*result.deployments, *result.rejected] if item.candidate.workload is workload), None)
        if best is not None:
            result.bounds += _bounds(best.candidate, load, result.constraints)
    return result


def _bounds(best: Candidate, load: Load, constraints: list[Constraint]) -> list[Deployment]:
    """The bounds every table holds, on the device of `best`, with all exits."""
    found = []
    for name in mechanism_names():
        rule = load_mechanism(name)
        if rule.bound:
            exits = best.workload.enabled()
            values = settle(rule, {}, best.workload, best.workload.view("test", exits))
            found.append(replay(replace(best, exits=exits, mechanism=rule, values=values), load, constraints))
    return found


def _rank(summary: dict[str, Any], objective: str) -> float:
    figure = {"energy": "energy_mj.mean", "latency": "latency_ms.mean", "macs": "macs_mean", "accuracy": "accuracy"}[objective]
    value = _figure(summary, figure)
    return np.inf if value is None else -value if objective == "accuracy" else value


def _candidates(workload: Workload, device: Device, rules: Any, exits: Any, seen: dict) -> Iterator[Candidate]:
    """Every setting of every mechanism over every subset of exits. What does not depend on the device is remembered in `seen`."""
    price = cached_price(workload, device.profile, device.operating_point, None)
    for subset in subsets_of(exits, workload):
        view = workload.view("calibration", subset)
        for rule in rules:
            if rule.bound and len(subset) < workload.network.exits and not (rule.name == "first-exit" and len(subset) == 2):
                continue  # fewer exits change nothing for static, and the first of several is the first of two
            if not rule.bound and len(subset) == 1:
                continue
            key = (rule.name, subset)
            if key not in seen:
                found = [{}] if rule.bound else rule.candidates(view, SETTINGS)
                seen[key] = [settle(rule, values, workload, view) for values in found]
            settings = seen[key]
            evaluation = evaluate(view, rule, settings, MechanismCost(price, subset, rule, view.classes))
            energy = evaluation.cost["energy"]
            for index, values in enumerate(settings):
                accuracy, balanced = float(evaluation.accuracy[index]), float(evaluation.balanced_accuracy[index])
                joules = np.nan if energy is None else float(energy[index])
                latency, macs = (float(evaluation.cost[name][index]) for name in ("latency", "macs"))
                yield Candidate(workload, device, price, subset, rule, values, accuracy, balanced, joules, latency, macs)


def _search(candidates: list[Candidate], plan: Plan, load: Load) -> tuple[list[Deployment], Deployment | None]:
    """The best deployments of one device, and its nearest miss."""
    floors = {constraint.figure: constraint.limit for constraint in plan.constraints if constraint.figure in ("accuracy", "balanced_accuracy")}
    meets = [item for item in candidates if all(getattr(item, name) >= limit for name, limit in floors.items())]
    kept: list[Deployment] = []
    missed: list[Deployment] = []
    tried: set[tuple] = set()
    calibration = Load(load.arrivals, None, split="calibration", servers=load.servers, queue=load.queue, deadline=load.deadline, seed=load.seed)
    for candidate in _shortlist(meets or candidates, plan.objective, floors if not meets else {}):
        rehearsal = replay(candidate, calibration, plan.constraints)
        if rehearsal.broken and meets:
            missed.append(rehearsal)
            continue
        key = (candidate.mechanism.name, candidate.exits)
        if key in tried:
            continue
        tried.add(key)
        final = replay(candidate, load, plan.constraints)
        (missed if final.broken else kept).append(final)
        if len(kept) == 3:
            break
    if kept or not missed:
        return kept, None

    def excess(item: Deployment) -> float:
        return sum(min(constraint.excess(item.broken[constraint.name]), 1e9) for constraint in plan.constraints if constraint.name in item.broken)

    missed.sort(key=excess)
    finals = [item if item.summary["split"] == load.split else replay(item.candidate, load, plan.constraints) for item in missed[:NEAR_MISSES]]
    good = [item for item in finals if not item.broken]  # broken in calibration only: chosen there or not at all
    return [], min([item for item in finals if item.broken], key=excess) if len(good) < len(finals) else replace(finals[0], broken=missed[0].broken)


def _shortlist(candidates: list[Candidate], objective: str, floors: dict[str, float]) -> list[Candidate]:
    """The cheapest by the objective first; some of the fastest, the most frugal and the most accurate behind them."""

    def by(key: Callable[[Candidate], float], count: int) -> list[Candidate]:
        return sorted(candidates, key=lambda item: (np.nan_to_num(key(item), nan=np.inf), -item.accuracy))[:count]

    main = {
        "energy": lambda item: item.energy,
        "latency": lambda item: item.latency,
        "macs": lambda item: item.macs,
        "accuracy": lambda item: -item.accuracy,
    }
    orders = [by(main[objective], SHORTLIST)]
    orders += [
        by(lambda item: item.latency, SHORTLIST // 4),
        by(lambda item: item.energy, SHORTLIST // 4),
        by(lambda item: -item.accuracy, SHORTLIST // 4),
    ]
    if "balanced_accuracy" in floors:
        orders.append(by(lambda item: -item.balanced_accuracy, SHORTLIST // 4))
    return list({id(item): item for order in orders for item in order}.values())


def replay(candidate: Candidate, load: Load, constraints: list[Constraint]) -> Deployment:
    """Simulate one candidate and hold it against the constraints."""
    workload, rule = candidate.workload, candidate.mechanism
    view = workload.view(load.split, candidate.exits)
    scenario = compile_scenario(workload, view, candidate.price, rule, candidate.values, load)
    outcome = run(scenario)
    summary = Result((outcome,), setting(workload, candidate.price, rule, candidate.values, scenario, load)).summary()
    rate = scenario.process.rate_hz
    served = int(outcome.served.sum())
    memory = candidate.price.memory(candidate.exits)
    summary = {
        **summary,
        "offered_load": None if rate is None or not served else rate * outcome.busy_ns / served * 1e-9 / scenario.servers,
        "fits": None if memory["fits"] is None else float(memory["fits"]),
    }
    values = {constraint.name: _figure(summary, constraint.figure) for constraint in constraints}
    margins = {constraint.name: constraint.margin(values[constraint.name]) for constraint in constraints}
    closed = rate is None
    broken = {
        constraint.name: values[constraint.name]
        for constraint in constraints
        if (margins[constraint.name] is None or margins[constraint.name] < 0) and not (constraint.name == "rate" and closed)
    }
    return Deployment(candidate, summary, memory, margins, broken)


def _figure(summary: dict[str, Any], path: str) -> Any:
    value: Any = summary
    for part in path.split("."):
        value = value[part]
    return value
