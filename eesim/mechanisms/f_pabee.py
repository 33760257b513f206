"""f-pabee: stop when the softmax has hardly changed for enough exits in a row."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._logistic import log_softmax
from eesim.mechanisms._streak import streak_candidates, weakest_of_last
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

DIVERGENCES = ("symmetric-kl", "kl", "reverse-kl", "js")


class FPabee(ThresholdMechanism):
    """Exit at the t-th exit in a row whose softmax diverges from that of the exit before by less than tau (F-PABEE); state: within a sample.

    A counter starts at 0, grows by one at each exit with divergence < tau (strictly), and is set back to 0 by any other. The
    first exit has none before it. Which divergence the paper takes is not known to us (its abstract was read); symmetric KL is
    assumed: KL(before || now) + KL(now || before) in nats.

    How far softmaxes diverge differs between networks, and the default threshold hardly ever exits on some: tune it
    (`--accuracy-drop 1%`).
    """

    name = "f-pabee"
    source = "F-PABEE (arXiv 2305.11916), abstract; divergences as they are commonly defined"
    state = "within"
    parameters = (
        Parameter("threshold", 0.1, 0.0, np.inf, "divergence in nats below which two exits agree, tau", never=np.inf),
        Parameter("patience", 2, 1, help="exits in a row that suffice, t", integer=True),
        Parameter(
            "divergence", "symmetric-kl", choices=DIVERGENCES,
            help="'kl': KL(before || now); 'reverse-kl': KL(now || before); 'symmetric-kl': their sum; 'js': Jensen-Shannon",
        ),
    )  # fmt: skip

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """Minus the largest of the last t divergences, float64 [N, E]; -inf where there are fewer than t."""
        return weakest_of_last(-divergences(view, self.value(values, "divergence")), int(self.value(values, "patience")), begin=1)

    def bar(self, threshold: float) -> float:
        """d < tau is -d > -tau: the next float above -tau."""
        return float(np.nextafter(-threshold, np.inf))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """tau = d."""
        return -scores

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Thresholds for each patience that leaves an exit to save."""
        return streak_candidates(self, view, count, given or {}, view.exits - 2)

    def charge(self, site: Site) -> Charge:
        """A softmax each; from the second exit on logarithms, differences, products and sums over the classes, and two comparisons."""
        softmax = Work("softmax", site.classes, 4 * site.classes)
        change = Work("softmax", site.classes, 4 * site.classes + 2)
        return Charge(tuple((softmax,) if exit == 0 else (softmax, change) for exit in range(site.exits - 1)))


def divergences(view: TraceView, kind: str) -> np.ndarray:
    """Divergence of each exit's softmax from that of the exit before, in nats, float64 [N, E]; at the first exit infinity."""
    p, logs = view.probabilities, log_softmax(view)
    before, now, log_before, log_now = p[:, :-1], p[:, 1:], logs[:, :-1], logs[:, 1:]
    found = np.full(p.shape[:2], np.inf)
    if kind == "kl":
        found[:, 1:] = (before * (log_before - log_now)).sum(axis=2)
    elif kind == "reverse-kl":
        found[:, 1:] = (now * (log_now - log_before)).sum(axis=2)
    elif kind == "symmetric-kl":
        found[:, 1:] = ((before - now) * (log_before - log_now)).sum(axis=2)
    else:
        middle = np.logaddexp(log_before, log_now) - np.log(2)
        found[:, 1:] = 0.5 * (before * (log_before - middle) + now * (log_now - middle)).sum(axis=2)
    return np.maximum(found, 0.0)  # rounding may leave a hair below zero
