"""Poisson arrivals: independent exponential gaps, each rounded once to whole nanoseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eesim.arrivals import BLOCK, Process, check_horizon
from eesim.seeds import Seeds
from eesim.units import rate_hz

SYNTAX = "poisson:50/s"
PLAIN_ARRIVALS = 200_000
"""Up to here numpy is faster than loading compiled code; both draw the same times."""


@dataclass(frozen=True)
class Poisson(Process):
    """Exponential gaps of mean 1 / rate_hz. The first arrival comes one gap after t = 0."""

    random = True

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`."""
        mean = 1e9 / self.rate_hz
        check_horizon(count * mean * 1.5 + 100 * mean)
        rng = seeds.generator("arrivals")
        now = 0
        if count > PLAIN_ARRIVALS:
            from eesim.arrivals._compiled import exponential_times

            for start in range(0, count, size):
                times = np.empty(min(size, count - start), np.int64)
                now = exponential_times(rng, mean, now, times)
                yield times
            return
        for start in range(0, count, size):
            gaps = rng.standard_exponential(min(size, count - start))
            gaps *= mean
            times = np.rint(gaps, out=gaps).astype(np.int64)
            times[0] += now
            np.cumsum(times, out=times)
            now = int(times[-1])
            yield times


def parse(argument: str, recording) -> Poisson:
    """``50/s``."""
    return Poisson(f"poisson:{argument}", rate_hz(argument))
