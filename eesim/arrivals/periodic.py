"""Periodic arrivals, the sensor's clock: request i at i * period, late by a uniform draw from 0 to `jitter`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eesim.arrivals import BLOCK, Process, check_horizon
from eesim.errors import BadInput
from eesim.seeds import Seeds
from eesim.units import duration_ns

SYNTAX = "periodic:20ms[,jitter=2ms]"


@dataclass(frozen=True)
class Periodic(Process):
    """One arrival every `period_ns`, each delayed by U(0, jitter_ns), jitter at most the period so that order holds."""

    period_ns: int = 0
    jitter_ns: int = 0

    @property
    def random(self) -> bool:
        """Only jitter is drawn."""
        return self.jitter_ns > 0

    def spacing(self, count: int) -> tuple[int, int] | None:
        """See `Process.spacing`; unknown with jitter."""
        check_horizon(count * self.period_ns)
        return None if self.jitter_ns else (self.period_ns, (count - 1) * self.period_ns)

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`."""
        check_horizon(count * self.period_ns)
        rng = seeds.generator("arrivals")
        for start in range(0, count, size):
            times = np.arange(start, min(start + size, count), dtype=np.int64) * self.period_ns
            if self.jitter_ns:
                times += np.rint(rng.random(times.size) * self.jitter_ns).astype(np.int64)
            yield times


def parse(argument: str, recording) -> Periodic:
    """``20ms`` or ``20ms,jitter=2ms``."""
    period_text, comma, rest = argument.partition(",")
    period = duration_ns(period_text, "period", positive=True)
    jitter = 0
    if comma:
        key, _, value = rest.partition("=")
        if key.strip() != "jitter" or not value:
            raise BadInput(f"'{rest}' is not understood; did you mean 'jitter=2ms'?")
        jitter = duration_ns(value, "jitter")
        if jitter > period:
            raise BadInput(f"jitter '{value}' is longer than the period '{period_text}'; arrivals would overtake each other")
    return Periodic(f"periodic:{argument}", 1e9 / period, period_ns=period, jitter_ns=jitter)
