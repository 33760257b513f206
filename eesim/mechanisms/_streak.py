"""Rules that ask for a streak: the same condition met at several exits in a row."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Values
from eesim.trace.view import TraceView


def weakest_of_last(scores: np.ndarray, length: int, begin: int = 0) -> np.ndarray:
    """The least of the last `length` scores up to each exit, float64 [N, E]; -inf where exits from `begin` on are fewer than that.

    A counter of exits in a row with score >= bar, set back to 0 by one that misses, reaches `length` where this does: the
    first time the least of the last `length` scores is at the bar is the first time the counter is at `length`.
    """
    weakest = np.full(scores.shape, -np.inf)
    for exit in range(begin + length - 1, scores.shape[1]):
        weakest[:, exit] = scores[:, exit - length + 1 : exit + 1].min(axis=1)
    return weakest


def streak_candidates(mechanism: ThresholdMechanism, view: TraceView, count: int, given: Values, longest: int) -> list[Values]:
    """Thresholds for each patience from 1 to `longest` (or the one that is given), about `count` in all, and one 'never'."""
    name = mechanism.parameters[0].name
    lengths = [given["patience"]] if "patience" in given else list(range(1, max(longest, 1) + 1))
    if name in given:
        return [{"patience": length} for length in lengths] if "patience" not in given else [{}]
    own = {} if "patience" in given else None
    found = []
    for length in lengths:
        levels = mechanism.thresholds(view, max(count // len(lengths), 2), {**given, "patience": length})
        found += [{**({"patience": length} if own is None else own), name: float(value)} for value in levels]
    return [*found, {**({"patience": lengths[0]} if own is None else own), name: "never"}]
