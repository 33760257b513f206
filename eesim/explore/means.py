"""Sweeps of threshold rules without percentiles: bit planes for the decisions, lanes for the queue, all devices at once.

The figures equal those of `simulate` bit for bit; percentiles, which need every wait, are None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.engine.lanes import waits
from eesim.engine.outcome import weigh
from eesim.engine.planes import tally
from eesim.engine.scenario import Scenario
from eesim.explore.rows import point_row
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import paths_by_exit
from eesim.result import balanced_accuracy, energy_figures, share
from eesim.simulation import overload_warning, setting

if TYPE_CHECKING:
    from eesim.explore.space import Part


def mean_rows(part: Part, scenarios: Sequence[Scenario], times: np.ndarray | None) -> Iterator[dict[str, Any]] | None:
    """Rows of a part, or None where this way is not exact: it needs whole laps over one unlimited server and no deadline."""
    first = scenarios[0]
    whole_laps = first.in_order and first.warmup == 0 and first.requests % first.places == 0
    simple = first.servers == 1 and first.capacity < 0 and first.deadline_ns < 0 and not first.asks_in_time
    if not (whole_laps and simple and isinstance(part.mechanism, ThresholdMechanism)):
        return None
    view, mechanism = first.view, part.mechanism
    bars = np.stack([mechanism.pack(values, view) for values in part.settings])
    counted = tally(mechanism.score(view), bars, view.correct == 1, view.answers == view.answers[:, -1:], (view.label, view.classes))
    costs = [scenario.cost.paths(paths_by_exit(view.exits, every_head=True)) for scenario in scenarios]
    if times is None:
        waited = np.zeros((len(scenarios), bars.shape[0]), np.int64)
        horizons = None
    else:
        try:
            waited, horizons = waits(mechanism.score(view), bars, np.stack([cost.service_ns for cost in costs]), times)
        except OverflowError:
            return None
    return _rows(part, scenarios, counted, costs, waited, horizons)


def _rows(part, scenarios, counted, costs, waited, horizons) -> Iterator[dict[str, Any]]:
    first = scenarios[0]
    view, laps = first.view, first.requests // first.places
    labelled = view.class_counts
    for index, values in enumerate(part.settings):
        exits = counted.exits[index] * laps
        served = int(exits.sum())
        balanced, names = balanced_accuracy(counted.class_correct[index], labelled, view)
        by_exit = [0.0] * view.trace.exits
        for exit, count in zip(view.recorded_exits, exits, strict=True):
            by_exit[exit] = int(count) / served
        for device, (place, scenario) in zip(part.devices, enumerate(scenarios), strict=True):
            cost = costs[place]
            busy, answered = weigh(exits, cost.service_ns), weigh(exits, cost.response_ns)
            horizon = busy if horizons is None else int(horizons[place, index])
            wait = int(waited[place, index])
            active = None if cost.energy_nj is None else weigh(exits, cost.energy_nj)
            figures = {
                "accuracy": share(int(counted.correct[index]), int(labelled.sum())),
                "balanced_accuracy": balanced,
                "balanced_classes": names,
                "agreement": share(int(counted.agrees[index]), len(view)),
                "latency_ms": {"mean": (wait + answered) / served / 1e6, "p50": None, "p95": None, "p99": None, "max": None},
                "wait_ms": {"mean": wait / served / 1e6, "p95": None, "p99": None},
                "energy_mj": energy_figures(scenario, active, busy, horizon, served),
                "active_mj_mean": None if active is None else active / served / 1e6,
                "exit_fractions": by_exit,
                "macs_mean": share(weigh(exits, cost.macs), served),
                "decision_ops_mean": share(weigh(exits, cost.operations), served),
                "utilization": share(busy, horizon),
                "throughput_hz": share(served * 10**9, horizon),
                "dropped": 0,
                "deadline_miss_rate": None,
                "requests": first.requests,
                "percentiles": "none",
            }
            described = setting(part.workload, scenario.cost.cost, part.mechanism, values, scenario, part.load)
            warnings = overload_warning(scenario, busy, served, horizon)
            summary = {**described, "engine": "counts" if horizons is None else "lindley", **figures, "warnings": warnings}
            yield point_row(part, values, device, summary, without_percentiles=True)
