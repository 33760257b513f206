"""Candidates of a plan: every setting of every mechanism over every subset of exits, with what calibration says of it without time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eesim.cost import MechanismCost, NetworkCost
from eesim.explore.constraints import Constraint
from eesim.explore.space import Device, subsets_of
from eesim.mechanisms.base import Mechanism, Values
from eesim.simulation import cached_price, settle
from eesim.tuning import evaluate
from eesim.workload import Workload

SETTINGS = 60
"""Settings of each mechanism and subset of exits that are weighed."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One setting of one mechanism on one device. Figures are of the calibration split, without time and queue.

    active_nj, idle_spared_nj: mean energy of an inference, and what idling costs less because the device is busy
    meanwhile (NaN where not known); latency_ns, p95_ns, p99_ns: of the answer when nothing waits.
    """

    workload: Workload
    device: Device
    price: NetworkCost
    exits: tuple[int, ...]
    mechanism: Mechanism
    values: Values
    accuracy: float
    balanced_accuracy: float
    active_nj: float
    idle_spared_nj: float
    latency_ns: float
    p95_ns: float
    p99_ns: float
    macs: float

    def cost(self, objective: str) -> float:
        """What is minimised; infinite where it is not known. Of the energy with idling, the part that depends on the setting."""
        figures = {"energy": self.active_nj - self.idle_spared_nj, "latency": self.latency_ns, "macs": self.macs, "accuracy": -self.accuracy}
        return np.inf if np.isnan(figures[objective]) else figures[objective]

    def could_keep(self, constraint: Constraint) -> bool:
        """Whether the constraint can hold: latencies and energies only grow once requests wait and the device idles."""
        known = {
            "accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, "latency_ms.mean": self.latency_ns / 1e6,
            "latency_ms.p95": self.p95_ns / 1e6, "latency_ms.p99": self.p99_ns / 1e6, "active_mj_mean": self.active_nj / 1e6,
        }  # fmt: skip
        value = known.get(constraint.figure)
        return value is None or bool(np.isnan(value)) or constraint.margin(value) >= -1e-12


def candidates_of(workload: Workload, device: Device, rules: Iterable[Mechanism], exits: Any, seen: dict) -> Iterator[Candidate]:
    """All candidates of one device, mechanism by mechanism. What does not depend on the device is remembered in `seen`."""
    price = cached_price(workload, device.profile, device.operating_point, device.data_type)
    point = price.profile.point(price.operating_point)
    idle_mw = 0.0 if price.profile.energy_scope.idle == "subtracted" or point.idle_mw is None else point.idle_mw
    subsets = subsets_of(exits, workload)
    sizes = [len(subset) for subset in subsets]
    fewest = {"static": min(sizes), "first-exit": min((size for size in sizes if size > 1), default=1)}
    for rule in rules:
        for subset in subsets:
            if len(subset) == 1 and rule.name != "static":
                continue
            if rule.bound and len(subset) > fewest[rule.name]:
                continue  # heads that are never asked need no flash
            view = workload.view("calibration", subset)
            key = (rule.name, subset)
            if key not in seen:
                found = [{}] if rule.bound else rule.candidates(view, SETTINGS)
                seen[key] = [settle(rule, values, workload, view) for values in found]
            settings = seen[key]
            said = evaluate(view, rule, settings, MechanismCost(price, subset, rule, view.classes))
            energy = said.cost["energy"]
            for index, values in enumerate(settings):
                yield Candidate(
                    workload, device, price, subset, rule, values, float(said.accuracy[index]), float(said.balanced_accuracy[index]),
                    np.nan if energy is None else float(energy[index]), float(said.cost["latency"][index]) * idle_mw * 1e-3,
                    *(float(said.cost[name][index]) for name in ("latency", "p95", "p99", "macs")),
                )  # fmt: skip


def front(candidates: Sequence[Candidate], objective: str, qualities: Sequence[str]) -> list[Candidate]:
    """Candidates that no other beats in cost, every quality and the 99th percentile of latency at once; the cheapest first."""
    if not candidates:
        return []
    figures = np.array([[item.cost(objective), *(-getattr(item, name) for name in qualities), item.p99_ns] for item in candidates])
    figures = np.nan_to_num(figures, nan=np.inf)
    kept: list[int] = []
    for place in np.lexsort(figures.T[::-1]):
        if not kept or not (figures[kept] <= figures[place]).all(axis=1).any():
            kept.append(int(place))
    return [candidates[place] for place in kept]
