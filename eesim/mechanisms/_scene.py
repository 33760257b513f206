"""What rules share that compare a sample with the scene it may belong to (Difference Detection, Temporal Patience).

A scene is a run of samples of one stream whose class probabilities stay within a threshold of a reference. Three distances
between two probability vectors p and q: 'l2' ||p - q||_2, at most sqrt 2; 'l1' sum |p_k - q_k|, at most 2; 'cosine'
1 - cos(p, q), at most 1. Cosine distance is half the squared L2 distance of the vectors scaled to unit length, which is how
it is computed: equal vectors are then exactly 0 apart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numba.extending import register_jitable

from eesim.mechanisms.base import Mechanism, Parameter, Values
from eesim.trace.view import TraceView

FARTHEST = {"l2": math.sqrt(2), "l1": 2.0, "cosine": 1.0}
"""The largest distance that two probability vectors can have."""

THRESHOLD = Parameter(
    "threshold", 0.2, 0.0, FARTHEST["l2"], "largest change within a scene (L2 to 1.41421, L1 to 2, cosine to 1); 'never': every sample opens one",
    never=-1.0,
)  # fmt: skip
DISTANCE = Parameter("distance", "l2", choices=tuple(FARTHEST), help="between class probabilities: 'l2', 'l1' or 'cosine'")
REFERENCE = Parameter("reference", "scene", choices=("scene", "previous"), help="compare with what opened the scene, or with the sample before")
MAX_SCENE = Parameter("max_scene", "never", 1, help="samples after which a scene ends at the latest", integer=True, never=np.inf)
MOST_CANDIDATES = 64
"""Where scenes are long, accuracy over the threshold is a ragged line: few labels decide about many samples. The more
thresholds are tried, the luckier the best of them; with 500 instead of 64, Difference Detection tuned to lose one point
on har-wisdm loses five on the test split instead of two."""
PREVIOUS = REFERENCE.choices.index("previous")


class SceneMechanism(Mechanism):
    """Base of the rules with scenes: state per stream, one observation for all settings with the same distance."""

    state = "stream"

    def check(self, given: Mapping[str, Any], view: TraceView) -> Values:
        """As for every mechanism; the threshold may be as large as the given distance (L2 by default) can be."""
        distance = given.get("distance") if isinstance(given, Mapping) else None
        if not isinstance(distance, str) or FARTHEST.get(distance.strip().lower()) in (None, FARTHEST["l2"]):
            return super().check(given, view)
        wider = copy.copy(self)
        wider.parameters = (replace(self.parameters[0], high=FARTHEST[distance.strip().lower()]), *self.parameters[1:])
        return Mechanism.check(wider, given, view)

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """float64 [N, E, K + 2]: the vector that is compared, the majority vote of all exits (for the last row only), the exit's answer."""
        return view.derived(("scene", self.value(values, "distance") == "cosine"), lambda whole: _observed(whole, self.value(values, "distance")))

    def group(self, values: Values) -> tuple:
        """The distance."""
        return (self.value(values, "distance"),)

    def bar(self, threshold: float | str, distance: str) -> float:
        """What `unchanged` compares with, such that it says distance <= threshold; -1 for 'never'."""
        if threshold == "never":
            return -1.0
        if threshold >= FARTHEST[distance]:
            return math.inf  # rounding must not put two vectors farther apart than they can be
        return {"l2": largest_square, "l1": float, "cosine": lambda value: 2 * value}[distance](threshold)

    def exits_compared(self, view: TraceView) -> range:
        """Enabled exits whose changes the threshold decides about."""
        return range(view.exits)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Thresholds from the changes between samples of a stream that follow each other, and 'never'.

        Half at quantiles of changes from one sample to the next (rounded up to six digits), a quarter at quantiles of changes
        over 16 samples, because a scene drifts from its reference, a quarter at even steps over the whole range. At most
        `MOST_CANDIDATES`.
        """
        count = min(count, MOST_CANDIDATES)
        if "threshold" in (given or {}):
            return [{}]
        distance = self.value(given or {}, "distance")
        parts = [np.linspace(0, FARTHEST[distance], count // 4 + 1)]
        for lag, share in ((1, count - count // 4 - count // 4), (16, count // 4)):
            seen = np.concatenate([changes(view, exit, distance, lag) for exit in self.exits_compared(view)])
            if seen.size and share:
                parts.append(np.quantile(seen, np.linspace(0, 1, share), method="inverted_cdf"))
        values = np.minimum(np.ceil(np.concatenate(parts) * 1e6) / 1e6, FARTHEST[distance])
        return [{"threshold": float(value)} for value in np.unique(values)] + [{"threshold": "never"}]


def largest_square(threshold: float) -> float:
    """The largest float64 whose square root is at most `threshold`: comparing squares with it is comparing exactly."""
    square = threshold * threshold
    while math.sqrt(square) > threshold:
        square = math.nextafter(square, -math.inf)
    while math.sqrt(math.nextafter(square, math.inf)) <= threshold:
        square = math.nextafter(square, math.inf)
    return square


def vectors(view: TraceView, distance: str) -> np.ndarray:
    """Class probabilities float64 [N, E, K], scaled to unit length for the cosine distance."""
    found = view.probabilities
    return found / np.linalg.norm(found, axis=2, keepdims=True) if distance == "cosine" else found


def changes(view: TraceView, exit: int, distance: str, lag: int = 1) -> np.ndarray:
    """Distances at one enabled exit between samples of a stream that lie `lag` apart, float64, finite ones only."""
    seen, (streams, _) = vectors(view, distance)[:, exit], view.streams
    order = np.argsort(streams, kind="stable")
    before, after = order[:-lag], order[lag:]
    same = streams[before] == streams[after]
    difference = seen[after[same]] - seen[before[same]]
    if distance == "l1":
        found = np.abs(difference).sum(axis=1)
    else:
        squares = (difference * difference).sum(axis=1)
        found = squares / 2 if distance == "cosine" else np.sqrt(squares)
    return found[np.isfinite(found)]


def majority(answers: np.ndarray, classes: int) -> np.ndarray:
    """The class that most exits answer, int32 [N], for answers int32 [N, E]; where several are equally frequent, the last exit's answer."""
    votes = np.zeros((len(answers), classes), np.int64)
    for exit in range(answers.shape[1]):
        votes[np.arange(len(answers)), answers[:, exit]] += 1
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(alone, votes.argmax(axis=1), answers[:, -1]).astype(np.int32)


def _observed(view: TraceView, distance: str) -> np.ndarray:
    seen = np.empty((len(view), view.exits, view.classes + 2))
    seen[:, :, :-2] = vectors(view, distance)
    seen[:, :, -2] = majority(view.answers, view.classes)[:, None]
    seen[:, :, -1] = view.answers
    return seen


@register_jitable(forceinline=True)
def unchanged(observed, exit, memory, begin, l1, bar):
    """Whether what an exit says lies within `bar` of the reference at memory[begin:]; False for NaN. bar: see `SceneMechanism.bar`."""
    total = 0.0
    if l1:
        for index in range(observed.shape[1] - 2):
            total += abs(observed[exit, index] - memory[begin + index])
    else:
        for index in range(observed.shape[1] - 2):
            difference = observed[exit, index] - memory[begin + index]
            total += difference * difference
    return total <= bar


@register_jitable(forceinline=True)
def remember(observed, exit, memory, begin):
    """Write what an exit says to memory[begin:]."""
    for index in range(observed.shape[1] - 2):
        memory[begin + index] = observed[exit, index]
