"""Bursty arrivals: a two-state Markov-modulated Poisson process (MMPP-2).

The rate alternates between LOW and HIGH; the time spent in each is exponential with means TLOW and THIGH. It starts in
its stationary distribution. Arrivals are a unit-rate Poisson process pushed through the inverse of the integrated rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eesim.arrivals import BLOCK, Process, check_horizon
from eesim.errors import BadInput
from eesim.seeds import Seeds
from eesim.units import duration_ns, rate_hz

SYNTAX = "bursty:LOW/s,HIGH/s,TLOW,THIGH (for example bursty:5/s,50/s,10s,1s)"
MOST_CHANGES = 10
"""Mean changes of rate from one arrival to the next: with more, no burst holds two arrivals and only time is lost."""
DRAWN = 1024
"""Sojourns are drawn this many at a time, an even number."""


@dataclass(frozen=True)
class Bursty(Process):
    """Rates per ns and mean sojourns in ns of the two states."""

    rates: tuple[float, float] = (0.0, 0.0)
    sojourns: tuple[float, float] = (0.0, 0.0)

    random = True

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`."""
        check_horizon(count * 2e9 / self.rate_hz)
        rng, bursts = seeds.generator("arrivals"), seeds.generator("bursts")
        first = int(bursts.random() * sum(self.sojourns) >= self.sojourns[0])
        turns = np.arange(first, first + DRAWN) % 2
        sojourns, rates = np.array(self.sojourns)[turns], np.array(self.rates)[turns]
        times, integrals = np.zeros(1), np.zeros(1)
        unit = 0.0
        for start in range(0, count, size):
            steps = rng.standard_exponential(min(size, count - start))
            steps[0] += unit
            np.cumsum(steps, out=steps)
            unit = steps[-1]
            parts = [(times, integrals)]
            while parts[-1][1][-1] <= unit:
                lengths = bursts.standard_exponential(DRAWN) * sojourns
                parts.append((parts[-1][0][-1] + np.cumsum(lengths), parts[-1][1][-1] + np.cumsum(lengths * rates)))
            times, integrals = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            arrivals = np.rint(np.interp(steps, integrals, times))
            check_horizon(arrivals[-1])
            yield arrivals.astype(np.int64)
            passed = np.searchsorted(integrals, unit, side="right") - 1
            times, integrals = times[passed:], integrals[passed:]


def parse(argument: str, recording) -> Bursty:
    """``5/s,50/s,10s,1s``: the two rates, then the two mean sojourn times."""
    parts = [part.strip() for part in argument.split(",")]
    if len(parts) != 4:
        raise BadInput(f"'{argument}' has {len(parts)} parts instead of 4")
    low, high = rate_hz(parts[0], "LOW rate"), rate_hz(parts[1], "HIGH rate")
    if high < low:
        raise BadInput(f"HIGH rate '{parts[1]}' is below LOW rate '{parts[0]}'")
    sojourns = float(duration_ns(parts[2], "TLOW", positive=True)), float(duration_ns(parts[3], "THIGH", positive=True))
    mean = (low * sojourns[0] + high * sojourns[1]) / sum(sojourns)
    changes = 2e9 / sum(sojourns) / mean
    if changes > MOST_CHANGES:
        alike = f"'poisson:{mean:g}/s', which it comes close to"
        raise BadInput(f"the rate changes {changes:.0f} times from one arrival to the next; write longer TLOW and THIGH, or {alike}")
    return Bursty(f"bursty:{argument}", mean, rates=(low * 1e-9, high * 1e-9), sojourns=sojourns)
