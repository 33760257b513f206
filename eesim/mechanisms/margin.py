"""margin: stop when the two largest softmax entries are far enough apart."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Margin(ThresholdMechanism):
    """Exit e iff p1 - p2 >= T_e (score margin, as in the public code of JEI-DNN, arXiv 2310.09163); state: none."""

    name = "margin"
    source = "score margin; public code of JEI-DNN (arXiv 2310.09163)"
    parameters = (
        Parameter("threshold", 0.8, 0.0, 1.0, "smallest sufficient margin p1 - p2; one value or one per exit", per_exit=True, never=np.inf),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """p1 - p2, float64 [N, E]."""
        return view.margin

    def charge(self, site: Site) -> Charge:
        """Softmax, a second pass for the runner-up, one subtraction and one comparison."""
        return Charge((Work("softmax", site.classes, 4 * site.classes), Work("elementwise", site.classes, site.classes + 2)))
