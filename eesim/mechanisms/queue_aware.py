"""queue-aware: a max-softmax threshold that falls as requests wait and as the deadline nears."""

from __future__ import annotations

import math

import numpy as np

from eesim.mechanisms.base import NEXT_NS, QUEUE, SLACK_NS, STOP, Charge, Mechanism, Parameter, Site, Values, Work
from eesim.mechanisms.max_softmax import MaxSoftmax
from eesim.trace.view import TraceView


class QueueAware(Mechanism):
    """Stop at exit e iff p1 >= bar_e, which falls with requests that wait and as the deadline nears; state: none, asked in simulated time.

        bar_e = max(min(lowest, T_e), T_e - per_request * queue - lateness * late)

    queue: requests that wait now. late: 0 while the time left to the deadline suffices for the next stage, 1 when none is
    left, and 1 - left / time of the next stage between; 0 without a deadline. An empty queue and no deadline make it
    max-softmax. With 'never' an exit never answers, whatever the queue.

    An own formulation of load-aware thresholds (survey arXiv 2106.05022; SPINN, arXiv 2008.06402), not a reproduction.
    Tuning looks at samples without a queue, so it finds the threshold of max-softmax.
    """

    name = "queue-aware"
    source = "own formulation; load-aware thresholds as in arXiv 2106.05022 and arXiv 2008.06402"
    live = True
    parameters = (
        Parameter("threshold", 0.9, 0.0, 1.0, "smallest sufficient p1 while nobody waits; one value or one per exit", per_exit=True, never=math.inf),
        Parameter("per_request", 0.05, 0.0, 1.0, "what each waiting request takes from the threshold"),
        Parameter("lateness", 0.5, 0.0, 1.0, "what having no time left to the deadline takes from the threshold"),
        Parameter("lowest", 0.5, 0.0, 1.0, "the threshold falls no lower than this"),
    )

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`. parameters: thresholds of all exits but the last, then the other three."""
        last = observed.shape[0] - 1
        if exit < 0 or exit == last:
            return exit + 1
        late = 1.0 if situation[SLACK_NS] <= 0 else 0.0
        if 0 < situation[SLACK_NS] < situation[NEXT_NS]:
            late = 1.0 - situation[SLACK_NS] / situation[NEXT_NS]
        threshold = parameters[exit]
        bar = threshold - parameters[last] * situation[QUEUE] - parameters[last + 1] * late
        return STOP if observed[exit, 0] >= max(bar, min(parameters[last + 2], threshold)) else exit + 1

    def group(self, values: Values) -> tuple:
        """Every setting observes p1."""
        return ()

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """The thresholds of max-softmax."""
        named = {name: value for name, value in (given or {}).items() if name == "threshold"}
        return MaxSoftmax().candidates(view, count, named)

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """p1, float64 [N, E]."""
        return view.confidence

    def charge(self, site: Site) -> Charge:
        """Softmax and its largest entry; two products, a quotient, three differences and three comparisons for the bar."""
        return Charge((Work("softmax", site.classes, 4 * site.classes + 1), Work("elementwise", 1, 9)))
