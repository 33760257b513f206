"""Every profile against measurements that its fit has not seen, the way `eesim validate` shows it.

A finding is one quantity of one profile: signed relative errors (predicted / measured - 1) of the cases that were held out, how they were
held out, and the limits it should keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eesim.fidelity import mlperf_tiny
from eesim.fidelity.build import build
from eesim.hardware.fit import error_statistics

HOW = {
    "raspberry-pi-5": "100 NAS-Bench-201 networks, fitted on 300 others",
    "raspberry-pi-4": "each family of mobile networks predicted from the others",
    "odroid": "each family of mobile networks predicted from the others",
    "xavier-tflite": "each family of mobile networks predicted from the others",
    "h200": "a quarter of the weight shapes (n, k) with all their m",
    "a100": "a quarter of the weight shapes (n, k) with all their m",
    "l40s": "a quarter of the weight shapes (n, k) with all their m",
    "t4": "a quarter of the shapes of matrix products and convolutions",
}
"""Profile name, or how it begins -> how cases were held out; microcontrollers: `MCU`."""
MCU = "each network of the board left out together with all its repeats on that board and runtime"

LIMITS = {
    ("raspberry-pi-5-onnxruntime", "latency"): {"median": 0.015, "within_10pct": 0.965},
    ("raspberry-pi-5-onnxruntime", "energy"): {"median": 0.03, "within_10pct": 0.91},
    ("raspberry-pi-5-litert", "latency"): {"median": 0.015, "within_10pct": 0.965},
    ("raspberry-pi-5-litert", "energy"): {"median": 0.03, "within_10pct": 0.91},
    ("raspberry-pi-5-torchmobile", "latency"): {"median": 0.015, "within_10pct": 0.85},
    ("raspberry-pi-4-tflite-fp32", "latency"): {"mean": 0.06},
    ("raspberry-pi-4-tflite-fp32", "energy"): {"mean": 0.06},
    ("raspberry-pi-4-tflite-uint8", "latency"): {"mean": 0.06},
    ("raspberry-pi-4-tflite-uint8", "energy"): {"mean": 0.06},
    ("microcontrollers", "latency"): {"median": 0.09},
    ("microcontrollers", "energy"): {"median": 0.09},
    ("h200", "latency"): {"median": 0.10},
    ("a100", "latency"): {"median": 0.10},
    ("this machine, exits", "latency"): {"median": 0.10},
}
"""What is aimed at: medians and means at most, shares within 10 % at least."""


SERVING_LIMITS = {"p50_ms": 0.05, "p95_ms": 0.10, "p99_ms": 0.15, "utilization": 0.05}
"""Relative differences of a simulated from a real queue that are aimed at."""


@dataclass(frozen=True)
class Finding:
    """Errors of one quantity of one profile at one operating point or data type; `alone`: of a fit to that board alone, where that is compared."""

    profile: str
    at: str
    quantity: str
    errors: np.ndarray
    how: str
    alone: np.ndarray | None = None
    note: str = ""
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def statistics(self) -> dict[str, float]:
        """Median, mean and largest error, and the share within 10 %."""
        return error_statistics(1 + self.errors, np.ones_like(self.errors))

    @property
    def kept(self) -> bool | None:
        """Whether every limit is kept; None where there is none."""
        if not self.limits:
            return None
        found = self.statistics
        return all(found[name] >= value if name == "within_10pct" else found[name] <= value for name, value in self.limits.items())

    def record(self) -> dict[str, Any]:
        """As plain data."""
        alone = None if self.alone is None else error_statistics(1 + self.alone, np.ones_like(self.alone))["median"]
        return {
            "profile": self.profile, "at": self.at, "quantity": self.quantity, "cases": int(np.isfinite(self.errors).sum()), **self.statistics,
            "median_alone": alone, "limits": self.limits, "kept": self.kept, "how": self.how, "note": self.note,
        }  # fmt: skip


def finding(profile: str, at: str, quantity: str, errors: np.ndarray, how: str, **more: Any) -> Finding:
    """A finding with the limits that `LIMITS` has for it."""
    return Finding(profile, at, quantity, np.asarray(errors, float), how, limits=LIMITS.get((profile, quantity), {}), **more)


def from_raw_data(folder: Path) -> Iterator[Finding]:
    """Every profile fitted again from the folder `hardware` of the raw data, each with its held-out cases."""
    for document, rows in build(folder):
        for row in rows:
            if np.isfinite(row["held_out"]).any():
                how = next((text for name, text in HOW.items() if document["name"].startswith(name)), MCU)
                yield finding(row["profile"], row["point"], row["what"], row["held_out"], how, alone=row.get("alone"))


def microcontrollers(progress: Callable[[int], None] = lambda steps: None) -> list[Finding]:
    """All systems of the published table, shipped or not: one network of one board and runtime left out at a time. Needs no raw data."""
    pool = mlperf_tiny.Pool("mcu", mlperf_tiny.read_published())
    plain = [index for index, system in enumerate(pool.systems) if system[3] not in (*mlperf_tiny.ACCELERATED, "TFLM Andes")]
    found: dict[str, list[np.ndarray]] = {"latency": [], "energy": [], "latency alone": [], "energy alone": []}
    for system in plain:
        for suffix, alone in (("", False), (" alone", True)):
            latency, energy = pool.held_out(system, alone=alone)
            found["latency" + suffix].append(latency / pool.latency_ms[system] - 1)
            found["energy" + suffix].append(energy / pool.energy_uj[system] - 1)
        progress(1)
    note = f"{len(plain)} systems of {len({pool.systems[index][2] for index in plain})} boards; vector units and matrix accelerators apart"
    return [
        finding("microcontrollers", "all", what, np.concatenate(found[what]), MCU, alone=np.concatenate(found[f"{what} alone"]), note=note)
        for what in ("latency", "energy")
    ]


SYSTEMS = sum(system[1] == "mcu" and system[3] not in (*mlperf_tiny.ACCELERATED, "TFLM Andes") for system in mlperf_tiny.SYSTEMS)
"""How many steps `microcontrollers` reports."""
