"""The common shape of score rules: stop at the first exit whose score reaches its bar, evaluating every head on the way.

A rule gives a score (larger is surer) and turns a threshold into a bar such that "score >= bar" is exactly its rule;
a strict comparison becomes the next float64 above. `never` is a bar at infinity. Because of this one shape, sweeps and
tuning can quantise scores against all bars at once, and every such rule takes the same additions: a first and a last exit
to ask, temperature scaling, and thresholds that differ by class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._temperature import fitted_temperatures
from eesim.mechanisms.base import STOP, Decisions, Mechanism, Parameter, Values, paths_by_exit
from eesim.trace.view import TraceView, score_answers

ADDITIONS = (
    Parameter("min_exit", 0, 0, help="first recorded exit that is asked; heads before it are not run", integer=True, optional=True),
    Parameter("max_exit", "never", 0, help="recorded exit that answers at the latest", integer=True, never=np.inf, optional=True),
    Parameter(
        "temperature", "off", choices=("off", "fitted"), help="'fitted': logits of each exit divided by its temperature (arXiv 1706.04599)",
        optional=True,
    ),
    Parameter(
        "class_offset", "off", -1e6, 1e6, "what an answer's class adds to its bar: a value for each class, or 'fitted' to equal accuracy",
        per_class=True, choices=("off", "fitted"), optional=True,
    ),
)  # fmt: skip
"""Parameters that every rule of this shape takes."""


@dataclass(frozen=True)
class Scored:
    """score float64, answers int32, confidence float64: [N, E] each; exits before `first` are not asked."""

    score: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    first: int


class ThresholdMechanism(Mechanism):
    """Stop at the first exit e with score[e] >= bar[e]. The first parameter is the threshold, shared or per exit."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = {parameter.name for parameter in cls.parameters}
        cls.parameters = (*cls.parameters, *(addition for addition in ADDITIONS if addition.name not in own))

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """How sure each exit is, float64 [N, E]; larger is surer. May depend on every parameter but the threshold."""
        raise TypeError(f"{type(self).__name__} gives no score")

    def bar(self, threshold: float) -> float:
        """The smallest score that passes `threshold`."""
        return threshold

    def answers(self, view: TraceView, values: Values) -> np.ndarray:
        """What each exit answers, int32 [N, E], where that is not what its logits say; the last exit is never asked."""
        return view.answers

    def confidence(self, view: TraceView, values: Values) -> np.ndarray:
        """How probable each exit holds its answer, float64 [N, E]; for calibration errors only."""
        return view.confidence

    def check(self, given: Mapping[str, Any], view: TraceView) -> Values:
        """As for every mechanism; first and last exits that the network does not have, or the wrong way round, are refused."""
        values, last = super().check(given, view), view.trace.exits - 1
        first, latest = self.value(values, "min_exit"), self.value(values, "max_exit")
        for name, exit in (("min_exit", first), ("max_exit", latest)):
            if exit != "never" and exit > last:
                raise BadInput(f"{name} {exit} does not exist; the network has exits 0 to {last}", field=name)
        if latest != "never" and first > latest:
            raise BadInput(f"min_exit {first} lies behind max_exit {latest}", field="min_exit")
        return values

    def group(self, values: Values) -> tuple:
        """All values but the threshold."""
        return tuple(sorted((name, value) for name, value in values.items() if name != self.parameters[0].name))

    def scored(self, view: TraceView, values: Values) -> Scored:
        """Scores and answers with all additions applied, made once for settings that differ in their threshold only."""
        first = int(np.searchsorted(view.recorded_exits[:-1], self.value(values, "min_exit")))
        arrays = view.derived(("scored", type(self), self.group(values)), lambda whole: self._scored(whole, values, first))
        return Scored(*arrays, first)

    def _scored(self, view: TraceView, values: Values, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        asked = view.restricted(view.recorded_exits[first:])
        if self.value(values, "temperature") == "fitted":
            asked = asked.tempered(fitted_temperatures(asked.calibration))
        score, answers, confidence = (part(asked, values) for part in (self.score, self.answers, self.confidence))
        score = np.array(score, np.float64)
        offset = self.value(values, "class_offset")
        if offset != "off":
            added = fitted_offsets(self, asked.calibration, values) if offset == "fitted" else np.broadcast_to(offset, view.classes)
            score[:, :-1] -= added[answers[:, :-1]]
        if (latest := self.value(values, "max_exit")) != "never":
            place = int(np.searchsorted(asked.recorded_exits, latest, side="right")) - 1
            score[:, max(place, 0)] = np.inf
        if first:
            pad = ((0, 0), (first, 0))
            score = np.pad(score, pad, constant_values=-np.inf)
            answers, confidence = np.pad(answers, pad), np.pad(confidence, pad)
        return score, answers, confidence

    def cut_short(self, view: TraceView, values: Values) -> bool:
        """Whether `max_exit` keeps the last enabled exit from answering."""
        latest = self.value(values, "max_exit")
        return latest != "never" and int(np.searchsorted(view.recorded_exits, latest, side="right")) < view.exits

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """The score and the answer, float64 [N, E, 2]."""
        scored = self.scored(view, values)
        return np.stack([scored.score, scored.answers], axis=2)

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`. parameters: the bars of all exits but the last, and the first exit that is asked."""
        if exit < 0:
            return int(parameters[observed.shape[0] - 1])
        if exit < observed.shape[0] - 1 and observed[exit, 0] >= parameters[exit]:
            answer[0] = int(observed[exit, 1])
            return STOP
        return exit + 1

    def bars(self, values: Values, view: TraceView) -> np.ndarray:
        """The bars of the enabled non-final exits, float64 [E - 1]."""
        value = values[self.parameters[0].name]
        spread = value if isinstance(value, tuple) else (value,) * (view.trace.exits - 1)
        chosen = [spread[exit] for exit in view.recorded_exits[:-1]]
        return np.array([np.inf if item == "never" else self.bar(float(item)) for item in chosen], np.float64)

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """The bars, then the first exit that is asked, float64 [E]."""
        first = np.searchsorted(view.recorded_exits[:-1], self.value(values, "min_exit"))
        return np.append(self.bars(values, view), first)

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`."""
        scored = self.scored(view, values)
        passed = scored.score[:, :-1] >= self.bars(values, view)
        passed[:, : scored.first] = False
        exits = np.where(passed.any(axis=1), passed.argmax(axis=1), view.exits - 1) if view.exits > 1 else np.zeros(len(view), np.intp)
        prediction, confidence = (np.take_along_axis(part, exits[:, None], axis=1)[:, 0] for part in (scored.answers, scored.confidence))
        paths = paths_by_exit(view.exits, every_head=True, first=scored.first)
        return Decisions(paths, exits.astype(np.uint8), exits.astype(np.int16), prediction.astype(np.int32), confidence)

    def thresholds(self, view: TraceView, count: int, given: Values) -> np.ndarray:
        """About `count` threshold values for all non-final exits together, ascending; see `levels`."""
        scored = self.scored(view, given)
        return self.levels(scored.score[:, scored.first : -1].ravel(), view, count)

    def levels(self, scores: np.ndarray, view: TraceView, count: int) -> np.ndarray:
        """About `count` threshold values for the given scores, rounded to six digits, ascending.

        Half lie at quantiles of the scores, half at even steps over their range: most samples are easy and crowd the
        quantiles at one end, while it is the few hard ones between that a threshold decides about.
        """
        scores = scores[np.isfinite(scores)]
        if scores.size == 0:
            return np.array([])
        low, high = self.parameters[0].low, self.parameters[0].limit(view.classes)
        quantiles = np.quantile(scores, np.linspace(0, 1, count - count // 2), method="inverted_cdf")
        values = np.concatenate([quantiles, np.linspace(scores.min(), scores.max(), count // 2 + 2)[1:-1]])
        return np.unique(np.clip(np.round(self.from_score(values), 6), low, high))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """Thresholds whose bars lie at `scores`."""
        return scores

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """One threshold for all exits, and 'never'."""
        name, integer = self.parameters[0].name, self.parameters[0].integer
        if name in (given or {}):
            return [{}]
        return [{name: int(value) if integer else float(value)} for value in self.thresholds(view, count, given or {})] + [{name: "never"}]


def fitted_offsets(mechanism: ThresholdMechanism, view: TraceView, values: Values) -> np.ndarray:
    """What each class adds to the bar so that early answers of every class are as often right, float64 [K].

    Over the calibration split and all asked exits but the last: the least score from which on answers are right as often
    as the full network is; a class's own least score minus that of all classes together. 0 for classes that too few early
    answers name (under 50), or that never get there.
    """
    score, answers = mechanism.score(view, values)[:, :-1].ravel(), mechanism.answers(view, values)[:, :-1].ravel()
    right = score_answers(mechanism.answers(view, values)[:, :-1], view.label[:, None]).ravel()
    known = (right >= 0) & np.isfinite(score)
    labelled = view.label >= 0
    if not labelled.any():
        raise BadInput("the calibration split has no labels to fit class offsets to", field="class_offset")
    wanted = (view.correct[labelled, -1] == 1).mean()
    everyone = _least_score(score[known], right[known], wanted)
    offsets = np.zeros(view.classes)
    for index in range(view.classes):
        members = known & (answers == index)
        if members.sum() >= 50 and everyone is not None and (own := _least_score(score[members], right[members], wanted)) is not None:
            offsets[index] = own - everyone
    return offsets


def _least_score(score: np.ndarray, right: np.ndarray, wanted: float) -> float | None:
    """The smallest score s such that among scores >= s at least `wanted` are right; the first ten do not count."""
    order = np.argsort(-score, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, order.size + 1)
    enough = np.flatnonzero(share[10:] >= wanted)
    return float(score[order][enough[-1] + 10]) if enough.size else None
