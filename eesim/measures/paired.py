"""Paired comparison of two runs over the same samples: differences with bootstrap confidence intervals.

Samples of one stream resemble each other, so what is drawn again is whole streams where there are at least ten, and else
a hundred runs of neighbouring samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ENOUGH_STREAMS = 10
RUNS = 100
DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference and its confidence interval at `LEVEL`; a tie where the interval holds 0."""

    value: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether the interval holds 0: the data do not tell the two apart."""
        return self.low <= 0.0 <= self.high


def units(streams: np.ndarray) -> np.ndarray:
    """What is drawn again together: a number for each of N samples, from their streams int [N] in recorded order."""
    _, codes = np.unique(streams, return_inverse=True)
    if codes.max(initial=-1) + 1 >= ENOUGH_STREAMS:
        return codes
    return np.arange(codes.size) * RUNS // max(codes.size, 1) if codes.size > RUNS else np.arange(codes.size)


@lru_cache(maxsize=4)
def draws(count: int, seed: int = 0) -> np.ndarray:
    """How often each of `count` units is drawn, int64 [DRAWS, count]; the same for all comparisons of equal count and seed."""
    return np.random.default_rng([seed, count]).multinomial(count, np.full(count, 1 / count), DRAWS)


def difference(
    ours: np.ndarray, theirs: np.ndarray, unit: np.ndarray, weight: np.ndarray | None = None, *, relative: bool = False, seed: int = 0
) -> Difference | None:
    """Mean of `ours` minus mean of `theirs`, float [N] each, NaN where not known; `relative`: divided by the mean of theirs.

    unit [N] names what is drawn again together, weight [N] says how often each counts, by default once.
    None where nothing is known of both, or where there is nothing to divide by.
    """
    known = ~(np.isnan(ours) | np.isnan(theirs))
    if not known.any():
        return None
    _, codes = np.unique(unit[known], return_inverse=True)
    count = int(codes.max()) + 1
    often = np.ones(int(known.sum())) if weight is None else weight[known].astype(float)
    sums = [np.bincount(codes, values * often, count) for values in (ours[known], theirs[known], np.ones(often.size))]
    again = draws(count, seed)
    mine, other, size = (again @ total for total in sums)
    base = other if relative else size
    if sums[1].sum() == 0 and relative:
        return None
    kept = base != 0
    spread = (mine - other)[kept] / base[kept]
    value = float((sums[0].sum() - sums[1].sum()) / (sums[1].sum() if relative else sums[2].sum()))
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(value, float(low), float(high))
