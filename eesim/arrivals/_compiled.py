"""Compiled drawing of exponential gaps, for long runs; the same stream and the same times as numpy's."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def exponential_times(generator, mean, now, times):
    """Fill `times` int64 with arrivals after `now`: gaps drawn as `standard_exponential() * mean`, rounded half to even; returns the last."""
    for index in range(times.size):
        now += np.int64(np.rint(generator.standard_exponential() * mean))
        times[index] = now
    return now
