"""Limits that a deployment must keep: what they are about, whether they hold, and how much is to spare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eesim.errors import unknown
from eesim.units import duration_ns, energy_mj, fraction


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
        """How badly it is broken; 0 where it holds, infinite where the figure is not known.

        As a share of the limit; of an accuracy, as a share of the errors that the limit allows.
        """
        margin = self.margin(value)
        scale = 1.0 - self.limit if self.figure in ("accuracy", "balanced_accuracy") else self.limit
        return np.inf if margin is None else max(-margin, 0.0) / max(abs(scale), 1e-3)


LIMITS = (
    "min_accuracy", "min_balanced_accuracy", "max_mean", "max_p95", "max_p99", "max_energy", "max_active_energy", "max_miss_rate", "fits",
)  # fmt: skip


def constraints_of(limits: dict[str, Any]) -> list[Constraint]:
    """Constraints from their options. Latencies are responses under the load, energies are per inference (with idling, and without)."""
    for name in limits:
        if name not in LIMITS:
            raise unknown("limit", name, LIMITS, field=name)
    found = [Constraint("rate", "offered_load", 1.0, -1)]
    for name, figure in (("min_accuracy", "accuracy"), ("min_balanced_accuracy", "balanced_accuracy")):
        if (value := limits.get(name)) is not None:
            found.append(Constraint(name, figure, fraction(value, name.replace("_", " ")), +1))
    for name, figure in (
        ("max_mean", "latency_ms.mean"),
        ("max_p95", "latency_ms.p95"),
        ("max_p99", "latency_ms.p99"),
    ):
        if (value := limits.get(name)) is not None:
            found.append(Constraint(name, figure, duration_ns(value, name.replace("_", " "), positive=True) / 1e6, -1, "ms"))
    for name, figure in (("max_energy", "energy_mj.mean"), ("max_active_energy", "active_mj_mean")):
        if (value := limits.get(name)) is not None:
            found.append(Constraint(name, figure, energy_mj(value, name.replace("_", " ")), -1, "mJ"))
    if (value := limits.get("max_miss_rate")) is not None:
        found.append(Constraint("max_miss_rate", "deadline_miss_rate", fraction(value, "max miss rate"), -1))
    if limits.get("fits"):
        found.append(Constraint("fits", "fits", 1.0, +1))
    return found
