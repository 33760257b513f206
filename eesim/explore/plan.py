"""Planning a deployment: which device, mechanism, thresholds and exits meet the constraints, and what the others break.

Settings are chosen on the calibration split: those that keep every limit there, the cheapest first. Each is rehearsed
there under the load, then replayed on the test split, and only what keeps every limit there too is called a deployment.
Where the cheapest fails on the test split, the next dearer and more accurate one of the same mechanism is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from eesim.bundled import profile_names
from eesim.cost import state_bytes
from eesim.engine.chooser import run
from eesim.errors import BadInput, unknown
from eesim.explore.candidates import Candidate, candidates_of, front
from eesim.explore.constraints import Constraint, constraints_of
from eesim.explore.space import Device, able, devices_of, named, workloads_of
from eesim.mechanisms.base import Mechanism
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.result import Result
from eesim.simulation import Load, compile_scenario, setting, settle
from eesim.tuning import OBJECTIVES
from eesim.units import rate_hz
from eesim.workload import Workload

TRIES = 60
"""Settings of one mechanism on one device that are replayed at most."""
PLAN_OBJECTIVES = (*OBJECTIVES, "accuracy")


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
    """Settings weighed on the calibration split."""
    replayed: int = 0
    """Settings replayed on the test split. The more there are, the more a deployment that barely keeps a limit owes to luck."""
    remarks: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain data for JSON."""

        def plain(item: Deployment) -> dict[str, Any]:
            return {**item.summary, "memory": item.memory, "margins": item.margins, "broken": item.broken}

        return {
            "objective": self.objective,
            "constraints": {constraint.name: constraint.limit for constraint in self.constraints},
            "candidates": self.candidates,
            "replayed": self.replayed,
            "deployments": [plain(item) for item in self.deployments],
            "rejected": [plain(item) for item in self.rejected],
            "bounds": [plain(item) for item in self.bounds],
        }


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
    data_type: str | None = None,
    progress: Callable[[int], None] | None = None,
    requests: int | None = None,
    servers: int = 1,
    queue: int | None = None,
    overflow: str = "reject",
    deadline: str | None = None,
    seed: int = 0,
    **limits: Any,
) -> Plan:
    """Search devices x mechanisms x thresholds x exit subsets for the best deployments that meet every limit.

    rate : Poisson arrivals at this rate, e.g. ``'10/s'``; or `arrivals` as for `simulate`; by default the workload's own.
        The load must be sustained.
    objective : 'energy' (per inference, idling included), 'latency' (mean), 'macs', or 'accuracy'.
    **limits : min_accuracy, min_balanced_accuracy, max_mean, max_p95, max_p99, max_energy (per inference, idling
        included), max_active_energy (without), max_miss_rate (with a deadline), fits.

    Thresholds and exits are chosen on the calibration split; every figure of a deployment is from the test split. The
    network without exits and the first exit alone need no choice, and are deployments wherever they keep every limit.
    """
    if objective not in PLAN_OBJECTIVES:
        raise unknown("objective", objective, PLAN_OBJECTIVES, field="objective")
    if rate is not None and arrivals is not None:
        raise BadInput("give either a rate or arrivals, not both", field="rate")
    if limits.get("max_miss_rate") is not None and deadline is None:
        raise BadInput("a limit on missed deadlines needs a deadline", field="deadline")
    if rate is not None:
        rate_hz(rate)
        arrivals = f"poisson:{rate}"
    load = Load(arrivals, requests, servers=servers, queue=queue, overflow=overflow, deadline=deadline, seed=seed)
    load.check()
    result = Plan(constraints_of(limits), objective)
    chosen, result.remarks = workloads_of(workloads)
    devices = devices_of(named(profiles, profile_names(), "profiles"), operating_points, data_type)
    rules = {rule.name: rule for rule in map(load_mechanism, named(mechanisms, mechanism_names(), "mechanisms")) if not rule.bound}
    if mechanisms is None or mechanisms == "all":
        trained = [name for name, rule in rules.items() if rule.trained]
        rules = {name: rule for name, rule in rules.items() if not rule.trained}
        if trained:
            result.remarks.append(f"left out unless named, because they are trained anew for every subset of exits: {', '.join(trained)}")
    rules = {"static": load_mechanism("static"), "first-exit": load_mechanism("first-exit"), **rules}
    for workload in chosen:
        seen: dict = {}
        for device in devices:
            _search(workload, device, able(workload, rules.values(), mechanisms, result.remarks), exits, load, result, seen)
            if progress:
                progress(1)
    result.deployments.sort(key=lambda item: _rank(item.summary, objective))
    for workload in chosen:
        best = next((item for item in [*result.deployments, *result.rejected] if item.candidate.workload is workload), None)
        if best is not None:
            result.bounds += _bounds(best.candidate, load, result.constraints)
    return result


