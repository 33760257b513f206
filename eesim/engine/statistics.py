"""Statistics of durations: exact from arrays or from counted values, or from a log histogram where arrays would not fit.

Percentiles are nearest rank (inverted CDF): the smallest value that at least q percent of all values do not exceed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BINS_PER_OCTAVE_BITS = 7
"""128 bins per octave; a bin's middle is within 0.4 % of every value in it."""
BINS = (64 - BINS_PER_OCTAVE_BITS) << BINS_PER_OCTAVE_BITS


class Durations(ABC):
    """Mean, percentiles and maximum of durations in ns. NaN when there are none."""

    exact = True

    @property
    @abstractmethod
    def mean(self) -> float:
        """Arithmetic mean."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """Maximum."""

    @abstractmethod
    def percentile(self, q: float) -> float:
        """Nearest-rank percentile, 0 < q <= 100."""


class Measured(Durations):
    """Exact statistics of an int64 array, made and sorted when first asked for."""

    def __init__(self, values: Callable[[], NDArray[np.int64]]):
        self._make = values

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """The durations."""
        return self._make()

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.sort(self.values)

    @cached_property
    def mean(self) -> float:
        """Exact sum, one division."""
        return exact_sum(self.values) / self.values.size if self.values.size else float("nan")

    @cached_property
    def largest(self) -> float:
        """Maximum."""
        return float(self.values.max()) if self.values.size else float("nan")

    def percentile(self, q: float) -> float:
        """Nearest rank."""
        return float(self._sorted[rank(q, self.values.size)]) if self.values.size else float("nan")


class Counted(Durations):
    """Exact statistics of few distinct values that occur often."""

    def __init__(self, values: Sequence[int], counts: Sequence[int]):
        order = np.argsort(values, kind="stable")
        self.values, self.counts = np.asarray(values, np.int64)[order], np.asarray(counts, np.int64)[order]
        self.values, self.counts = self.values[self.counts > 0], self.counts[self.counts > 0]
        self.total = int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Exact sum, one division."""
        if not self.total:
            return float("nan")
        return sum(int(value) * int(count) for value, count in zip(self.values, self.counts, strict=True)) / self.total

    @property
    def largest(self) -> float:
        """Maximum."""
        return float(self.values[-1]) if self.total else float("nan")

    def percentile(self, q: float) -> float:
        """Nearest rank."""
        if not self.total:
            return float("nan")
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank(q, self.total), side="right")])


class Histogram(Durations):
    """Statistics gathered in constant memory: exact mean and maximum, percentiles within 0.4 %."""

    exact = False

    def __init__(self) -> None:
        self.bins, self.total, self.sum, self.maximum = np.zeros(BINS, np.int64), 0, 0, -1

    def add(self, values: np.ndarray) -> None:
        """Count the int64 `values`, none negative."""
        from eesim.engine.binning import count_logarithmically  # compiled code is loaded only where it is needed

        count_logarithmically(values, self.bins, BINS_PER_OCTAVE_BITS)
        self.total += values.size
        self.sum += exact_sum(values)
        self.maximum = max(self.maximum, int(values.max(initial=-1)))

    @property
    def mean(self) -> float:
        """Exact sum, one division."""
        return self.sum / self.total if self.total else float("nan")

    @property
    def largest(self) -> float:
        """Exact maximum."""
        return float(self.maximum) if self.total else float("nan")

    def percentile(self, q: float) -> float:
        """Middle of the bin that holds the nearest rank, never above the maximum."""
        if not self.total:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.bins), rank(q, self.total), side="right"))
        low, high = bin_edges(place)
        return min((low + high) / 2, float(self.maximum))


def rank(q: float, size: int) -> int:
    """Index of the nearest rank among `size` sorted values: ceil(q / 100 * size) - 1, without rounding errors."""
    numerator, denominator = float(q).as_integer_ratio()
    return max(-(-numerator * size // (100 * denominator)) - 1, 0)


def exact_sum(values: np.ndarray) -> int:
    """Sum of non-negative int64 values as a Python integer; never overflows."""
    if values.size == 0:
        return 0
    if int(values.max()) * values.size < 2**63:
        return int(values.sum())
    return (int((values >> 31).sum()) << 31) + int((values & (2**31 - 1)).sum())


def bin_edges(place: int) -> tuple[int, int]:
    """Smallest and largest whole value counted in a bin of the log histogram."""
    width = 1 << BINS_PER_OCTAVE_BITS
    if place < 2 * width:
        return place, place
    octave = (place >> BINS_PER_OCTAVE_BITS) - 1
    low = (width + (place & (width - 1))) << octave
    return low, low + (1 << octave) - 1
