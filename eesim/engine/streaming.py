"""Runs too long to keep: requests in blocks, statistics in constant memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eesim.arrivals import BLOCK
from eesim.engine.lindley import closed_loop, lindley, servers
from eesim.engine.outcome import Outcome, lap_counts, lap_places
from eesim.engine.scenario import UNLIMITED, Scenario, Timeline
from eesim.engine.statistics import Histogram


def stream(scenario: Scenario, build: Callable[[], Timeline]) -> Outcome:
    """Run a scenario of the Lindley or k-server kind block by block and keep no request; `build` makes them if they are wanted."""
    decided, process = scenario.decided, scenario.process
    service, response = decided.service_ns, decided.response_ns
    latency, wait = Histogram(), Histogram()
    weights = np.zeros(len(decided), np.int64)
    served_everywhere = np.zeros(len(decided), np.int64)
    free = np.zeros(scenario.servers, np.int64)
    limited = scenario.capacity != UNLIMITED
    recent, accepted = np.zeros(scenario.capacity if limited else 0, np.int64), 0 if limited else -1
    start, finish = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    first = dropped = late = 0
    last_finish = 0

    blocks = process.blocks(scenario.seeds, scenario.requests) if not process.closed else _sizes(scenario.requests)
    for block in blocks:
        size = block if process.closed else block.size
        begun, ended = start[:size], finish[:size]
        if process.closed:
            closed_loop(service, first, free, begun, ended)
            arrived = begun
        elif scenario.servers == 1 and not limited:
            free[0] = lindley(block, service, first, free[0], begun, ended)
            arrived = block
        else:
            accepted = servers(block, service, first, free, recent, accepted, begun, ended)
            arrived = block
        last_finish = max(last_finish, int(ended.max(initial=0)))
        skip = min(max(scenario.warmup - first, 0), size)
        places = lap_places(len(decided), first, first + size)
        if limited:
            kept = begun >= 0
            served_everywhere += np.bincount(places[kept], minlength=len(decided))
            dropped += int((~kept[skip:]).sum())
            kept[:skip] = False
            weights += np.bincount(places[kept], minlength=len(decided))
        else:
            kept = slice(skip, None)
            served_everywhere += lap_counts(len(decided), first, first + size)
            weights += lap_counts(len(decided), first + skip, first + size)
        waits = begun[kept] - arrived[kept]
        latencies = waits + response[places[kept]]
        wait.add(waits)
        latency.add(latencies)
        if scenario.deadline_ns >= 0:
            late += int((latencies > scenario.deadline_ns).sum())
        first += size
    engine = "counts" if process.closed and scenario.servers == 1 else "lindley" if scenario.servers == 1 and not limited else "k-server"
    return Outcome(scenario, engine, decided, weights, served_everywhere, latency, wait, dropped, late, last_finish, build)


def _sizes(count: int):
    for start in range(0, count, BLOCK):
        yield min(BLOCK, count - start)
