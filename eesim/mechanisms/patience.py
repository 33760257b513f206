"""patience: stop when enough exits in a row agree (PABEE)."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Patience(ThresholdMechanism):
    """Exit when the answers of t + 1 consecutive exits agree (PABEE, NeurIPS 2020, section 3); state: within a sample.

    A counter starts at 0 and grows by one for each exit that answers as the one before it; a change sets it back to 0.
    The exit at which it reaches `patience` answers.
    """

    name = "patience"
    source = "PABEE (arXiv 2006.04152), section 3"
    state = "within"
    parameters = (Parameter("patience", 2, 1, help="agreements in a row that suffice", integer=True, never=np.inf),)

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """The counter after each exit, float64 [N, E]: the rule is a threshold on it."""
        counter = np.zeros((len(view), view.exits))
        for exit in range(1, view.exits):
            agrees = view.answers[:, exit] == view.answers[:, exit - 1]
            counter[:, exit] = np.where(agrees, counter[:, exit - 1] + 1, 0)
        return counter

    def thresholds(self, view: TraceView, count: int, given: Values) -> np.ndarray:
        """Every patience that can make a difference."""
        return np.arange(1, max(view.exits - 1, 1))

    def charge(self, site: Site) -> Charge:
        """The class with the largest logit, one comparison with the answer before, one with the patience."""
        return Charge((Work("elementwise", site.classes, site.classes + 2),))
