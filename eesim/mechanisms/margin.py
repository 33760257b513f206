"""margin: stop when the two largest softmax entries are far enough apart."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Parameter, Work
from eesim.trace.view import TraceView


class Margin(ThresholdMechanism):
    """Exit e iff p1 - p2 >= T_e (score margin, as in the public code of JEI-DNN, arXiv 2310.09163); state: none."""

    name = "margin"
    source = "score margin; public code of JEI-DNN (arXiv 2310.09163)"
    parameters = (
        Parameter("threshold", 0.8, 0.0, 1.0, "smallest sufficient margin p1 - p2; one value or one per exit", per_exit=True, never=np.inf),
    )

    def score(self, view: TraceView) -> np.ndarray:
        """p1 - p2, float64 [N, E]."""
        return view.margin

    def work(self, classes: int) -> tuple[list[Work], list[Work]]:
        """Softmax, a second pass for the runner-up, one subtraction and one comparison."""
        return [Work("softmax", classes, 4 * classes), Work("elementwise", classes, classes + 2)], []
