"""Timing something again and again, and robust statistics of what it took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eesim.errors import unknown
from eesim.measure.yardstick import FEWEST, yardstick

MOST = 20_000
"""Repeats when a time is given and not their number; at least FEWEST."""
WARM_BLOCKS, WARM_S, STEADY = 12, 5.0, 0.02
"""Warm-up ends when the median of a block of repeats is within STEADY of that of the block before, or after so many blocks or seconds."""
BLOCK = 10
OUTLIER = 1.5
"""A repeat that took so many times the median was disturbed, whatever disturbed it."""
CLOCKS = {"wall": time.perf_counter_ns, "own": time.thread_time_ns}
"""'wall' runs on; 'own' stands still while the system gives the core to other programs, and what was timed while the machine was slow
(see `eesim.measure.yardstick`) is left out. Where a machine is shared, 'own' shows what it would do alone, but for what a clock that asks
the kernel costs (some tenths of a microsecond)."""
CHUNK_NS = 10_000_000
"""With the clock 'own' the yardstick is read so often."""
PATIENCE = 3.0
"""Where the machine is slow at times, what is measured may take so many times as long; and longer only for the FEWEST undisturbed repeats."""


LONGEST_S = 30.0
"""By the clock 'own' a slow machine is waited for so long at most."""


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
    left_out, scaled : share of repeats that were left out since the machine was slow, or scaled to what it can do; repeats : that count
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
    left_out: float = 0.0
    scaled: float = 0.0


class Repeats(NamedTuple):
    """durations : int64 [n] in ns; preempted : bool [n], the system took the core away meanwhile (never, by the clock 'own');
    reading : float [n], of the yardstick, the larger of before and after; NaN by the clock 'wall'."""

    durations: np.ndarray
    preempted: np.ndarray
    reading: np.ndarray

    @property
    def counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Which count, bool [n], and by what they are scaled, float [n]: see `Yardstick.counted`. As far as the machine is known by now."""
        return yardstick().counted(self.reading)


def joined(parts: Sequence[Repeats]) -> Repeats:
    """Several as one."""
    return Repeats(*map(np.concatenate, zip(*parts, strict=True)))


def summary(durations: np.ndarray, preempted: np.ndarray | None = None, counted: tuple[np.ndarray, np.ndarray] | None = None) -> Timing:
    """Statistics of durations [n] in ns, n >= 1.

    preempted : bool [n], repeats known to have been disturbed; counted : which count, and their scales, see `Repeats.counted`
    """
    values = np.asarray(durations, float)
    kept, scale = (np.ones(len(values), bool), 1.0) if counted is None else counted
    values = (values * scale)[kept]
    ordered = np.sort(values)
    low, median, high = np.quantile(ordered, [0.25, 0.5, 0.75])
    edge = len(values) // 4
    third = max(len(values) // 3, 1)
    odd = values > OUTLIER * median
    if preempted is not None:
        odd |= np.asarray(preempted, bool)[kept]
    first = float(np.median(values[:third]))
    return Timing(
        float(median), float(ordered[edge : len(values) - edge].mean()), float(values.mean()), float(high - low), float(ordered[0]),
        float(np.quantile(ordered, 0.95)), len(values), float(odd.mean()), float(np.median(values[-third:])) / first - 1 if first else 0.0,
        float(1 - kept.mean()), float(np.mean(np.asarray(scale) != 1)),
    )  # fmt: skip


def statistics(parts: Sequence[Repeats]) -> Timing:
    """`summary` of what counts in them."""
    repeats = joined(parts)
    return summary(repeats.durations, repeats.preempted, repeats.counted)


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


def timed(
    run: Callable[[], object], repeats: int | None = None, seconds: float | None = None, clock: str = "wall", until: float | None = None
) -> Repeats:  # fmt: skip
    """`run()` again and again, by a clock of CLOCKS.

    As often as `repeats` says, or as fits into `seconds` (of the wall clock), between FEWEST and MOST. With the clock 'own' there is a pause
    while the machine is slow, and repeats that met it are made again; `until` (of `time.perf_counter`, LONGEST_S from now without)
    nothing is waited for any more.
    """
    ask = clock_of(clock)
    least, most = (repeats, repeats) if repeats is not None else (FEWEST, MOST)
    with undisturbed():
        if clock == "own":
            return _patiently(run, ask, least, most, seconds, time.perf_counter() + LONGEST_S if until is None else until)
        end = 0 if seconds is None else time.perf_counter_ns() + int(seconds * 1e9)
        durations, lost = _block(run, ask, least, most, end)
    return Repeats(np.array(durations, np.int64), np.array(lost, bool), np.full(len(durations), np.nan))


def _block(run: Callable[[], object], ask: Callable[[], int], least: int, most: int, end_ns: int) -> tuple[list[int], list[bool]]:
    """At least `least` repeats, and until `most` or the end: durations, and whether the core was taken away."""
    durations: list[int] = []
    lost: list[bool] = []
    passed, asked = time.perf_counter_ns, switches
    before = asked()
    while len(durations) < most and (len(durations) < least or passed() < end_ns):
        begin = ask()
        run()
        durations.append(ask() - begin)
        after = asked()
        lost.append(after != before)
        before = after
    return durations, lost


def _patiently(run: Callable[[], object], ask: Callable[[], int], least: int, most: int, seconds: float | None, until: float) -> Repeats:
    """In chunks, with a reading of the yardstick before and after each; chunks that were slow do not count."""
    stick, now = yardstick(), time.perf_counter
    found: list[Repeats] = []
    begun, tried, good, worked = now(), 0, 0, 0.0
    while good < least or (seconds is not None and worked < seconds and good < most and now() < begun + PATIENCE * seconds):
        if tried >= least and now() > until:
            break
        before, start = stick.wait(until), now()
        durations, _ = _block(run, ask, 1, max(most - good, 1), time.perf_counter_ns() + CHUNK_NS)
        took, reading = now() - start, max(before, stick.read())
        tried += len(durations)
        if not stick.slow(reading):
            good, worked = good + len(durations), worked + took
        found.append(Repeats(np.array(durations, np.int64), np.zeros(len(durations), bool), np.full(len(durations), reading)))
    return joined(found)


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