def _search(workload: Workload, device: Device, rules: Iterable[Mechanism], exits: Any, load: Load, plan: Plan, seen: dict) -> None:
    """Add to the plan the best deployment of each mechanism on one device, or the nearest miss of all."""
    candidates = list(candidates_of(workload, device, rules, exits, seen))
    plan.candidates += len(candidates)
    rehearsal = replace(load, requests=None, split="calibration")
    missed: list[Deployment] = []
    kept = len(plan.deployments)
    for rule, group in groupby(candidates, key=lambda item: item.mechanism):
        ready = sorted(group, key=lambda item: item.cost(plan.objective))
        offered = ready if rule.bound else _worth_trying(ready, plan)

        def attempt(place: int, offered=offered, chosen=not rule.bound) -> Deployment | None:
            if chosen and (rehearsed := replay(offered[place], rehearsal, plan.constraints)).broken:
                missed.append(rehearsed)
                return None
            final = replay(offered[place], load, plan.constraints)
            plan.replayed += 1
            if final.broken:
                missed.append(final)
                return None
            return final

        if (found := _cheapest_that_holds(len(offered), attempt)) is not None:
            plan.deployments.append(found)
    if len(plan.deployments) == kept:
        plan.rejected.append(_nearest(missed, load, plan))


def _cheapest_that_holds(count: int, attempt: Callable[[int], Deployment | None]) -> Deployment | None:
    """The first of `count` settings, the cheapest first, that keeps every limit; few are attempted.

    What costs more is mostly more accurate: leaps forward until one holds, then halving back. Should none of those hold,
    the rest is gone through.
    """
    tried: dict[int, Deployment | None] = {}

    def holds(place: int) -> bool:
        if place not in tried:
            tried[place] = attempt(place)
        return tried[place] is not None

    low, place, step = -1, 0, 1
    while place < count and not holds(place):
        low, place, step = place, place + 1 if place == count - 1 else min(place + step, count - 1), 2 * step
    if place >= count:
        place = next((other for other in range(count) if other not in tried and holds(other)), count)
        return tried.get(place)
    while place - low > 1:
        middle = (low + place) // 2
        low, place = (low, middle) if holds(middle) else (middle, place)
    return tried[place]


def _worth_trying(candidates: list[Candidate], plan: Plan) -> list[Candidate]:
    """Settings of one mechanism that keep every limit in calibration as far as can be told without time: its front, cheapest first."""
    able = [item for item in candidates if all(item.could_keep(constraint) for constraint in plan.constraints)]
    qualities = [name for name in ("accuracy", "balanced_accuracy") if any(constraint.figure == name for constraint in plan.constraints)]
    found = front(able, plan.objective, qualities or ["accuracy"])
    if len(found) <= TRIES:
        return found
    return [found[place] for place in np.linspace(0, len(found) - 1, TRIES).round().astype(int)]


def _nearest(missed: list[Deployment], load: Load, plan: Plan) -> Deployment:
    """The miss that breaks its limits by the least, in shares of the limits, as replayed on the test split."""

    def excess(item: Deployment) -> float:
        return sum(min(constraint.excess(item.broken[constraint.name]), 1e9) for constraint in plan.constraints if constraint.name in item.broken)

    finals = [item for item in missed if item.summary["split"] == load.split]
    rehearsed = sorted((item for item in missed if item.summary["split"] != load.split), key=excess)
    for item in rehearsed[:4]:
        final = replay(item.candidate, load, plan.constraints)
        finals.append(final if final.broken else replace(final, broken=item.broken))  # broken in calibration only: not to be chosen
    return min(finals, key=excess)


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


def replay(candidate: Candidate, load: Load, constraints: list[Constraint]) -> Deployment:
    """Simulate one candidate and hold it against the constraints."""
    workload, rule = candidate.workload, candidate.mechanism
    view = workload.view(load.split, candidate.exits)
    scenario = compile_scenario(workload, view, candidate.price, rule, candidate.values, load)
    outcome = run(scenario)
    summary = Result((outcome,), setting(workload, candidate.price, rule, candidate.values, scenario, load)).summary()
    rate = scenario.process.rate_hz
    served = int(outcome.served.sum())
    memory = candidate.price.memory(candidate.exits, state_bytes(scenario.mechanism, view, candidate.values))
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
