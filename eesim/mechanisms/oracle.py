"""oracle: stop at the earliest exit that is right. What a perfect decision would reach; no device can run it."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms.base import STOP, Decisions, Mechanism, Values, exits_to_decisions
from eesim.trace.view import TraceView


class Oracle(Mechanism):
    """Per-sample oracle: the earliest correct exit, exit 0 if none is; pays only that head, decides for free.

    Its accuracy bounds every rule that answers what one of the recorded exits says. Rules with answers of their own (votes and
    labels of a scene, ensembles, modules fitted to features) may be right where no recorded exit is.
    """

    name = "oracle"
    source = "upper bound of rules that answer as one recorded exit does"
    asks = False
    bound = True

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """Whether each exit is right: the one rule that reads what no device knows."""
        return view.correct

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        if exit >= 0:
            return STOP
        for candidate in range(observed.shape[0]):
            if observed[candidate, 0] == 1.0:
                return candidate
        return 0

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`: argmax is 0 where no exit is right."""
        return exits_to_decisions((view.correct == 1).argmax(axis=1).astype(np.uint8), view, every_head=False)
