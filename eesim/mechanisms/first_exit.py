"""first-exit: always stop at the first enabled exit. The cheapest a multi-exit network can be."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms.base import STOP, Decisions, Mechanism, Values, exits_to_decisions
from eesim.trace.view import TraceView


class FirstExit(Mechanism):
    """Exit 0, always; nothing is decided."""

    name = "first-exit"
    source = "lower bound of cost"
    asks = False
    bound = True

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        return 0 if exit < 0 else STOP

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`."""
        return exits_to_decisions(np.zeros(len(view), np.uint8), view, every_head=False)
