"""eenet: learned exit scores, with thresholds from learned exit shares that keep a budget (EENet)."""

from __future__ import annotations

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._eenet_fit import applied, fit
from eesim.mechanisms._fitting import judged
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms._walk import walked
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Eenet(ThresholdMechanism):
    """Exit e iff q_e >= T_e, with q_e a learned score of whether exit e is right; state: within a sample.

    EENet (arXiv 2301.07099); earlier scores are inputs of later ones. q_e = w_e . [p, p1, 1 + sum p ln p / ln K, q_0 .. q_{e-1}],
    linear without bias; earlier scores are cut to [0, 1], in fitting and in use. Each exit's w minimises the cross-entropy of q_e,
    cut to [0, 1], against "this exit is right", weighted by the exit's share in the exit distribution. That distribution is a
    softmax over exits of sharpness * sigmoid(network of one hidden layer), fitted to alpha_ce KL(q^beta normalised over exits ||
    distribution) + alpha_cost |E[cost] - budget| / budget. T_e follows from its mean by the walk: the floor(share * n)-th best
    score of the calibration samples that have not left, 1 where that is none.

    Costs are shares of the full network's, `cost` (by default equal steps 1/E, 2/E, …); `budget` is the wanted mean in the same unit.
    Fitting: scores exit by exit and the distribution in turn, each to its minimum (L-BFGS from a fixed start) rather than by alternating
    epochs of Adam; where a score is cut on its wrong side the gradient goes on, so that the fit of the scores is convex. In the public
    code sharpness is 1: then the shares of two exits differ at most by a factor e, and most budgets cannot be met.
    """

    name = "eenet"
    source = "EENet (arXiv 2301.07099), section 3, and public code"
    state = "within"
    trained = True
    parameters = (
        Parameter("budget", 0.5, 0.01, 1.0, "mean cost per sample that is aimed at, as a share of the full network's"),
        Parameter("cost", "equal", 0.0, 1.0, "cost of leaving at each exit as a share of the full network's", per_exit=True, choices=("equal",)),
        Parameter("alpha_ce", 1e-3, 0.0, 1e3, "weight of the distribution's likeness to the scores", optional=True),
        Parameter("alpha_cost", 1e-2, 0.0, 1e3, "weight of keeping the budget", optional=True),
        Parameter("beta", 1.0, 0.0, 10.0, "exponent of the scores in the distribution's target", optional=True),
        Parameter("hidden", 0.5, 0.0, 4.0, "hidden units as a share of the inputs", optional=True),
        Parameter("sharpness", 10.0, 1.0, 100.0, "factor before the softmax over exits; 1 in the public code", optional=True),
    )

    def group(self, values: Values) -> tuple:
        """All values: the budget is part of the fit."""
        return tuple(sorted(values.items()))

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """q, float64 [N, E]."""
        return self._judged(view, values)[0]

    def _judged(self, view: TraceView, values: Values) -> tuple[np.ndarray, np.ndarray]:
        """q and the exit distribution, float64 [N, E] each."""
        costs = self.costs(view, values)
        budget = float(self.value(values, "budget"))
        settings = tuple(float(self.value(values, name)) for name in ("alpha_ce", "alpha_cost", "beta", "hidden", "sharpness"))
        key = ("eenet", budget, costs, settings)
        return view.derived(key, lambda whole: judged(whole, key, lambda part: fit(part, budget, costs, settings), applied))

    def costs(self, view: TraceView, values: Values) -> tuple[float, ...]:
        """Cost of leaving at each enabled exit, as shares of the full network's; the last is 1."""
        given = self.value(values, "cost")
        if not isinstance(given, tuple):
            if given != "equal":
                given = (given,) * (view.trace.exits - 1)
            else:
                given = tuple((exit + 1) / view.trace.exits for exit in range(view.trace.exits - 1))
        chosen = [given[exit] for exit in view.recorded_exits[:-1]]
        if not all(isinstance(item, (int, float)) for item in chosen) or sorted(chosen) != chosen or any(item <= 0 for item in chosen):
            raise BadInput("costs are shares above 0 that do not fall from exit to exit, as in 0.2,0.5,0.8", field="cost")
        return (*map(float, chosen), 1.0)

    def bars(self, values: Values, view: TraceView) -> np.ndarray:
        """The bars of the enabled non-final exits by the walk over the calibration split, float64 [E - 1]."""
        calibration = view.calibration
        scored = self.scored(calibration, values)
        bars = np.full(view.exits - 1, np.inf)
        shares = self.shares(view, values)
        found = walked(scored.score[:, scored.first :], shares, exact=True)
        wanted = np.floor(shares[:-1] * len(calibration) + 1e-9) >= 1
        bars[scored.first :] = np.where(wanted, found, 1.0)
        return bars

    def shares(self, view: TraceView, values: Values) -> np.ndarray:
        """The mean exit distribution over the calibration split, float64, one for each exit that is asked."""
        calibration = view.calibration
        first = int(np.searchsorted(calibration.recorded_exits[:-1], self.value(values, "min_exit")))
        asked = calibration.restricted(calibration.recorded_exits[first:])
        return self._judged(asked, values)[1].mean(axis=0)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """At most 20 budgets, as in the public code, from the first exit's cost to the full network's."""
        given = given or {}
        costs = self.costs(view, given)
        if not (view.label >= 0).any():
            raise BadInput("the calibration split has no labels to fit 'eenet' to")
        if "budget" in given:
            return [{}]
        return [{"budget": float(budget)} for budget in np.unique(np.linspace(costs[0], 1.0, max(min(count, 20), 2)).round(6))]

    def charge(self, site: Site) -> Charge:
        """Softmax; entropy (K logarithms, products, additions); K + 2 + e multiplications and additions; cuts and one comparison."""
        classes = site.classes
        softmax, entropy = Work("softmax", classes, 4 * classes), Work("softmax", classes, 3 * classes + 2)
        return Charge(
            tuple((softmax, entropy, Work("fully_connected", 1, 2 * (classes + 2 + exit) + 3, classes + 2 + exit)) for exit in range(site.exits - 1))
        )
