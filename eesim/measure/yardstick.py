"""How fast the machine is just now: the same short computation, timed again and again.

The cores of shared machines are slowed down by what strangers run on the same silicon (the other thread of a core, caches,
memory, a common power limit). No clock sees that: one network took 80 us and 140 us within a minute. A computation that never
changes does: what was measured while it took longer than it can is left out.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

TOLERANCE = 1.1
"""Slower by this factor than the level is slow; on a quiet machine readings are within 3 % of each other."""
LEVEL = 0.002
"""The level is this quantile of all readings: the fastest, but for lucky ones."""
FEWEST = 20
"""So many undisturbed repeats are enough for a median."""
LEARN_S = 2.0
"""Read for so long before the first waiting; machines that are busy all the time have quiet moments of some 0.1 s each second."""
_TIMES = 9


class Yardstick:
    """Readings in ns of this thread's own time; `level`: what a reading is while nobody disturbs."""

    def __init__(self) -> None:
        self.readings: list[float] = []
        self._level, self._known = np.inf, 0
        self._square, self._long = np.ones((48, 48), np.float32), np.ones(4096, np.float32)  # small enough that BLAS starts no threads
        self._product, self._scaled = np.empty_like(self._square), np.empty_like(self._long)

    def read(self) -> float:
        """One reading, half arithmetic and half memory, as inference is; takes about 60 us, the first quarter to fill the caches."""
        self._work(_TIMES // 3)
        begin = time.thread_time_ns()
        self._work(_TIMES)
        self.readings.append(float(time.thread_time_ns() - begin))
        return self.readings[-1]

    def _work(self, times: int) -> None:
        for _ in range(times):
            np.matmul(self._square, self._square, out=self._product)
            np.multiply(self._long, 0.5, out=self._scaled)

    @property
    def level(self) -> float:
        """The quantile LEVEL of all readings so far; found again when there are 10 % more of them; infinite before the first."""
        if self.readings and len(self.readings) >= 1.1 * self._known:
            self._level, self._known = float(np.quantile(self.readings, LEVEL)), len(self.readings)
        return self._level

    def wait(self, until: float) -> float:
        """Read until the machine is not slow, or `until` (of `time.perf_counter`) is past; the last reading."""
        if not self.readings:
            self.learn()
        while self.slow(reading := self.read()) and time.perf_counter() < until:
            pass  # without sleep, after which a core is slow for a while
        return reading

    def learn(self, seconds: float = LEARN_S) -> None:
        """Read for some time, so that the level is known."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.read()

    def slow(self, reading: float) -> bool:
        """Whether the machine is slow at such a reading."""
        return reading > TOLERANCE * self.level

    def counted(self, readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which repeats count, bool [n], and what their durations are multiplied with, float [n], by the readings [n] around them (NaN: not read).

        Undisturbed ones count as they are. Where they are fewer than FEWEST, and than half, all count, slow ones scaled to the level: what the
        yardstick lost, networks lost too, within some 10 %.
        """
        readings = np.asarray(readings, float)
        slow = readings > TOLERANCE * self.level
        if (~slow).sum() >= min(FEWEST, len(slow) / 2):
            return ~slow, np.ones(len(slow))
        return np.ones(len(slow), bool), np.where(slow, self.level / readings, 1.0)


@cache
def yardstick() -> Yardstick:
    """The one of this process: the longer it runs, the better it knows what the machine can do."""
    return Yardstick()
