"""static: never exit early. The bound every early exit is measured against."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms.base import STOP, Decisions, Mechanism, Values, exits_to_decisions
from eesim.trace.view import TraceView


class Static(Mechanism):
    """Run the whole backbone and the last head only; nothing is decided and no other head is paid."""

    name = "static"
    source = "the network without exits"
    asks = False
    bound = True

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        return observed.shape[0] - 1 if exit < 0 else STOP

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`."""
        return exits_to_decisions(np.full(len(view), view.exits - 1, np.uint8), view, every_head=False)
