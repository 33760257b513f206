"""Pareto fronts."""

from __future__ import annotations

import numpy as np


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points that no other beats (cost lower and value at least as high, or the reverse), by rising cost.

    Points with a NaN are never on the front; of equal points the first is.
    """
    known = np.flatnonzero(~(np.isnan(cost) | np.isnan(value)))
    order = known[np.lexsort((known, -value[known], cost[known]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], value[order]]))[:-1]
    return order[value[order] > best]
