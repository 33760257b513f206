"""zero-time-waste: each exit answers for an ensemble of itself and the exits before it."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._fitting import Model, judged
from eesim.mechanisms._logistic import log_softmax, minimum, softmax
from eesim.mechanisms._losses import arithmetic, geometric
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

TINY = 1e-40


class ZeroTimeWaste(ThresholdMechanism):
    """Exit l iff max softmax(z_l) > T, strictly, with z_l an ensemble of exits 0 to l; it answers argmax z_l; state: within a sample.

    Zero Time Waste (NeurIPS 2021). Geometric ensemble, l = 0, 1, …: z_l = mean over m <= l of exp(w_m) ln p^m, plus b, with a weight
    for each of its exits and a bias for each class. Arithmetic: z_l = ln of the normalised sum over m <= l of exp(w_m) p^m, plus
    exp(b). Weights are fitted on the calibration split by cross-entropy, from w = 0 (the paper starts near there). The last exit
    answers for itself. The paper's other half, heads that read the head before them, is a matter of the network and not reproduced
    here.
    """

    name = "zero-time-waste"
    source = "Zero Time Waste (arXiv 2106.05409), section 3.2, and public code"
    state = "within"
    trained = True
    parameters = (
        Parameter("threshold", 0.9, 0.0, 1.0, "ensemble confidence above which to stop; one value or one per exit", per_exit=True, never=np.inf),
        Parameter("ensemble", "geometric", choices=("geometric", "arithmetic"), help="how exits are averaged"),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """Largest entry of the ensemble's softmax, float64 [N, E]."""
        return self._ensembles(view, values)[0]

    def answers(self, view: TraceView, values: Values) -> np.ndarray:
        """What the ensembles answer, int32 [N, E]."""
        return self._ensembles(view, values)[1]

    def confidence(self, view: TraceView, values: Values) -> np.ndarray:
        """As the score, float64 [N, E]."""
        return self._ensembles(view, values)[0]

    def _ensembles(self, view: TraceView, values: Values) -> tuple[np.ndarray, np.ndarray]:
        key = ("zero-time-waste", kind := self.value(values, "ensemble"))
        return view.derived(key, lambda whole: judged(whole, key, lambda part: fit(part, kind), lambda model, part: told(model, part, kind)))

    def bar(self, threshold: float) -> float:
        """p > T: the next float above T."""
        return float(np.nextafter(threshold, np.inf))

    def charge(self, site: Site) -> Charge:
        """A softmax of the head, K logarithms, l K products and sums, a softmax of the ensemble, one comparison."""
        classes = site.classes
        own, again = Work("softmax", classes, 5 * classes), Work("softmax", classes, 4 * classes + 1)
        return Charge(tuple((own, Work("fully_connected", classes, 2 * count * classes, count * classes), again) for count in range(1, site.exits)))


def fit(view: TraceView, kind: str) -> Model:
    """Weights float64 [E - 1, E - 1] (row l: w of its ensemble, 0 beyond l) and biases float64 [E - 1, K]."""
    known, count = view.label >= 0, view.exits - 1
    said, label = log_softmax(view)[known], view.label[known]
    weights, biases = np.zeros((count, count)), np.zeros((count, view.classes))
    for exit in range(count):
        parts = np.ascontiguousarray(said[:, : exit + 1])
        parts, loss = (parts, geometric) if kind == "geometric" else (np.exp(parts), arithmetic)
        start = np.zeros(exit + 1 + view.classes)
        if kind == "arithmetic":
            start[exit + 1 :] = -5.0  # exp(b) is mass that every class gets
        found = minimum(lambda place, parts=parts, loss=loss: loss(place, parts, label), start)
        weights[exit, : exit + 1], biases[exit] = found[: exit + 1], found[exit + 1 :]
    return {"weights": weights, "biases": biases}


def told(model: Model, view: TraceView, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence float64 [N, E] and answers int32 [N, E] of the ensembles; the last exit's are its own."""
    said = log_softmax(view)
    confidence, answers = view.confidence.copy(), view.answers.copy()
    for exit, (weights, bias) in enumerate(zip(model["weights"], model["biases"], strict=True)):
        scale = np.exp(weights[: exit + 1])
        if kind == "geometric":
            p = softmax(np.einsum("nlk,l->nk", said[:, : exit + 1], scale) / (exit + 1) + bias)
        else:
            mixed = np.einsum("nlk,l->nk", np.exp(said[:, : exit + 1]), scale) + np.exp(bias)
            p = softmax(np.log(mixed / mixed.sum(axis=1, keepdims=True) + TINY))
        confidence[:, exit], answers[:, exit] = p.max(axis=1), p.argmax(axis=1)
    return confidence, answers
