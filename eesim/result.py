"""The result of a simulation: figures as a dictionary, requests as a table."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.engine.outcome import Outcome, weigh
from eesim.engine.scenario import Scenario
from eesim.engine.statistics import Durations
from eesim.hardware import trust
from eesim.trace.view import TraceView
from eesim.units import round_half_even

if TYPE_CHECKING:
    import pandas

    from eesim.cost import PathCosts
    from eesim.hardware import Profile

FEWEST_LABELLED = 50
"""Balanced accuracy averages over classes with at least this many labelled samples in the split."""


@dataclass(frozen=True)
class Result:
    """What `eesim.simulate` returns. `setting` says what was simulated; `warnings` what to be careful about."""

    outcomes: tuple[Outcome, ...]
    setting: dict[str, Any]
    warnings: tuple[str, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def summary(self) -> dict[str, Any]:
        """All figures by name. Times in ms, energies in mJ, None for what is not known.

        With replications the figures are means over them, and `confidence` holds 95 % intervals (Student's t) around them.
        """
        if "summary" not in self._cache:
            runs = [figures(outcome) for outcome in self.outcomes]
            merged = runs[0] if len(runs) == 1 else _means(runs)
            if len(runs) > 1:
                merged["confidence"] = {"level": 0.95, "replications": len(runs), **_intervals(runs)}
            self._cache["summary"] = {**self.setting, "engine": self.outcomes[0].engine, **merged, "warnings": list(self.warnings)}
        return deepcopy(self._cache["summary"])

    def band(self) -> dict[str, Any]:
        """Latency and energy if every layer, head and decision took 1 sigma less, or more: what the profile's own error does to the run.

        Returns `latency_ms` and `wait_ms` as in the summary, `energy_mj` with its mean and total, and `utilization`, each a pair [low,
        high]; the load is simulated again with scaled costs (the first replication), so queues grow as they would. None where the
        sigma or the figure is not known.
        """
        if "band" not in self._cache:
            self._cache["band"] = _band(self.outcomes[0], self.summary()["uncertainty"])
        return deepcopy(self._cache["band"])

    @cached_property
    def requests(self) -> pandas.DataFrame:
        """One row per request (of the first replication), in order of arrival.

        Columns: sample_id, arrival_ns, start_ns, response_ns, finish_ns (int64, -1 where dropped), exit (as recorded; -1
        none), prediction, correct (1, 0, -1 no label), energy_nj (active; missing where the profile cannot give it).
        The columns share memory with the result and are read-only.
        """
        import pandas as pd

        outcome = self.outcomes[0]
        timeline = outcome.timeline
        decided, verdicts = timeline.decided, timeline.decided.verdicts
        columns = {
            "sample_id": np.resize(verdicts.sample_id, timeline.start.size),
            "arrival_ns": timeline.arrival,
            "start_ns": timeline.start,
            "response_ns": timeline.response,
            "finish_ns": timeline.finish,
            "exit": np.resize(verdicts.exit, timeline.start.size),
            "prediction": np.resize(verdicts.prediction, timeline.start.size),
            "correct": np.resize(verdicts.correct, timeline.start.size),
            "energy_nj": None if decided.energy_nj is None else np.resize(decided.energy_nj, timeline.start.size),
        }
        if outcome.scenario.capacity >= 0 and (lost := timeline.start < 0).any():
            for name, nothing in (("exit", -1), ("prediction", -1), ("correct", -1), ("energy_nj", 0)):
                if columns[name] is not None:
                    columns[name][lost] = nothing
        for column in columns.values():
            if column is not None:
                column.flags.writeable = False
        return pd.DataFrame(columns, copy=False)

    def __getitem__(self, name: str) -> Any:
        """A figure by name, dots reaching into groups: ``result["latency_ms.p99"]``."""
        value: Any = self.summary()
        for part in name.split("."):
            value = value[part]
        return value

    def __repr__(self) -> str:
        keys = ("workload", "profile", "mechanism", "accuracy", "requests")
        return f"<eesim result: {', '.join(f'{key} {self.summary()[key]}' for key in keys)}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in flatten(self.summary()).items())
        return f"<table>{rows}</table>"


def figures(outcome: Outcome) -> dict[str, Any]:
    """The figures of one run."""
    scenario, costs = outcome.scenario, outcome.decided.costs
    kinds, paths = outcome.tally
    served, counted = int(outcome.served.sum()), int(paths.sum())
    requests = scenario.requests - scenario.warmup
    horizon = outcome.horizon_ns
    right, labelled = kinds[:, 1:, 1].sum(axis=(0, 2)), kinds[:, 1:].sum(axis=(0, 2, 3))
    balanced, classes = balanced_accuracy(right, labelled, scenario.view)
    return {
        "accuracy": share(int(right.sum()), int(labelled.sum())),
        "balanced_accuracy": balanced,
        "balanced_classes": classes,
        "agreement": share(int(kinds[..., 1].sum()), counted),
        **latency_figures(outcome.latency, outcome.wait),
        "energy_mj": energy_figures(scenario, outcome.active_nj, outcome.busy_ns, horizon, served),
        "active_mj_mean": None if outcome.active_nj is None or not served else outcome.active_nj / served / 1e6,
        "exit_fractions": [share(int(count), counted) for count in kinds[1:].sum(axis=(1, 2, 3))],
        "macs_mean": share(weigh(paths, costs.macs), counted),
        "decision_ops_mean": share(weigh(paths, costs.operations), counted),
        "utilization": share(outcome.busy_ns, scenario.servers * horizon),
        "throughput_hz": share(served * 10**9, horizon),
        "dropped": outcome.dropped,
        "deadline_miss_rate": None if scenario.deadline_ns < 0 else share(outcome.late + outcome.dropped, requests),
        **uncertainty(scenario.cost.cost.profile, costs, paths),
        "requests": requests,
        "percentiles": "exact" if outcome.latency.exact else "histogram",
    }


def uncertainty(profile: Profile, costs: PathCosts, paths: np.ndarray) -> dict[str, Any]:
    """The worst grade of trust a run rests on, the relative 1-sigma of its mean service time and active energy, and the share of
    time of each grade (`eesim.hardware.trust`).

    paths : int64 [P], how often each path was taken.
    """
    amounts = {quantity: dict(zip(trust.GRADES, (paths @ each).tolist(), strict=True)) for quantity, each in costs.by_grade.items()}
    time = amounts["latency"]
    sigmas = {quantity: trust.band(profile, quantity, amounts[quantity]) if quantity in amounts else None for quantity in trust.QUANTITIES}
    shares = {name: share(amount, sum(time.values())) for name, amount in time.items()}
    return {"trust": trust.worst(name for name, amount in time.items() if amount), "uncertainty": {**sigmas, "shares": shares}}


def _band(outcome: Outcome, sigmas: dict[str, Any]) -> dict[str, Any]:
    from eesim.engine.chooser import run

    sides = []
    for sign in (-1, +1):
        time, energy = (max(1 + sign * (sigmas[quantity] or 0.0), 0.01) for quantity in trust.QUANTITIES)
        scenario = outcome.scenario
        again = replace(scenario, cost=replace(scenario.cost, cost=scenario.cost.cost.scaled(time, energy)))
        # where nothing waits with the costs as they are, something may with higher ones, and another engine has to take over
        sides.append(figures(run(again, "auto" if outcome.engine in ("counts", "lindley") else outcome.engine)))

    def pair(low: Any, high: Any) -> Any:
        if isinstance(low, dict):
            return {name: pair(low[name], high[name]) for name in low}
        return None if low is None or high is None else sorted((low, high))

    low, high = sides
    wanted = {name: pair(low[name], high[name]) for name in ("latency_ms", "wait_ms", "utilization")}
    known = sigmas["energy"] is not None
    return wanted | {"energy_mj": {name: pair(low["energy_mj"][name], high["energy_mj"][name]) if known else None for name in ("mean", "total")}}


def latency_figures(latency: Durations, wait: Durations) -> dict[str, dict[str, float | None]]:
    """Latency and wait in ms: means, percentiles, and the longest latency."""
    return {
        "latency_ms": {"mean": _ms(latency.mean), **_percentiles(latency, 50, 95, 99), "max": _ms(latency.largest)},
        "wait_ms": {"mean": _ms(wait.mean), **_percentiles(wait, 95, 99)},
    }


def energy_figures(scenario: Scenario, active: int | None, busy_ns: int, horizon_ns: int, served: int) -> dict[str, float | None]:
    """Run totals in mJ; `mean` is the total over the served requests. Idle power is converted once, from summed ns."""
    priced = scenario.cost.cost
    point = priced.profile.point(priced.operating_point)
    idle_ns = scenario.servers * horizon_ns - (0 if priced.profile.energy_scope.idle == "subtracted" else busy_ns)
    idle = None if point.idle_mw is None else round_half_even(point.idle_mw * idle_ns * 1e-3)
    total = None if active is None or idle is None else active + idle
    parts = {"active": active, "idle": idle, "sleep": 0, "transition": 0, "link": 0, "total": total}
    mean = None if total is None or not served else total / served / 1e6
    return {"mean": mean, **{name: None if value is None else value / 1e6 for name, value in parts.items()}}


def balanced_accuracy(right: np.ndarray, labelled: np.ndarray, view: TraceView) -> tuple[float | None, list[str]]:
    """Mean recall, and the names of the classes it is over: those with enough labelled samples in the split, if any was served.

    right, labelled : int64 [K], how many of each class were answered rightly, and in all.
    """
    enough = [int(index) for index in np.flatnonzero(view.class_counts >= FEWEST_LABELLED) if labelled[index]]
    recalls = [int(right[index]) / int(labelled[index]) for index in enough]
    return (sum(recalls) / len(recalls) if recalls else None), [str(view.trace.header.classes[index]) for index in enough]


def share(part: int, whole: int) -> float | None:
    """part / whole, None where there is nothing to divide by."""
    return part / whole if whole else None


def _ms(ns: float) -> float | None:
    return None if math.isnan(ns) else ns / 1e6


def _percentiles(durations: Durations, *ranks: float) -> dict[str, float | None]:
    return {f"p{rank:g}": _ms(durations.percentile(rank)) for rank in ranks}


def flatten(figures: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures with joined names: ``latency_ms_mean``; exit fractions as ``exit_fraction_0``, …; other lists as text."""
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}_")
        elif name == "exit_fractions":
            flat |= {f"{prefix}exit_fraction_{index}": share for index, share in enumerate(value)}
        elif isinstance(value, (list, tuple)):
            flat[prefix + name] = ",".join(map(str, value))
        else:
            flat[prefix + name] = value
    return flat


def _means(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Figure by figure the mean over runs; None where any run has none, words and lists of words as in the first."""

    def mean(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: mean([value[name] for value in values]) for name in values[0]}
        if isinstance(values[0], list):
            return values[0] if values[0] and isinstance(values[0][0], str) else [mean(list(column)) for column in zip(*values, strict=True)]
        if any(value is None for value in values):
            return None
        if isinstance(values[0], str) or all(value == values[0] for value in values):
            return values[0]
        return sum(values) / len(values)

    return {name: mean([run[name] for run in runs]) for name in runs[0]}


def _intervals(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """95 % confidence intervals of the mean of each number: mean ± t * s / sqrt(R)."""
    from scipy.special import stdtrit

    factor = float(stdtrit(len(runs) - 1, 0.975)) / math.sqrt(len(runs))

    def interval(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: interval([value[name] for value in values]) for name in values[0]}
        if any(isinstance(value, (str, list)) or value is None for value in values):
            return None
        middle = sum(values) / len(values)
        spread = factor * math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))
        return [middle - spread, middle + spread]

    groups = {name: interval([run[name] for run in runs]) for name in runs[0] if name not in ("requests",)}
    return {name: value for name, value in groups.items() if value is not None}
