"""Deciding a whole view with a mechanism, whichever form it has."""

from __future__ import annotations

from eesim.mechanisms.base import Decisions, Mechanism, Values
from eesim.trace.view import TraceView


def decide(mechanism: Mechanism, view: TraceView, values: Values) -> Decisions:
    """Decisions for every sample of the view in order: array code where the mechanism has it, else its compiled step."""
    mechanism = mechanism.variant(values)
    decisions = mechanism.decide(view, values)
    if decisions is None:
        from eesim.mechanisms._asking import decide_in_order  # compiled code is loaded only where it is needed

        decisions = decide_in_order(mechanism, view, values)
    return decisions
