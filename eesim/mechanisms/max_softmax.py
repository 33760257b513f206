"""max-softmax: stop when the largest softmax entry reaches the threshold."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Parameter, Values
from eesim.trace.view import TraceView


class MaxSoftmax(ThresholdMechanism):
    """Exit e iff p1 >= T_e (MSDNet, arXiv 1703.09844, and its public code); state: none."""

    name = "max-softmax"
    source = "MSDNet (arXiv 1703.09844), section 5 and public code"
    parameters = (
        Parameter("threshold", 0.9, 0.0, 1.0, "smallest sufficient max-softmax p1; one value or one per exit", per_exit=True, never=np.inf),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """p1, float64 [N, E]."""
        return view.confidence
