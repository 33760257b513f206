"""dart: stop when the confidence exceeds a bar that rises with the difficulty of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._dart_difficulty import CONFIDENCES, EDGES, confidence, difficulty, estimator_work, fitted_sign
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Mechanism, Parameter, Site, Values, Work
from eesim.trace.view import TraceView, score_answers

DIFFS = (0.3, 0.2, 0.1, 0.0)
"""beta_diff that tuning tries."""
POWERS = (1.0, 2.0, 0.5)
"""Without cost shares: the share of exit e among E is taken for ((e + 1) / E) to one of these powers."""
DROPS = (0.01, 0.005, 0.02, 0.0, 0.03, 0.002, 0.015, 0.05, 0.007, 0.001, 0.003, 0.1)
"""Losses of accuracy against the full network for which tuning tries the cheapest thresholds."""
STARTS = 3
"""Optima of J from which each of those is looked for."""
FINE = 96
"""Thresholds on the grid of one exit."""
MOST = 100_000
"""Threshold vectors searched exhaustively before coordinate descent on the fine grid."""
NOT_SCORED = frozenset({"threshold", "beta_opt", "cost_share", "target", "eta", "pseudo_label"})
"""Parameters that neither scores nor the size of memory nor costs depend on."""
ADAPTS = ("adaptive", ("temporal", "class-aware", "ucb1"))


class Dart(ThresholdMechanism):
    """Exit e iff conf > clip(c_e T_e + beta_diff alpha, 0, 1), strictly (DART, arXiv 2603.12269, Algorithm 1, Eq. 19).

    alpha in [0, 1] is the difficulty of the input, 0.4 edge + 0.3 variance + 0.3 gradient of the recorded components
    (Eq. 1-8), known before the network runs. State: none; global where `adaptive` lets the coefficients follow the accuracy
    (`eesim.mechanisms._dart_adaptive`).

    As computed, in float64: score = (conf - sign x beta_diff x alpha) / c_e, which must exceed T_e, that is reach the next
    float above. The clip is left out: confidences lie in (0, 1], so a bar of 1 or more is never exceeded and one below 0 always
    is, clipped or not. Near equality this may round otherwise than the formula above, by a unit in the last place.

    Thresholds that are not given are optimised jointly on the calibration split for beta_opt (Eq. 10-12); see `optimise`.
    `difficulty_sign`: 'paper' = harder inputs need more confidence; 'inverse' = less, as in the authors' code for ResNet, VGG and
    LeViT; 'fitted' = whichever the calibration labels speak for.
    """

    name = "dart"
    source = "DART (arXiv 2603.12269), Algorithm 1, Eq. 1-15 and 19"
    parameters = (
        Parameter("threshold", None, 0.0, 1.0, "T; one value or one per exit; else optimised jointly for beta_opt", per_exit=True, never=np.inf),
        Parameter("beta_diff", 0.3, 0.0, help="how much difficulty moves the bar; 0 = no difficulty is estimated"),
        Parameter("difficulty_sign", "paper", choices=("paper", "inverse", "fitted"), help="whether harder inputs raise the bar or lower it"),
        Parameter("confidence", "max-softmax", choices=CONFIDENCES, help="p1; 'combined' with entropy; 'fallback' with entropy and margin"),
        Parameter("adaptive", "off", choices=("off", "temporal", "class-aware", "ucb1"), help="how coefficients follow the accuracy while it runs"),
        Parameter("coefficient", 1.0, 1e-3, 1e3, "c, which multiplies T; one value or one per exit", per_exit=True, optional=True),
        Parameter("edge", "density", choices=tuple(EDGES), help="edge component: the paper's density, or its code's mean gradient", optional=True),
        Parameter("weight_edge", 0.4, 0.0, 1.0, "weight of the edge component in alpha", optional=True),
        Parameter("weight_variance", 0.3, 0.0, 1.0, "weight of the variance in alpha", optional=True),
        Parameter("weight_gradient", 0.3, 0.0, 1.0, "weight of the gradient in alpha", optional=True),
        Parameter("beta_opt", 0.5, 0.0, 1.0, "accuracy that the full network's cost is worth, in joint optimisation and UCB1", optional=True),
        Parameter(
            "cost_share", None, 0.0, 1.0, "cost up to each exit as a share of the full network's; by default even", per_exit=True, optional=True
        ),
        Parameter("labels", "immediate", choices=("immediate", "late", "never"), help="when adaptation learns the truth", optional=True, only=ADAPTS),
        Parameter(
            "label_delay", 100, 0, 1_000_000, "samples after which late labels come", integer=True, optional=True, only=("labels", ("late",))
        ),
        Parameter("target", 0.85, 0.0, 1.0, "accuracy that adaptation aims at", optional=True, only=ADAPTS),
        Parameter("eta", 0.01, 0.0, 1.0, "step of class-aware adaptation", optional=True, only=("adaptive", ("class-aware", "ucb1"))),
        Parameter(
            "pseudo_label", 0.9, 0.0, 1.0, "p1 from which an answer counts as right where labels never come", optional=True,
            only=("labels", ("never",)),
        ),
        Parameter("window", 1000, 1, 1_000_000, "answers that accuracies are taken over", integer=True, optional=True, only=ADAPTS),
    )  # fmt: skip

    def __init__(self, *, estimates: bool = True, confidence: str = "max-softmax", adaptive: str = "off"):
        """What has to be paid: whether difficulty is estimated, which confidence is computed, and how it adapts. See `variant`."""
        self.estimates, self.kind, self.adaptive = estimates, confidence, adaptive

    def variant(self, values: Values) -> Mechanism:
        """This rule with what these values make it pay; with adaptive coefficients the rule that keeps them."""
        kind, adaptive = self.value(values, "confidence"), self.value(values, "adaptive")
        wanted = {"estimates": self.value(values, "beta_diff") != 0, "confidence": kind, "adaptive": adaptive}
        rule = self if wanted == {"estimates": self.estimates, "confidence": self.kind, "adaptive": self.adaptive} else type(self)(**wanted)
        if adaptive == "off":
            return rule
        from eesim.mechanisms._dart_adaptive import Adaptive  # compiled code is loaded only where it is needed

        return Adaptive(rule)

    def group(self, values: Values) -> tuple:
        """All values that scores, memory or costs depend on."""
        return tuple(sorted((name, value) for name, value in values.items() if name not in NOT_SCORED))

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """(conf - sign beta_diff alpha) / c, float64 [N, E]. Raises BadInput where alpha is needed and was not recorded."""
        score = confidence(view, self.value(values, "confidence"))
        if beta := self.value(values, "beta_diff"):
            score = score - (self._sign(view, values) * beta) * self.alpha(view, values)[:, None]
        given = self.value(values, "coefficient")
        chosen = [given[exit] for exit in view.recorded_exits[:-1]] if isinstance(given, tuple) else [given] * (view.exits - 1)
        return score / np.array([*chosen, 1.0])

    def alpha(self, view: TraceView, values: Values) -> np.ndarray:
        """Difficulty of each sample, float64 [N] in [0, 1]. Raises BadInput where its components were not recorded."""
        weights = tuple(self.value(values, f"weight_{part}") for part in ("edge", "variance", "gradient"))
        return difficulty(view, self.value(values, "edge"), weights)

    def _sign(self, view: TraceView, values: Values) -> int:
        word = self.value(values, "difficulty_sign")
        if word != "fitted":
            return 1 if word == "paper" else -1
        seen = view.calibration
        return fitted_sign(seen, confidence(seen, self.value(values, "confidence")), self.alpha(seen, values))

    def bar(self, threshold: float) -> float:
        """score > T: the next float above T."""
        return float(np.nextafter(threshold, np.inf))

    def places(self, values: Values, view: TraceView) -> np.ndarray:
        """The thresholds of the enabled exits but the last, infinity for 'never', float64 [E - 1]."""
        value = values["threshold"]
        spread = value if isinstance(value, tuple) else (value,) * (view.trace.exits - 1)
        return np.array([np.inf if spread[exit] == "never" else spread[exit] for exit in view.recorded_exits[:-1]], np.float64)

    def shares(self, view: TraceView, values: Values, power: float = 1.0) -> np.ndarray:
        """C of the enabled exits, float64 [E], the last 1. Mechanisms know no prices: without `cost_share` every segment costs the same,
        or more and more with a higher power."""
        given = self.value(values, "cost_share")
        if given is None:
            return ((np.array(view.recorded_exits) + 1) / view.trace.exits) ** power
        spread = given if isinstance(given, tuple) else (given,) * (view.trace.exits - 1)
        return np.array([*(spread[exit] for exit in view.recorded_exits[:-1]), 1.0])

    def settle(self, given: Mapping[str, Any], view: TraceView, calibration: Callable[[], TraceView] | None = None) -> Values:
        """As for every mechanism; thresholds that are not given are optimised jointly on the calibration split."""
        checked = self.check(given, view)
        if "threshold" not in checked:
            found = Search.of(self, view if calibration is None else calibration(), checked, FINE)
            prices = (self.value(checked, "beta_opt") * found.shares(self, checked))[None]
            given = {**given, "threshold": found.thresholds(found.best(prices)[0])}
        return super().settle(given, view, calibration)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Vectors optimised jointly (`Search.candidates`), and one threshold for all exits; with and without difficulty.

        beta_diff is tried at 0.3, 0.2, 0.1 and 0 unless given; the sign is never tried, only taken as given. With adaptation, for
        its target as given, or 0.85 and the full network's accuracy.
        """
        given = dict(given or {})
        diffs = [{}] if "beta_diff" in given else [{"beta_diff": beta} for beta in DIFFS]
        targets: list[Values] = [{}]
        if self.value(given, "adaptive") != "off" and "target" not in given:
            full = view.correct[view.label >= 0, -1]
            targets = [{"target": value} for value in dict.fromkeys((0.85, round(float((full == 1).mean()), 3) if full.size else 0.85))]
        if "threshold" in given:
            return [{**diff, **target} for diff in diffs for target in targets]
        if view.exits == 1 or not (view.label >= 0).any():
            return [{"threshold": value, **diffs[0]} for value in ["never"]]
        each = max(count // (len(diffs) * len(targets)), 2)
        found: list[Values] = []
        for diff in diffs:
            values = {**given, **diff}
            search = Search.of(self, view, values, FINE)
            vectors = search.candidates(self, values, each - each // 4)
            shared = [float(value) for value in self.thresholds(view, max(each // 4, 1), values)]
            found += [{"threshold": value, **diff, **target} for value in [*vectors, *shared] for target in targets]
        return found

    def charge(self, site: Site) -> Charge:
        """Softmax and 3 operations at each exit, entropy and margin where the confidence needs them; the estimator once per sample."""
        classes = site.classes
        pieces = [Work("softmax", classes, 4 * classes + 3)]
        if self.kind != "max-softmax":
            pieces.append(Work("softmax", classes, 3 * classes + 4))
        if self.kind == "fallback":
            pieces.append(Work("elementwise", classes, classes + 3))
        return Charge(tuple(pieces), (estimator_work(site.input_shape),) if self.estimates else ())


@dataclass(frozen=True, eq=False)
class Search:
    """The search for thresholds on one view: the grid of each asked exit, and the problem in its terms.

    view : its labelled samples count. exits: places of the exits in the problem among the enabled ones; the last of them is
    where the rest answers.
    """

    view: TraceView
    exits: range
    grid: list[np.ndarray]
    problem: Any

    @classmethod
    def of(cls, rule: Dart, view: TraceView, values: Values, count: int) -> Search:
        """The problem of a rule with these values, about `count` thresholds at each exit. Raises BadInput without labels."""
        from eesim.mechanisms._dart_thresholds import Problem

        known = view.label >= 0
        if not known.any():
            raise BadInput(f"the {view.split} split has no labels to optimise thresholds on; give them", field="threshold")
        scored, latest, exits = rule.scored(view, values), rule.value(values, "max_exit"), view.exits
        if latest != "never":
            exits = max(int(np.searchsorted(view.recorded_exits, latest, side="right")), scored.first + 1)
        asked = range(scored.first, exits)
        score, right = scored.score[known][:, asked], score_answers(scored.answers, view.label[:, None])[known][:, asked] == 1
        grid = [rule.levels(score[:, place], view, count) for place in range(len(asked) - 1)]
        return cls(view, asked, grid, Problem.of(score[:, :-1], right, [np.nextafter(levels, np.inf) for levels in grid]))

    def shares(self, rule: Dart, values: Values, power: float = 1.0) -> np.ndarray:
        """C of the exits of the problem, float64."""
        return rule.shares(self.view, values, power)[self.exits.start : self.exits.stop]

    def best(self, prices: np.ndarray, most: int = MOST) -> np.ndarray:
        """Places of the best vectors found for B objectives; prices float64 [B, exits of the problem]: beta C."""
        from eesim.mechanisms._dart_thresholds import best

        return best(self.problem, prices, most)

    def candidates(self, rule: Dart, values: Values, count: int) -> list[tuple[float | str, ...]]:
        """About `count` vectors: half of them optima of J for beta_opt from 0.002 to 1, the others the cheapest within `DROPS`.

        Where cost shares are not given, for three guesses at them.
        """
        from eesim.mechanisms._dart_thresholds import cheapest_within

        powers = POWERS if rule.value(values, "cost_share") is None else (1.0,)
        shares = [self.shares(rule, values, power) for power in powers]
        betas = np.geomspace(0.002, 1.0, max(count // 2 // len(powers), 1))
        found = list(self.best(np.concatenate([betas[:, None] * share for share in shares])))
        known = [(right, exits, places) for places in [self.problem.sizes, *found] for right, exits in [self.problem.outcome(places)]]
        for drop in DROPS[: max((count - len(found)) // len(powers), 0)]:
            least = int(np.ceil((self.problem.right[:, -1].mean() - drop) * len(self.problem.right) - 1e-9))
            for share in shares:
                starts = sorted((float(exits @ share), number) for number, (right, exits, _) in enumerate(known) if right >= least)[:STARTS]
                ends = [cheapest_within(self.problem, share, least, known[number][2]) for _, number in starts]
                found.append(min(ends, key=lambda places: float(self.problem.outcome(places)[1] @ share)))
        return list(dict.fromkeys(self.thresholds(places) for places in found))

    def thresholds(self, places: np.ndarray) -> tuple[float | str, ...]:
        """A vector as parameter: one value for each recorded exit but the last, 'never' where there is nothing to ask."""
        spread: list[float | str] = ["never"] * (self.view.trace.exits - 1)
        for exit, levels, place in zip(self.exits, self.grid, places, strict=False):
            if place < levels.size:
                spread[self.view.recorded_exits[exit]] = float(levels[place])
        return tuple(spread)


@dataclass(frozen=True)
class Optimum:
    """What one method found: thresholds for the recorded exits but the last, and on the samples it was found on J, the accuracy,
    the mean cost as a share of the full network's, and the share of samples that each exit answers.

    thresholds : None for a policy that is not one of thresholds.
    gap : how much J is below that of the exact search; negative where a policy beats every vector of the grid.
    """

    thresholds: tuple[float | str, ...] | None
    value: float
    accuracy: float
    cost: float
    exits: tuple[float, ...]
    gap: float


@dataclass(frozen=True)
class Report:
    """Joint optimisation three ways on one grid of `vectors` threshold vectors; `policy` is value iteration's before projection."""

    beta_opt: float
    vectors: int
    exact: Optimum
    coordinate: Optimum
    value_iteration: Optimum
    policy: Optimum


def optimise(view: TraceView, parameters: Mapping[str, Any] | None = None, *, most: int = 2_000_000) -> Report:
    """Optimise DART's thresholds on a view in all three ways (arXiv 2603.12269, Eq. 10-12) and say how far each is from the optimum.

    parameters : of `dart`, all but the threshold; `beta_opt` and `cost_share` make the objective J.
    most : how many vectors the grid, which all methods share, holds at most.

    Raises BadInput where no sample has a label, or where the difficulty was not recorded.
    """
    from eesim.mechanisms import _dart_thresholds as methods

    rule = Dart()
    values = rule.check(parameters or {}, view)
    beta = rule.value(values, "beta_opt")
    count = max(min(int(most ** (1 / max(view.exits - 1, 1))) - 1, FINE), 1)
    search = Search.of(rule, view, values, count)
    problem, share = search.problem, search.shares(rule, values)
    prices, known = beta * share, view.label >= 0

    def told(right: int, exits: np.ndarray, places: np.ndarray | None, best: float | None = None) -> Optimum:
        total = int(exits.sum())
        accuracy, cost = right / total, float(exits @ share) / total
        value = accuracy - beta * cost
        thresholds = None if places is None else search.thresholds(places)
        spread = np.zeros(view.exits)
        spread[search.exits.start : search.exits.stop] = exits / total
        return Optimum(thresholds, value, accuracy, cost, tuple(spread.tolist()), 0.0 if best is None else best - value)

    places = methods.exact(problem, prices)[0]
    exact = told(*problem.outcome(places), places)
    descended = methods.coordinate(problem, prices, problem.sizes // 2)
    score = rule.scored(view, values)
    alpha = rule.alpha(view, values) if rule.value(values, "beta_diff") else np.zeros(len(view))
    policy = methods.value_iteration(score.confidence[known][:, search.exits], alpha[known], problem.right, prices)
    projected = methods.projected(problem, policy)
    return Report(
        beta,
        problem.vectors,
        exact,
        told(*problem.outcome(descended), descended, exact.value),
        told(*problem.outcome(projected), projected, exact.value),
        told(*policy.outcome(problem.right), None, exact.value),
    )
