"""What a run amounts to: how often each decided place was served, and the durations, kept until somebody asks for figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from eesim.engine.scenario import Decided, Scenario, Timeline
from eesim.engine.statistics import Durations, Measured


@dataclass(frozen=True)
class Outcome:
    """Tallies of one run.

    weights           int64 [len(decided)]: how often each place was served and counted (after warm-up)
    served            the same with the warm-up; run totals rest on it
    latency, wait     of the counted and served requests
    dropped, late     among the counted ones; late is only counted with a deadline
    horizon_ns        from t = 0 to the last completion
    """

    scenario: Scenario
    engine: str
    decided: Decided
    weights: np.ndarray
    served: np.ndarray
    latency: Durations
    wait: Durations
    dropped: int
    late: int
    horizon_ns: int
    build: Callable[[], Timeline] = field(repr=False)

    @cached_property
    def timeline(self) -> Timeline:
        """Per-request times, built on demand where the run did not need them."""
        return self.build()

    @cached_property
    def tally(self) -> tuple[np.ndarray, np.ndarray]:
        """Counted requests by exit, label, right and agreeing, and by path; see `Verdicts.tally`."""
        return self.decided.verdicts.tally(self.weights)

    @cached_property
    def _served_paths(self) -> np.ndarray:
        return self.tally[1] if self.served is self.weights else self.decided.verdicts.tally(self.served)[1]

    @cached_property
    def busy_ns(self) -> int:
        """Time all servers together spent computing, warm-up included."""
        return weigh(self._served_paths, self.decided.costs.service_ns)

    @property
    def active_nj(self) -> int | None:
        """Active energy of all served requests, warm-up included."""
        energy = self.decided.costs.energy_nj
        return None if energy is None else weigh(self._served_paths, energy)


def weigh(counts: np.ndarray, values: np.ndarray) -> int:
    """Sum of counts times values as a Python integer; never overflows."""
    return sum(int(count) * int(value) for count, value in zip(counts, values, strict=True))


def lap_counts(places: int, first: int, last: int) -> np.ndarray:
    """How often each of `places` is met by requests first .. last - 1, int64 [places]."""
    counts = np.full(places, (last - first) // places, np.int64)
    rest = (last - first) % places
    begin = first % places
    counts[begin : begin + rest] += 1
    counts[: max(begin + rest - places, 0)] += 1
    return counts


def lap_places(places: int, first: int, last: int) -> np.ndarray:
    """Places that requests first .. last - 1 meet, int64: first mod places, counting up and around."""
    begin = first % places
    laps = -(-(begin + last - first) // places)
    return np.tile(np.arange(places), laps)[begin : begin + last - first]


def outcome_of(scenario: Scenario, engine: str, timeline: Timeline) -> Outcome:
    """Tally a run whose requests are all kept."""
    decided, requests, warmup = timeline.decided, scenario.requests, scenario.warmup
    places = len(decided)
    kept = slice(None) if scenario.capacity < 0 else timeline.start >= 0
    if scenario.capacity < 0 or kept.all():
        served = lap_counts(places, 0, requests)
        weights = lap_counts(places, warmup, requests) if warmup else served
        counted: slice | np.ndarray = slice(warmup, None)
        dropped = 0
    else:
        place = lap_places(places, 0, requests)
        served = np.bincount(place[kept], minlength=places)
        dropped = int((~kept[warmup:]).sum())
        counted = kept.copy()
        counted[:warmup] = False
        weights = np.bincount(place[counted], minlength=places)
    latency = Measured(lambda: timeline.response[counted] - timeline.arrival[counted])
    wait = Measured(lambda: timeline.start[counted] - timeline.arrival[counted])
    late = int((latency.values > scenario.deadline_ns).sum()) if scenario.deadline_ns >= 0 else 0
    horizon = max(int(timeline.finish.max(initial=0)), 0)
    return Outcome(scenario, engine, decided, weights, served, latency, wait, dropped, late, horizon, lambda: timeline)
