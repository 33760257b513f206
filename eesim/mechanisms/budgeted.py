"""budgeted: thresholds from a target share of samples for each exit (MSDNet's budgeted batch classification)."""

from __future__ import annotations

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._threshold import ADDITIONS, ThresholdMechanism
from eesim.mechanisms._walk import descending, geometric_shares, walked
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

SKIPPED = 10
"""Most confident samples that the accuracy recipe does not judge by: their cumulative accuracy says little."""


class Budgeted(ThresholdMechanism):
    """Exit e iff score >= T_e, with T_e found on the calibration split so that exits take the shares q^l / sum q^j; state: none.

    q < 1 sends most samples out early, q = 1 spreads them evenly, q > 1 keeps most for the end. The walk (MSDNet, public code):
    for each exit in order, T_e is the score of the floor(share * n)-th best calibration sample that has not left, and all
    samples at or above it leave; a share below one sample means never.

    recipe='accuracy' instead (public code of JEI-DNN): T_e is the lowest score down to which the accuracy of that exit's most
    confident calibration samples stays above `target`; where it never does, the largest score there is (1, or H = 0).
    """

    name = "budgeted"
    source = "MSDNet (arXiv 1703.09844), section 5 and public code; 'accuracy': public code of JEI-DNN (arXiv 2310.09163)"
    parameters = (
        Parameter("q", 1.0, 1e-6, 1e6, "ratio of the shares of neighbouring exits; small = early", only=("recipe", ("budget",))),
        Parameter("score", "max-softmax", choices=("max-softmax", "entropy", "margin"), help="what the thresholds are for"),
        Parameter("recipe", "budget", choices=("budget", "accuracy"), help="thresholds from shares by q, or from an accuracy for every exit"),
        Parameter(
            "target", "full", 0.0, 1.0, "recipe 'accuracy': accuracy to be exceeded; 'full': that of the full network", choices=("full",),
            optional=True, only=("recipe", ("accuracy",)),
        ),
    )  # fmt: skip
    scored_by = "max-softmax"

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """p1, -H or p1 - p2, float64 [N, E]."""
        kind = self.value(values, "score")
        return view.confidence if kind == "max-softmax" else -view.entropy if kind == "entropy" else view.margin

    def group(self, values: Values) -> tuple:
        """The score and the additions: shares only move the bars."""
        names = {"score", *(addition.name for addition in ADDITIONS)}
        return tuple(sorted((name, value) for name, value in values.items() if name in names))

    def bars(self, values: Values, view: TraceView) -> np.ndarray:
        """The bars of the enabled non-final exits from the calibration split, float64 [E - 1]."""
        calibration = view.calibration
        scored = self.scored(calibration, values)
        if self.value(values, "recipe") == "accuracy":
            return self._by_accuracy(calibration, scored, values)
        last = view.exits - 1
        if (latest := self.value(values, "max_exit")) != "never":
            last = max(int(np.searchsorted(view.recorded_exits, latest, side="right")) - 1, scored.first)
        bars = np.full(view.exits - 1, np.inf)
        shares = geometric_shares(float(self.value(values, "q")), last + 1 - scored.first)
        order = calibration.derived(("budgeted", self.group(values)), lambda whole: descending(self.scored(whole, values).score))
        bars[scored.first : last] = walked(scored.score[:, scored.first : last + 1], shares, order=order[:, scored.first : last])
        return bars

    def _by_accuracy(self, calibration: TraceView, scored, values: Values) -> np.ndarray:
        known = calibration.label >= 0
        if not known.any():
            raise BadInput("the calibration split has no labels to reach an accuracy on", field="recipe")
        right = scored.answers[known] == calibration.label[known, None]
        target = self.value(values, "target")
        target = right[:, -1].mean() if target == "full" else float(target)
        bars = np.full(calibration.exits - 1, 0.0 if self.value(values, "score") == "entropy" else 1.0)
        for exit in range(scored.first, calibration.exits - 1):
            score = scored.score[known, exit]
            order = np.argsort(-score, kind="stable")
            share = np.cumsum(right[order, exit]) / np.arange(1, order.size + 1)
            above = np.flatnonzero(share[SKIPPED:] > target)
            if above.size:
                bars[exit] = score[order[above[-1] + SKIPPED]]
        return bars

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """q = p/20 for p = 1 to 39, with steps between where `count` allows; for recipe 'accuracy' levels of `target`."""
        given = given or {}
        if given.get("recipe") == "accuracy":
            own = (view.correct[view.label >= 0, -1] == 1).mean() if (view.label >= 0).any() else 1.0
            levels = np.unique(np.round(np.concatenate([np.linspace(max(own - 0.1, 0), 1, max(count, 2)), [own]]), 6))
            return [{}] if "target" in given else [{"target": float(level)} for level in levels]
        if "q" in given:
            return [{}]
        steps = 20 * max(count // 40, 1)
        grid = [place / steps for place in range(1, 2 * steps)]
        return [{"q": ratio} for ratio in (grid if count >= 39 else grid[:: -(-len(grid) // max(count, 1))])]

    def variant(self, values: Values) -> Budgeted:
        """Itself, or its like for another score, which costs more."""
        if (kind := self.value(values, "score")) == self.scored_by:
            return self
        other = Budgeted()
        other.scored_by = kind
        return other

    def charge(self, site: Site) -> Charge:
        """What the score takes: as `max-softmax`, `entropy` or `margin`."""
        softmax = Work("softmax", site.classes, 4 * site.classes)
        if self.scored_by == "max-softmax":
            return Charge((Work("softmax", site.classes, 4 * site.classes + 1),))
        if self.scored_by == "entropy":
            return Charge((softmax, Work("softmax", site.classes, 3 * site.classes + 1)))
        return Charge((softmax, Work("elementwise", site.classes, site.classes + 2)))
