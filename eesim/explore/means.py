"""Sweeps in lanes: all settings of a mechanism, and all devices, replayed together.

The figures equal those of `simulate` bit for bit. Where requests queue, percentiles need every wait and are None; where
nothing waits they are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.engine.outcome import weigh
from eesim.engine.replay import Replayed, groups, in_lanes, lanes_tally, replay, threshold_waits
from eesim.engine.scenario import Scenario
from eesim.engine.statistics import Counted
from eesim.explore.rows import point_row
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Mechanism, Path
from eesim.result import balanced_accuracy, energy_figures, latency_figures, share, uncertainty
from eesim.simulation import overload_warning, setting

if TYPE_CHECKING:
    from eesim.explore.space import Part

FEWEST_SETTINGS = 5
"""Below this many, a mechanism that is no threshold rule is replayed point by point: compiling for lanes takes longer."""


def mean_rows(part: Part, scenarios: Sequence[Scenario], times: np.ndarray | None, *, percentiles: bool) -> Iterator[dict[str, Any]] | None:
    """Rows of a part, or None where this way is not exact: it needs whole laps over one unlimited server and no deadline.

    times: arrivals, None in a closed loop. With `percentiles`, only where nothing waits.
    """
    first = scenarios[0]
    whole_laps = first.in_order and first.warmup == 0 and first.requests % first.places == 0
    simple = first.servers == 1 and first.capacity < 0 and first.deadline_ns < 0 and not first.asks_in_time
    if not (whole_laps and simple) or (percentiles and times is not None):
        return None
    many = len(part.settings) >= FEWEST_SETTINGS
    rows: list[tuple | None] = [None] * len(part.settings)
    for places, rule in groups(part.mechanism, part.settings):
        chosen = [part.settings[place] for place in places]
        if not isinstance(rule, ThresholdMechanism) and not (many and in_lanes(first.view, rule)):
            return None
        costs = [scenario.cost if rule is scenario.mechanism else scenario.cost.used_by(rule) for scenario in scenarios]
        try:
            found = _timed(first, rule, chosen, costs, times)
        except OverflowError:
            return None
        if found is None:
            return None
        counted, waited, horizons = found
        priced = [cost.paths(counted.paths) for cost in costs]
        for index, place in enumerate(places):
            rows[place] = (counted, index, priced, waited[:, index], None if horizons is None else horizons[:, index])
    return _rows(part, scenarios, rows, percentiles)


def _timed(scenario: Scenario, rule: Mechanism, settings: Sequence, costs: Sequence, times: np.ndarray | None):
    """Settings of one group replayed: what they do, total waits int64 [H, P], and last completions (None in a closed loop)."""
    view = scenario.view
    if times is None or isinstance(rule, ThresholdMechanism):
        parts = list(replay(view, rule, settings))
        if len(parts) != 1:
            return None  # it answers before it finishes computing
        if times is None:
            return parts[0], np.zeros((len(costs), len(settings)), np.int64), None
        services = np.stack([cost.paths(parts[0].paths).service_ns for cost in costs])
        return parts[0], *threshold_waits(view, rule, settings, services, times)
    paths = [Path(mask) for mask in range(1 << view.exits)]
    services = np.stack([cost.paths(paths).service_ns for cost in costs])
    span = int(times[-1]) + times.size * int(services.max())
    if span * times.size >= 2**63:
        raise OverflowError("total waits may leave int64")
    found = lanes_tally(view, rule, settings, services, np.diff(times, prepend=0))
    if found is None:
        return None
    masks, exits, hits, waited, left = found
    counted = Replayed(np.arange(len(settings)), tuple(paths), masks, exits, hits[:, 0], hits[:, 1], hits[:, 2:])
    return counted, waited, left + int(times[-1])


def _rows(part: Part, scenarios: Sequence[Scenario], rows: Sequence, percentiles: bool) -> Iterator[dict[str, Any]]:
    first = scenarios[0]
    view, laps = first.view, first.requests // first.places
    labelled = view.class_counts
    for values, (counted, index, costs, waits, horizons) in zip(part.settings, rows, strict=True):
        taken, exits = counted.counts[index] * laps, counted.exits[index] * laps
        served = int(taken.sum())
        balanced, names = balanced_accuracy(counted.class_correct[index], labelled, view)
        by_exit = [0.0] * view.trace.exits
        for exit, count in zip(view.recorded_exits, exits, strict=True):
            by_exit[exit] = int(count) / served
        for device, (place, scenario) in zip(part.devices, enumerate(scenarios), strict=True):
            cost = costs[place]
            busy, answered = weigh(taken, cost.service_ns), weigh(taken, cost.response_ns)
            horizon = busy if horizons is None else int(horizons[place])
            wait = int(waits[place])
            active = None if cost.energy_nj is None else weigh(taken, cost.energy_nj)
            if percentiles:
                times = latency_figures(Counted(cost.response_ns, taken), Counted([0], [served]))
            else:
                latency = {"mean": (wait + answered) / served / 1e6, "p50": None, "p95": None, "p99": None, "max": None}
                times = {"latency_ms": latency, "wait_ms": {"mean": wait / served / 1e6, "p95": None, "p99": None}}
            figures = {
                "accuracy": share(int(counted.correct[index]), int(labelled.sum())),
                "balanced_accuracy": balanced,
                "balanced_classes": names,
                "agreement": share(int(counted.agrees[index]), len(view)),
                **times,
                "energy_mj": energy_figures(scenario, active, busy, horizon, served),
                "active_mj_mean": None if active is None else active / served / 1e6,
                "exit_fractions": by_exit,
                "macs_mean": share(weigh(taken, cost.macs), served),
                "decision_ops_mean": share(weigh(taken, cost.operations), served),
                "utilization": share(busy, horizon),
                "throughput_hz": share(served * 10**9, horizon),
                "dropped": 0,
                "deadline_miss_rate": None,
                **uncertainty(scenario.cost.cost.profile, cost, taken),
                "requests": first.requests,
                "percentiles": "exact" if percentiles else "none",
            }
            described = setting(part.workload, scenario.cost.cost, part.mechanism, values, scenario, part.load)
            warnings = overload_warning(scenario, busy, served, horizon)
            summary = {**described, "engine": "counts" if horizons is None else "lindley", **figures, "warnings": warnings}
            yield point_row(part, values, device, summary, without_percentiles=not percentiles)
