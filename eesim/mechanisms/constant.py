"""constant: always give the same answer and run nothing. What accuracy alone is worth on unbalanced data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eesim.mechanisms.base import STOP, Decisions, Mechanism, Parameter, Path, Values
from eesim.trace.view import TraceView


class Constant(Mechanism):
    """The most frequent class of the calibration split, for every sample; no segment and no head runs."""

    name = "constant"
    source = "majority-class baseline"
    asks = False
    bound = True
    parameters = (
        Parameter("answer", None, 0, lambda classes: classes - 1, "class to answer; by default the calibration split's most frequent", integer=True),
    )

    def defaults(self, calibration: Callable[[], TraceView]) -> Values:
        """The calibration split's most frequent class."""
        return {"answer": int(calibration().class_counts.argmax())}

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        answer[0] = int(parameters[0])
        return STOP

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`."""
        nothing = np.zeros(len(view), np.uint8)
        return Decisions((Path(0),), nothing, np.full(len(view), -1, np.int16), np.full(len(view), values["answer"], np.int32))
