"""calm: a confidence threshold that decays over a stream, calibrated by Learn then Test (CALM)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms._risk import GRID, Curve, not_held
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

_curves: WeakKeyDictionary[TraceView, dict] = WeakKeyDictionary()


class Calm(ThresholdMechanism):
    """Exit e iff confidence >= thr(t), where thr decays over the sequence (CALM, arXiv 2207.07061); state: none but the place in the sequence.

    decay='free' (public code of FREE): thr(t) = lambda (0.9 + 0.1 exp(-tau t/T)); decay='paper': thr(t) = 0.9 lambda + 0.1 exp(-tau t/T),
    cut to [0, 1]. CALM decides token by token; here a stream of the recorded split is the sequence: t is the sample's place in its
    stream from 0 and T how many the stream has, whatever the order in which requests replay them. CALM judges early tokens more
    strictly because their errors carry over to all later ones; samples that are classified one by one have no such reason.

    Confidence: 'margin' p1 - p2, 'max-softmax', or 'saturation', the cosine between the features of this exit and the one before
    (none at the first exit; features of neighbouring exits must be of one width and, to mean anything, in one basis).

    Where lambda (`threshold`) is not given it comes from Learn then Test: the smallest for which the answers differ from the full
    network's in at most a share `risk`, with probability `confidence`; where none does it is 'never', so that the full network
    answers, which is refused with a `max_exit` that keeps it from answering. A lambda that was given, or tuned to an allowed drop
    of accuracy, certifies nothing, and stands without a risk.
    """

    name = "calm"
    source = "CALM (arXiv 2207.07061), sections 3-4; decay and margin: public code of FREE (arXiv 2310.05424)"
    parameters = (
        Parameter("threshold", None, 0.0, 1.0, "lambda, the threshold before decay; found by Learn then Test where it is not given", never=np.inf),
        Parameter("risk", 0.05, 0.0, 1.0, "share of answers that may differ from the full network's"),
        Parameter("confidence", 0.9, 0.0, 1 - 1e-9, "probability that the risk is held"),
        Parameter("score", "margin", choices=("margin", "max-softmax", "saturation"), help="what counts as confidence"),
        Parameter("decay", "free", choices=("free", "paper", "none"), help="form of the decay over a stream"),
        Parameter("tau", 4.0, 0.0, 1e6, "how fast the threshold decays", only=("decay", ("free", "paper"))),
    )  # fmt: skip
    scored_by = "margin"

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """The lambda up to which each exit passes, float64 [N, E]: the confidence with the decay taken out of it."""
        measured, decay = self._measured(view, values), self.value(values, "decay")
        if decay == "none":
            return measured
        fading = np.exp(-float(self.value(values, "tau")) * places(view))[:, None]
        if decay == "free":
            return measured / (0.9 + 0.1 * fading)
        passed = (measured - 0.1 * fading) / 0.9
        return np.where(measured >= 1, np.finfo(np.float64).max, passed)  # the threshold is cut to 1, so a confidence of 1 always passes

    def _measured(self, view: TraceView, values: Values) -> np.ndarray:
        kind = self.value(values, "score")
        if kind != "saturation":
            return view.margin if kind == "margin" else view.confidence
        parts = [part.astype(np.float64) for part in view.features]
        measured = np.full((len(view), view.exits), -np.inf)
        for exit in range(1, view.exits):
            before, now = parts[exit - 1], parts[exit]
            if before.shape[1] != now.shape[1]:
                widths = ", ".join(str(part.shape[1]) for part in parts)
                raise BadInput(f"saturation compares features of neighbouring exits, whose widths must be equal; they are {widths}", field="score")
            sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
            measured[:, exit] = np.where(sizes > 0, (before * now).sum(axis=1) / np.where(sizes > 0, sizes, 1), -np.inf)
        return np.minimum(measured, 1.0)

    def group(self, values: Values) -> tuple:
        """What the score depends on: all but lambda and what lambda was chosen by."""
        return tuple(sorted((name, value) for name, value in values.items() if name not in ("threshold", "risk", "confidence")))

    def chosen(self, view: TraceView, values: Values) -> float | str:
        """The lambda that Learn then Test gives on the calibration split of this view, or 'never'; `values['threshold']` is not looked at."""
        return self.select(view.calibration, values)

    def select(self, calibration: TraceView, values: Values) -> float | str:
        """The lambda that Learn then Test gives on the samples of a view, or 'never'.

        Raises BadInput where there is none and `max_exit` keeps the full network from answering instead.
        """
        kept = _curves.setdefault(calibration, {})
        if (key := self.group(values)) not in kept:
            scored = self.scored(calibration, values)
            kept[key] = Curve(scored.score[:, :-1], (scored.answers != scored.answers[:, -1:]).astype(np.float64), strict=False, binary=True)
        place = kept[key].select("ltt", float(self.value(values, "risk")), 1 - float(self.value(values, "confidence")))
        if place < 0 and self.cut_short(calibration, values):
            raise not_held(float(self.value(values, "risk")), values["max_exit"])
        return float(GRID[place]) if place >= 0 else "never"

    def settle(self, given: Mapping[str, Any], view: TraceView, calibration: Callable[[], TraceView] | None = None) -> Values:
        """As for every mechanism; lambda is chosen with the risk, confidence and score that are given.

        Beside a lambda that is given the defaults of risk and confidence are left out, since it holds neither; given with it they
        must be those that it was chosen with. Raises BadInput otherwise.
        """
        checked = self.check(given, view)
        values = {**self.effective(super().defaults(lambda: view), checked), **checked}
        promised = [name for name in ("risk", "confidence") if name in checked]
        if "threshold" in checked and not promised:
            return {name: value for name, value in values.items() if name not in ("risk", "confidence")}
        chosen = self.select((calibration or (lambda: view.calibration))(), values)
        if values.setdefault("threshold", chosen) != chosen:
            raise BadInput(
                f"{promised[0]} has no effect with a threshold that is given, unless it is the one that it leads to, {chosen}; leave one of them out",
                field=promised[0],
            )
        return values

    def defaults(self, calibration: Callable[[], TraceView]) -> Values:
        """The defaults, and the lambda that they give on the calibration split."""
        values = super().defaults(calibration)
        return {"threshold": self.select(calibration(), values), **values}

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Lambdas; where a risk is given, the one that holds it."""
        given = given or {}
        if "risk" in given or "confidence" in given:
            return [{}]
        return super().candidates(view, count, given)

    def variant(self, values: Values) -> Calm:
        """Itself, or its like for another confidence, which costs something else."""
        if (kind := self.value(values, "score")) == self.scored_by:
            return self
        other = Calm()
        other.scored_by = kind
        return other

    def charge(self, site: Site) -> Charge:
        """Margin: softmax, a second pass, two operations; max-softmax: a softmax; saturation: three inner products of the features."""
        decay = Work("elementwise", 1, 4)
        if self.scored_by == "saturation":
            widths = site.features[:-1] or (site.classes,) * (site.exits - 1)
            return Charge(
                tuple((Work("fully_connected", 1, 6 * width + 4, 3 * width), decay) if exit else (decay,) for exit, width in enumerate(widths))
            )
        if self.scored_by == "max-softmax":
            return Charge((Work("softmax", site.classes, 4 * site.classes + 1), decay))
        return Charge((Work("softmax", site.classes, 4 * site.classes), Work("elementwise", site.classes, site.classes + 2), decay))


def places(view: TraceView) -> np.ndarray:
    """t/T of each sample: its place in its stream from 0 over the length of the stream, float64 [N]. The view is a whole split."""
    codes, count = view.streams
    order = np.argsort(codes, kind="stable")
    lengths = np.bincount(codes, minlength=count)
    place = np.empty(len(view), np.int64)
    place[order] = np.arange(len(view)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return place / lengths[codes]
