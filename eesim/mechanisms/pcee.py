"""pcee: stop when enough exits in a row are certain (PCEE-BERT)."""

from __future__ import annotations

import math

import numpy as np

from eesim.mechanisms._streak import streak_candidates, weakest_of_last
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Pcee(ThresholdMechanism):
    """Exit at the t-th exit in a row with H(p) < tau, strictly, in nats (PCEE-BERT); state: within a sample. With t = 1 it is `entropy`."""

    name = "pcee"
    source = "PCEE-BERT (Findings of NAACL 2022), abstract"
    state = "within"
    parameters = (
        Parameter("threshold", 0.3, 0.0, math.log, "entropy in nats below which an exit is certain, tau", never=np.inf),
        Parameter("patience", 2, 1, help="certain exits in a row that suffice, t", integer=True),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """Minus the largest of the last t entropies, float64 [N, E]; -inf where there are fewer than t."""
        return weakest_of_last(-view.entropy, int(self.value(values, "patience")))

    def bar(self, threshold: float) -> float:
        """H < tau is -H > -tau: the next float above -tau."""
        return float(np.nextafter(-threshold, np.inf))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """tau = H."""
        return -scores

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Thresholds for each patience that leaves an exit to save."""
        return streak_candidates(self, view, count, given or {}, view.exits - 1)

    def charge(self, site: Site) -> Charge:
        """Softmax; K logarithms, products and additions; one comparison of the entropy, one of the counter."""
        return Charge((Work("softmax", site.classes, 4 * site.classes), Work("softmax", site.classes, 3 * site.classes + 2)))
