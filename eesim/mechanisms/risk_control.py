"""risk-control: one confidence threshold, chosen so that the risk of leaving early stays below a level (RC-EENN)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._risk import GRID, SELECTORS, Curve, not_held
from eesim.mechanisms._temperature import fitted_temperatures
from eesim.mechanisms._threshold import ADDITIONS, ThresholdMechanism
from eesim.mechanisms.base import Parameter, Values
from eesim.trace.view import TraceView

LOSSES = ("consistency", "label-gap", "brier-gap", "brier-consistency", "hellinger")
_curves: WeakKeyDictionary[TraceView, dict] = WeakKeyDictionary()


class RiskControl(ThresholdMechanism):
    """Exit e iff p1 > lambda, strictly, one lambda for all exits; lambda is the smallest that a selector certifies; state: none.

    Losses of a sample that leaves early: 'consistency' 1[answer is not the full network's]; 'label-gap' 1[wrong] - 1[full network
    wrong]; 'brier-gap' squared error against the label, summed over the classes, minus the full network's; 'brier-consistency' the
    same against the class that the full network names; 'hellinger' the distance of the two softmax vectors. Selectors: 'ltt', Learn
    then Test with Hoeffding-Bentkus p-values (the default: the default loss is binary, where the p-value is the exact binomial tail
    and no other test is sharper; 'ltt-code' takes the first lambda that fails, as the public code does); 'ucb-wsr', the betting bound
    (sharper for the other losses); both hold the risk with probability `confidence` over calibration splits. 'crc' holds its mean
    over calibration splits, 'naive' takes the measured risk for the true one.

    The promise is about samples like those of the calibration split, drawn independently; other patients or days may break it.
    Losses below 0 count as 0 in 'ltt'; Brier losses reach up to 2, by which they are scaled (the public code takes 1). Where no
    lambda is certified it is 1: no softmax exceeds it, the full network answers. With a `max_exit` before the last exit it could not,
    so that is refused there.
    """

    name = "risk-control"
    source = "RC-EENN (arXiv 2405.20915), section 3, and public code"
    parameters = (
        Parameter("risk", 0.05, 0.0, 2.0, "risk that may be taken, epsilon, in units of the loss"),
        Parameter(
            "confidence", 0.9, 0.0, 1 - 1e-9, "probability that the risk is held, 1 - delta", only=("selector", ("ltt", "ltt-code", "ucb-wsr"))
        ),
        Parameter("selector", "ltt", choices=SELECTORS, help="how lambda is chosen on the calibration split"),
        Parameter("loss", "consistency", choices=LOSSES, help="what leaving early may lose"),
        Parameter(
            "samples", "all", 1, help="calibration samples that are used, drawn at random; the paper takes 100", integer=True, choices=("all",),
            optional=True,
        ),
    )  # fmt: skip

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """p1, float64 [N, E]."""
        return view.confidence

    def group(self, values: Values) -> tuple:
        """The additions only: everything else moves lambda."""
        names = {addition.name for addition in ADDITIONS}
        return tuple(sorted((name, value) for name, value in values.items() if name in names))

    def bars(self, values: Values, view: TraceView) -> np.ndarray:
        """p1 > lambda: the next float above lambda, for each enabled non-final exit, float64 [E - 1]."""
        return np.full(view.exits - 1, np.nextafter(self.chosen(view, values), np.inf))

    def chosen(self, view: TraceView, values: Values) -> float:
        """The lambda that these values give on the calibration split of this view."""
        return self.select(view.calibration, values)

    def select(self, calibration: TraceView, values: Values) -> float:
        """The lambda that these values give on the samples of a view, whatever they are.

        Raises BadInput where the loss needs labels, and where no lambda is certified and `max_exit` keeps the full network away.
        """
        place = self._place(calibration, values)
        if place < 0 and self.cut_short(calibration, values):
            raise not_held(float(self.value(values, "risk")), values["max_exit"])
        return float(GRID[max(place, 0)])

    def _place(self, calibration: TraceView, values: Values) -> int:
        """Place of lambda in the grid, -1 where none is certified."""
        key = (self.group(values), self.value(values, "loss"), self.value(values, "samples"))
        kept = _curves.setdefault(calibration, {})
        if key not in kept:
            kept[key] = self._curve(calibration, values)
        delta, selector = 1 - float(self.value(values, "confidence")), self.value(values, "selector")
        place = kept[key].select(selector, float(self.value(values, "risk")), delta)
        return -1 if place == 0 and selector == "ltt-code" else place  # which names the first that fails

    def _curve(self, calibration: TraceView, values: Values) -> Curve:
        scored, loss, wanted = self.scored(calibration, values), self.value(values, "loss"), self.value(values, "samples")
        rows = np.random.default_rng(0).permutation(len(calibration))  # betting bounds go by samples in turn; recorded order means something
        if loss in ("label-gap", "brier-gap"):
            rows = rows[calibration.label[rows] >= 0]
            if rows.size == 0:
                raise BadInput(f"the calibration split has no labels, which the loss '{loss}' needs; 'consistency' does without", field="loss")
        rows = rows if wanted == "all" else rows[: int(wanted)]
        seen = calibration
        if self.value(values, "temperature") == "fitted" and loss in ("brier-gap", "brier-consistency", "hellinger"):
            seen = calibration.tempered(fitted_temperatures(calibration))
        losses = losses_of(loss, seen, scored.answers)[rows]
        binary = loss in ("consistency", "label-gap")
        return Curve(scored.score[rows, :-1], losses, strict=True, binary=binary, bound=2.0 if loss.startswith("brier") else 1.0)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Risk levels from 0.0005 to 0.5 in equal ratios; those that cannot be held are left out where `max_exit` keeps the full network away."""
        given = given or {}
        if "risk" in given:
            return [{}]
        self._place(view, {**given, "risk": 0.05})  # says now if a label is missing
        levels = np.unique(np.round(np.geomspace(5e-4, 0.5, max(min(count, 200), 2)), 6)).tolist()
        if self.cut_short(view, given):
            held = [level for level in levels if self._place(view, {**given, "risk": level}) >= 0]
            if not held:
                raise not_held(levels[-1], given["max_exit"])
            levels = held
        return [{"risk": level} for level in levels]


def losses_of(loss: str, view: TraceView, answers: np.ndarray) -> np.ndarray:
    """What leaving at each exit loses against the full network, float64 [N, E]; the last column is 0."""
    if loss == "consistency":
        return (answers != answers[:, -1:]).astype(np.float64)
    if loss == "label-gap":
        wrong = (answers != view.label[:, None]).astype(np.float64)
        return wrong - wrong[:, -1:]
    p = view.probabilities
    if loss == "hellinger":
        roots = np.sqrt(p)
        return np.sqrt(((roots - roots[:, -1:]) ** 2).sum(axis=2) / 2)
    against = view.label if loss == "brier-gap" else view.answers[:, -1]
    told = np.take_along_axis(p, np.maximum(against, 0)[:, None, None].astype(np.intp), axis=2)[:, :, 0]
    errors = (p**2).sum(axis=2) - 2 * told + 1
    return errors - errors[:, -1:]
