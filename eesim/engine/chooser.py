"""Which engine may run a scenario, and the fastest of them."""

from __future__ import annotations

from functools import partial

import numpy as np

from eesim.engine.outcome import Outcome, lap_counts, outcome_of
from eesim.engine.scenario import UNLIMITED, Scenario, Timeline
from eesim.engine.statistics import Counted
from eesim.errors import BadInput, unknown
from eesim.units import INT64_MAX

ENGINES = ("auto", "counts", "lindley", "k-server", "calendar", "simpy")
KEPT_REQUESTS = 10**7
"""Longer runs keep no requests unless asked to; their percentiles come from a log histogram."""
PLAIN_REQUESTS = 200_000
"""Up to here numpy alone is faster than loading compiled code."""


def run(scenario: Scenario, engine: str = "auto", *, keep: bool | None = None) -> Outcome:
    """Run a scenario on an engine. keep: whether to keep every request; by default up to 10^7 of them.

    Raises BadInput for an engine that cannot run the scenario exactly, naming one that can.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES, field="engine")
    _check_horizon(scenario)
    reasons = obstacles(scenario)
    if engine == "auto":
        engine = next(name for name in ("counts", "lindley", "k-server", "calendar") if reasons[name] is None)
    elif reasons[engine] is not None:
        possible = next(name for name in ("lindley", "k-server", "calendar") if reasons[name] is None)
        raise BadInput(f"'{engine}' cannot run this scenario exactly: {reasons[engine]}; use '{possible}' or 'auto'", field="engine")
    if engine == "counts":
        return _counts(scenario)
    streams = scenario.requests > KEPT_REQUESTS if keep is None else not keep
    if streams and engine in ("lindley", "k-server"):
        from eesim.engine.streaming import stream

        return stream(scenario, lambda: run(scenario, engine, keep=True).timeline)
    timeline = {"lindley": _lindley, "k-server": _servers, "calendar": _calendar, "simpy": _oracle}[engine](scenario)
    return outcome_of(scenario, engine, timeline)


def obstacles(scenario: Scenario) -> dict[str, str | None]:
    """For each engine why it cannot run the scenario exactly, None where it can."""
    asks = "decisions depend on the queue" if scenario.asks_in_time else None
    oldest = "the queue drops its oldest request" if scenario.drop_oldest and scenario.capacity > 0 else None
    limited = "its queue is limited" if scenario.capacity != UNLIMITED else None
    many = "it has several servers" if scenario.servers > 1 else None
    closed = "its loop is closed" if scenario.process.closed else None
    nothing_waits = None if asks or _nothing_waits(scenario) else "requests may have to wait"
    return {
        "counts": asks or (many if closed else None) or nothing_waits,
        "lindley": asks or many or limited or closed,
        "k-server": asks or oldest,
        "calendar": None,
        "simpy": None,
    }


def _check_horizon(scenario: Scenario) -> None:
    cost = scenario.cost
    slowest = cost.sample_ns + int(cost.segment_ns.sum() + cost.head_ns.sum() + cost.decision_ns.sum())
    spacing = None if scenario.process.closed else scenario.process.spacing(scenario.requests)
    last = 0 if spacing is None else spacing[1]
    if last + scenario.requests * max(slowest, 1) > INT64_MAX // 2:
        raise BadInput("the run may be longer than int64 nanoseconds can hold (292 years); ask for fewer requests", field="requests")


def _nothing_waits(scenario: Scenario) -> bool:
    """Closed loops, and arrivals further apart than the longest service."""
    if scenario.process.closed:
        return True
    spacing = scenario.process.spacing(scenario.requests)
    return spacing is not None and spacing[0] >= int(scenario.decided.service_ns.max(initial=0))


def _counts(scenario: Scenario) -> Outcome:
    """No queue: how often each place was met is all there is to know."""
    decided, requests = scenario.decided, scenario.requests
    served = lap_counts(len(decided), 0, requests)
    weights = lap_counts(len(decided), scenario.warmup, requests) if scenario.warmup else served
    counts = decided.verdicts.tally(weights)[1]
    latency = Counted(decided.costs.response_ns, counts)
    wait = Counted([0], [int(counts.sum())])
    late = int(counts[decided.costs.response_ns > scenario.deadline_ns].sum()) if scenario.deadline_ns >= 0 else 0
    outcome = Outcome(scenario, "counts", decided, weights, served, latency, wait, 0, late, 0, partial(_counts_timeline, scenario))
    last_service = int(decided.service_ns[(requests - 1) % len(decided)])
    horizon = outcome.busy_ns if scenario.process.closed else scenario.process.spacing(requests)[1] + last_service
    return Outcome(scenario, "counts", decided, weights, served, latency, wait, 0, late, horizon, outcome.build)


def _counts_timeline(scenario: Scenario) -> Timeline:
    decided = scenario.decided
    service = np.resize(decided.service_ns, scenario.requests)
    if scenario.process.closed:
        finish = np.cumsum(service)
        arrival = start = finish - service
    else:
        arrival = start = scenario.times()
        finish = start + service
    return _timeline(scenario, arrival, start, finish)


def _timeline(scenario: Scenario, arrival: np.ndarray, start: np.ndarray, finish: np.ndarray) -> Timeline:
    decided = scenario.decided
    if decided.response_ns is decided.service_ns:
        response = finish
    else:
        response = start + np.resize(decided.response_ns, scenario.requests)
        response[start < 0] = -1
    return Timeline(arrival, start, response, finish, decided)


def _lindley(scenario: Scenario) -> Timeline:
    arrival = scenario.times()
    service = scenario.decided.service_ns
    if scenario.requests <= PLAIN_REQUESTS:
        start, finish = _plain_lindley(arrival, service)
    else:
        from eesim.engine.lindley import lindley

        start, finish = np.empty_like(arrival), np.empty_like(arrival)
        lindley(arrival, service, 0, 0, start, finish)
    return _timeline(scenario, arrival, start, finish)


def _plain_lindley(arrival: np.ndarray, service: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lindley's recursion without compiled code, from an empty system; exact, because all times are integers.

    With S the running sum of service times, start_i = S_{i-1} + max over j <= i of (arrival_j - S_{j-1}).
    """
    served = np.resize(service, arrival.size)
    before = np.cumsum(served) - served
    start = before + np.maximum.accumulate(arrival - before)
    return start, start + served


def _servers(scenario: Scenario) -> Timeline:
    from eesim.engine.lindley import closed_loop, servers

    service = scenario.decided.service_ns
    free = np.zeros(scenario.servers, np.int64)
    start, finish = np.empty(scenario.requests, np.int64), np.empty(scenario.requests, np.int64)
    if scenario.process.closed:
        closed_loop(service, 0, free, start, finish)
        return _timeline(scenario, start, start, finish)
    arrival = scenario.times()
    limited = scenario.capacity != UNLIMITED
    servers(arrival, service, 0, free, np.zeros(scenario.capacity if limited else 0, np.int64), 0 if limited else -1, start, finish)
    return _timeline(scenario, arrival, start, finish)


def _calendar(scenario: Scenario) -> Timeline:
    from eesim.engine.calendar import calendar

    return calendar(scenario)


def _oracle(scenario: Scenario) -> Timeline:
    from eesim.engine.oracle import oracle

    return oracle(scenario)
