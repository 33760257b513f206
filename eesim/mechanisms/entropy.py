"""entropy: stop when the softmax is certain enough (BranchyNet)."""

from __future__ import annotations

import math

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Entropy(ThresholdMechanism):
    """Exit e iff H(p) < T_e, strictly, in nats (BranchyNet, arXiv 1709.01686, Algorithm 1; DeeBERT); state: none."""

    name = "entropy"
    source = "BranchyNet (arXiv 1709.01686), Algorithm 1"
    parameters = (
        Parameter("threshold", 0.3, 0.0, math.log, "entropy in nats below which to stop; one value or one per exit", per_exit=True, never=np.inf),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """-H, float64 [N, E]."""
        return -view.entropy

    def bar(self, threshold: float) -> float:
        """H < T is -H > -T: the next float above -T."""
        return float(np.nextafter(-threshold, np.inf))

    def from_score(self, scores: np.ndarray) -> np.ndarray:
        """T = H."""
        return -scores

    def charge(self, site: Site) -> Charge:
        """Softmax; K logarithms, products and additions; one comparison."""
        return Charge((Work("softmax", site.classes, 4 * site.classes), Work("softmax", site.classes, 3 * site.classes + 1)))
