"""anytime: go on as long as the next exit can still be reached before the deadline."""

from __future__ import annotations

from eesim.mechanisms.base import NEXT_NS, SLACK_NS, STOP, Charge, Mechanism, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class Anytime(Mechanism):
    """The deepest exit that finishes by the deadline answers; state: none, asked in simulated time for the time left.

    After each head it goes on iff `reserve` x the time to the next decision is at most the time left to the deadline. The
    first exit is always run: a request that comes too late for it is answered there, late. Without a deadline every sample
    runs to the end. It looks at no score, and evaluates every head on the way, since any of them may have to answer.
    """

    name = "anytime"
    source = "anytime prediction, as in MSDNet (arXiv 1703.09844), section 3; the deadline is the request's own"
    live = True
    parameters = (Parameter("reserve", 1.0, 1.0, 1e6, "factor on the time of the next stage, for devices whose times vary"),)

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        if exit < 0 or situation[SLACK_NS] >= parameters[0] * situation[NEXT_NS]:
            return exit + 1
        return STOP

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Nothing to tune: the deadline decides."""
        return [{}]

    def charge(self, site: Site) -> Charge:
        """A product and a comparison of times."""
        return Charge((Work("elementwise", 1, 2),))
