"""The common shape of score rules: stop at the first exit whose score reaches its bar, evaluating every head on the way.

A rule gives a score (larger is surer) and turns a threshold into a bar such that "score >= bar" is exactly its rule;
a strict comparison becomes the next float64 above. `never` is a bar at infinity. Because of this one shape, sweeps and
tuning can quantise scores against all bars at once.
"""

from __future__ import annotations

import numpy as np

from eesim.mechanisms.base import STOP, Decisions, Mechanism, Values, exits_to_decisions
from eesim.trace.view import TraceView


class ThresholdMechanism(Mechanism):
    """Stop at the first exit e with score[e] >= bar[e]. The first parameter is the threshold, shared or per exit."""

    def score(self, view: TraceView) -> np.ndarray:
        """How sure each exit is, float64 [N, E]; larger is surer."""
        raise TypeError(f"{type(self).__name__} gives no score")

    def bar(self, threshold: float) -> float:
        """The smallest score that passes `threshold`."""
        return threshold

    def observe(self, view: TraceView) -> np.ndarray:
        """The score."""
        return self.score(view)

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        if exit >= 0 and observed[exit, 0] >= parameters[exit]:
            return STOP
        return exit + 1

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """The bars of the enabled non-final exits, float64 [E - 1]."""
        value = values[self.parameters[0].name]
        spread = value if isinstance(value, tuple) else (value,) * (view.trace.exits - 1)
        chosen = [spread[exit] for exit in view.recorded_exits[:-1]]
        return np.array([np.inf if item == "never" else self.bar(float(item)) for item in chosen], np.float64)

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`."""
        passed = self.score(view)[:, :-1] >= self.pack(values, view)
        exits = np.where(passed.any(axis=1), passed.argmax(axis=1), view.exits - 1) if view.exits > 1 else np.zeros(len(view), np.intp)
        return exits_to_decisions(exits.astype(np.uint8), view, every_head=True)

    def thresholds(self, view: TraceView, count: int) -> np.ndarray:
        """About `count` threshold values for all non-final exits together, ascending; see `levels`."""
        return self.levels(self.score(view)[:, :-1].ravel(), view, count)

    def levels(self, scores: np.ndarray, view: TraceView, count: int) -> np.ndarray:
        """About `count` threshold values for the given scores, rounded to six digits, ascending.

        Half lie at quantiles of the scores, half at even steps over their range: most samples are easy and crowd the
        quantiles at one end, while it is the few hard ones between that a threshold decides about.
        """
        if scores.size == 0:
            return np.array([])
        low, high = self.parameters[0].low, self.parameters[0].limit(view.classes)
        quantiles = np.quantile(scores, np.linspace(0, 1, count - count // 2), method="inverted_cdf")
        values = np.concatenate([quantiles, np.linspace(scores.min(), scores.max(), count // 2 + 2)[1:-1]])
        return np.unique(np.clip(np.round(self.from_score(values), 6), low, high))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """Thresholds whose bars lie at `scores`."""
        return scores

    def candidates(self, view: TraceView, count: int) -> list[Values]:
        """One threshold for all exits, and 'never'."""
        name, integer = self.parameters[0].name, self.parameters[0].integer
        return [{name: int(value) if integer else float(value)} for value in self.thresholds(view, count)] + [{name: "never"}]
