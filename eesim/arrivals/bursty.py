"""Bursty arrivals: a two-state Markov-modulated Poisson process (MMPP-2).

The rate alternates between LOW and HIGH; the time spent in each is exponential with means TLOW and THIGH. It starts in
its stationary distribution. Arrivals are a unit-rate Poisson process pushed through the inverse of the integrated rate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eesim.arrivals import BLOCK, Process, check_horizon
from eesim.errors import BadInput
from eesim.seeds import Seeds
from eesim.units import duration_ns, rate_hz

MOST_CHANGES = 2e7
"""Changes of rate that one run may have: beyond, sojourns are so much shorter than gaps that bursts are not seen."""
SYNTAX = "bursty:LOW/s,HIGH/s,TLOW,THIGH (for example bursty:5/s,50/s,10s,1s)"


@dataclass(frozen=True)
class Bursty(Process):
    """Rates per ns and mean sojourns in ns of the two states."""

    rates: tuple[float, float] = (0.0, 0.0)
    sojourns: tuple[float, float] = (0.0, 0.0)

    random = True

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`."""
        check_horizon(count * 2e9 / self.rate_hz)
        changes = count * 1e9 / self.rate_hz * 2 / sum(self.sojourns)
        if changes > MOST_CHANGES:
            problem = f"'{self.text}' changes its rate about {changes:.1e} times in {count} requests, more than {MOST_CHANGES:.0e}"
            raise BadInput(f"{problem}; write longer TLOW and THIGH, or 'poisson:{self.rate_hz:g}/s', which it comes close to", field="arrivals")
        rng, bursts = seeds.generator("arrivals"), seeds.generator("bursts")
        state = int(bursts.random() * sum(self.sojourns) >= self.sojourns[0])
        times, integrals = [0.0], [0.0]
        unit = 0.0
        for start in range(0, count, size):
            steps = rng.standard_exponential(min(size, count - start))
            steps[0] += unit
            np.cumsum(steps, out=steps)
            unit = float(steps[-1])
            while integrals[-1] <= unit:
                sojourn = bursts.standard_exponential() * self.sojourns[state]
                times.append(times[-1] + sojourn)
                integrals.append(integrals[-1] + sojourn * self.rates[state])
                state = 1 - state
            arrivals = np.rint(np.interp(steps, integrals, times))
            check_horizon(arrivals[-1])
            yield arrivals.astype(np.int64)
            reached = bisect_right(integrals, unit) - 1
            del times[:reached], integrals[:reached]


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
    return Bursty(f"bursty:{argument}", mean, rates=(low * 1e-9, high * 1e-9), sojourns=sojourns)
