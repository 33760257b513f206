"""Energy counters of this machine: Intel's RAPL for processor packages, NVIDIA's NVML for graphics processors, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
LEAST_S = 1.0
"""Counters tick about every millisecond; over a second that is a thousandth."""


@dataclass(frozen=True)
class Meter:
    """A counter. rail: what it counts; read: millijoules since some time, wraps at `wrap_mj`; None and a sentence where there is none."""

    rail: str | None
    read: Callable[[], list[float]] | None
    wrap_mj: list[float]
    why_not: str | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of one inference in mJ, idle power included, and the idle power in mW of the same rail."""

    mj: float
    idle_mw: float
    rail: str


def find_meter(device: str = "cpu", powercap: Path = POWERCAP) -> Meter:
    """The counter for 'cpu' or 'cuda', or one without `read` that says in a sentence why there is none."""
    return _nvml() if device == "cuda" else _rapl(powercap)


def _rapl(powercap: Path) -> Meter:
    packages = [path for path in sorted(powercap.glob("intel-rapl:*")) if path.name.count(":") == 1]
    if not packages:
        why = f"no energy was measured: this machine shows no RAPL counters ({powercap}/intel-rapl*), virtual machines rarely do"
        return Meter(None, None, [], why)
    counters = [path / "energy_uj" for path in packages]
    try:
        for counter in counters:
            counter.read_text(encoding="ascii")
        wraps = [float((path / "max_energy_range_uj").read_text(encoding="ascii")) / 1e3 for path in packages]
    except PermissionError:
        return Meter(None, None, [], f"no energy was measured: {counters[0]} may only be read by root")
    except (OSError, ValueError) as error:
        return Meter(None, None, [], f"no energy was measured: {counters[0]} cannot be read ({error})")
    return Meter("processor package (RAPL)", lambda: [float(counter.read_text(encoding="ascii")) / 1e3 for counter in counters], wraps)


def _nvml() -> Meter:
    try:
        import pynvml
    except ImportError:
        return Meter(None, None, [], "no energy was measured: reading NVIDIA's counters needs the package pynvml (pip install nvidia-ml-py)")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML's errors have a class each and no common base that is public
        return Meter(None, None, [], f"no energy was measured: NVML says '{error}'")
    return Meter("whole graphics board (NVML)", lambda: [float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))], [float("inf")])


def idle_power(meter: Meter, seconds: float = LEAST_S) -> float | None:
    """Power in mW while nothing is done; None where there is no counter."""
    if meter.read is None:
        return None
    begin, clock = meter.read(), time.perf_counter()
    time.sleep(max(seconds, LEAST_S))
    return _spent(meter, begin) / (time.perf_counter() - clock)


def measure_energy(meter: Meter, run: Callable[[], object], idle_mw: float | None = None, seconds: float = LEAST_S) -> Energy | None:
    """Energy of one `run()`, over at least a second of them; None where there is no counter. idle_mw: of `idle_power`."""
    if meter.read is None:
        return None
    begin, end, count = meter.read(), time.perf_counter() + max(seconds, LEAST_S), 0
    while time.perf_counter() < end or not count:
        run()
        count += 1
    return Energy(_spent(meter, begin) / count, float("nan") if idle_mw is None else idle_mw, str(meter.rail))


def _spent(meter: Meter, begin: list[float]) -> float:
    """Millijoules since `begin`, with one wrap of each counter seen through."""
    assert meter.read is not None
    return sum((now - then) if now >= then else (now - then + wrap) for now, then, wrap in zip(meter.read(), begin, meter.wrap_mj, strict=True))
