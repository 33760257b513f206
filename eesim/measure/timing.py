"""Timing something again and again, and robust statistics of what it took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from eesim.errors import unknown

FEWEST, MOST = 20, 20_000
"""Repeats when a time is given and not their number."""
WARM_BLOCKS, WARM_S, STEADY = 12, 5.0, 0.02
"""Warm-up ends when the median of a block of repeats is within STEADY of that of the block before, or after so many blocks or seconds."""
BLOCK = 10
OUTLIER = 1.5
"""A repeat that took so many times the median was disturbed, whatever disturbed it."""
CLOCKS = {"wall": time.perf_counter_ns, "own": time.thread_time_ns}
"""'wall' runs on; 'own' stands still while the system gives the core to other programs. Where a machine is shared, 'own' shows what
it would do alone, but for caches that others empty, and what a clock that asks the kernel costs (some tenths of a microsecond)."""


def clock_of(name: str) -> Callable[[], int]:
    """A clock in ns by name. Raises BadInput for an unknown one."""
    if name not in CLOCKS:
        raise unknown("clock", name, CLOCKS, field="clock")
    return CLOCKS[name]


@dataclass(frozen=True)
class Timing:
    """Statistics of n repeats, in ns.

    middle : mean of the middle half of the repeats: as robust as the quartiles, and finer than a coarse clock
    disturbed : share of repeats during which the system took the core away, or that took more than 1.5 medians
    drift : median of the last third over that of the first, minus 1
    """

    median: float
    middle: float
    mean: float
    iqr: float
    least: float
    p95: float
    repeats: int
    disturbed: float
    drift: float


def summary(durations: np.ndarray, preempted: np.ndarray | None = None) -> Timing:
    """Statistics of durations [n] in ns, n >= 1; preempted bool [n]: repeats known to have been disturbed."""
    values = np.asarray(durations, float)
    ordered = np.sort(values)
    low, median, high = np.quantile(ordered, [0.25, 0.5, 0.75])
    edge = len(values) // 4
    third = max(len(values) // 3, 1)
    odd = values > OUTLIER * median
    if preempted is not None:
        odd |= np.asarray(preempted, bool)
    first = float(np.median(values[:third]))
    return Timing(
        float(median), float(ordered[edge : len(values) - edge].mean()), float(values.mean()), float(high - low), float(ordered[0]),
        float(np.quantile(ordered, 0.95)), len(values), float(odd.mean()), float(np.median(values[-third:])) / first - 1 if first else 0.0,
    )  # fmt: skip


def _switches() -> Callable[[], int]:
    """How often the system took the core away from this thread so far; always 0 where that cannot be asked."""
    try:
        import resource

        who = resource.RUSAGE_THREAD
    except (ImportError, AttributeError):
        return lambda: 0
    return lambda: resource.getrusage(who).ru_nivcsw


switches: Callable[[], int] = _switches()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without Python's garbage collector, which would stop the clock's owner at moments of its own choosing. May be nested."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def timed(run: Callable[[], object], repeats: int | None = None, seconds: float | None = None, clock: str = "wall") -> tuple[np.ndarray, np.ndarray]:
    """Durations int64 [n] in ns of `run()` by a clock of CLOCKS, and during which of them the system took the core away, bool [n].

    The clock 'own' does not count that time, so with it none is marked.

    n is `repeats`, or as many as fit into `seconds` (of the wall clock), between FEWEST and MOST.
    """
    ask, passed, asked = clock_of(clock), time.perf_counter_ns, switches
    durations: list[int] = []
    lost: list[bool] = []
    least, most = (repeats, repeats) if repeats is not None else (FEWEST, MOST)
    with undisturbed():
        end = None if seconds is None else passed() + int(seconds * 1e9)
        before = asked()
        while len(durations) < most and (len(durations) < least or (end is not None and passed() < end)):
            begin = ask()
            run()
            durations.append(ask() - begin)
            after = asked()
            lost.append(after != before and clock == "wall")
            before = after
    return np.array(durations, np.int64), np.array(lost, bool)


def warm(run: Callable[[], object], warmup: int | None = None) -> int:
    """Run until the time is stable, or `warmup` times; returns how often."""
    if warmup is not None:
        for _ in range(warmup):
            run()
        return warmup
    before, done, end = np.inf, 0, time.perf_counter() + WARM_S
    for _ in range(WARM_BLOCKS):
        median = float(np.median(timed(run, repeats=BLOCK)[0]))
        done += BLOCK
        if abs(median / before - 1) < STEADY or time.perf_counter() > end:
            break
        before = median
    return done
