"""berxit: stop when a learned regression of the error from the features is small enough (BERxiT, learning to exit)."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._fitting import Model, judged
from eesim.mechanisms._logistic import minimum, sigmoid
from eesim.mechanisms._losses import squared_error
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Berxit(ThresholdMechanism):
    """Exit e iff u < threshold, strictly, with u = sigmoid(w.h_e + b) fitted to 1[the exit is wrong] (BERxiT, EACL 2021); state: none.

    h_e are the pooled features of exit e; w and b are fitted on the calibration split by squared error over all non-final exits,
    after the network was trained (the paper trains them along with it). One w and b serve all exits, as in the paper; where the
    features differ in width there is one pair for each exit, and with sharing='per-exit' always. Features that were reduced by a
    projection of their own at each exit, as in the bundled workloads, have no basis in common, so that one w says little there.

    How small u gets differs between networks, and the default threshold hardly ever exits on some: tune it (`--accuracy-drop 1%`).
    """

    name = "berxit"
    source = "BERxiT (EACL 2021), section 4, and public code"
    trained = True
    parameters = (
        Parameter("threshold", 0.005, 0.0, 1.0, "regressed error below which to stop; one value or one per exit", per_exit=True, never=np.inf),
        Parameter("sharing", "shared", choices=("shared", "per-exit"), help="one w and b for all exits, or a pair for each"),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """-u, float64 [N, E]."""
        shared = self.value(values, "sharing") == "shared"
        return view.derived(
            ("berxit", shared), lambda whole: -judged(whole, ("berxit", shared), lambda part: fit(part, shared), regressed, features=True)
        )

    def bar(self, threshold: float) -> float:
        """u < T is -u > -T: the next float above -T."""
        return float(np.nextafter(-threshold, np.inf))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """T = u."""
        return -scores

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """One threshold for all exits and 'never'; half of them with shared weights, half without, where that is left open."""
        given = given or {}
        if "sharing" in given or len({part.shape[1] for part in view.features}) > 1:
            return super().candidates(view, count, given)
        kinds = [{"sharing": kind} for kind in ("shared", "per-exit")]
        return [{**kind, **values} for kind in kinds for values in super(Berxit, self).candidates(view, max(count // 2, 2), {**given, **kind})]

    def charge(self, site: Site) -> Charge:
        """D multiplications and additions over the pooled features, a sigmoid and one comparison."""
        widths = site.features[:-1] or (site.classes,) * (site.exits - 1)
        return Charge(tuple((Work("fully_connected", 1, 2 * width, width), Work("elementwise", 1, 4)) for width in widths))


def fit(view: TraceView, shared: bool) -> Model:
    """Weights float64 [E - 1, D + 1], zero-padded where features are narrower, the last column b."""
    known, count = view.label >= 0, view.exits - 1
    parts = [part[known].astype(np.float64) for part in view.features[:count]]
    wrong = [(view.correct[known, exit] == 0).astype(np.float64) for exit in range(count)]
    weights = np.zeros((count, max((part.shape[1] for part in parts), default=0) + 1))
    if shared and len({part.shape[1] for part in parts}) == 1:
        weights[:] = _regression(np.concatenate(parts), np.concatenate(wrong))
        return {"weights": weights}
    for exit, (part, target) in enumerate(zip(parts, wrong, strict=True)):
        found = _regression(part, target)
        weights[exit, : found.size - 1], weights[exit, -1] = found[:-1], found[-1]
    return {"weights": weights}


def _regression(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """w and b, float64 [D + 1], that minimise the mean of (sigmoid(w.x + b) - target)^2, with a trace of weight decay."""
    means, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    inputs = (inputs - means) / spread

    share = np.clip(target.mean(), 1e-3, 1 - 1e-3)
    found = minimum(lambda place: squared_error(place, inputs, target), np.append(np.zeros(inputs.shape[1]), np.log(share / (1 - share))))
    weights = found[:-1] / spread
    return np.append(weights, found[-1] - means @ weights)


def regressed(model: Model, view: TraceView) -> np.ndarray:
    """u at every exit, float64 [N, E]; the last exit is not asked and gets 1."""
    said = np.ones((len(view), view.exits))
    for exit, weights in enumerate(model["weights"]):
        part = view.features[exit].astype(np.float64)
        said[:, exit] = sigmoid(part @ weights[: part.shape[1]] + weights[-1])
    return said
