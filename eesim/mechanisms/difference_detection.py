"""difference-detection: stop at the first exit, with the scene's label, while what that exit says has not changed."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._scene import DISTANCE, MAX_SCENE, PREVIOUS, REFERENCE, THRESHOLD, SceneMechanism, remember, unchanged
from eesim.mechanisms.base import STOP, Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

_LABEL = Parameter(
    "label", "vote", choices=("vote", "final", "first"),
    help="label of a scene: majority of all exits (ties: the last exit's), the last exit's, or in a scene each sample's own at the first exit",
)  # fmt: skip
_VOTE, _FIRST = _LABEL.choices.index("vote"), _LABEL.choices.index("first")


class DifferenceDetection(SceneMechanism):
    """Stop at the first exit, with the label of the scene, iff its softmax lies within threshold of the scene's reference; state: per stream.

    Difference Detection (Temporal Decisions, arXiv 2403.07958). The distance is that between the class probabilities of the
    first exit and those of the scene's reference. Where it is above the threshold, at the first sample of a stream, or once a
    scene has reached `max_scene` samples: run to the end; the sample opens a scene, becomes its reference and gives it its label.

    Which heads run: within a scene the first. A sample that opens one runs all of them where label = 'vote', the first and
    the last for 'final' and 'first'. Under 'first' the sample that opens a scene answers what the last exit says.
    reference = 'previous' compares with the sample before and keeps the label. Where only the last exit is enabled it is the
    first one too, and the rule is applied to it.
    """

    name = "difference-detection"
    source = "Temporal Decisions (arXiv 2403.07958); rule as described by secondary sources, distances and references optional"
    parameters = (THRESHOLD, DISTANCE, _LABEL, REFERENCE, MAX_SCENE)

    def memory(self, view: TraceView, values: Values) -> int:
        """Samples in the scene so far (0: none), its label, K numbers of the reference."""
        return 2 + view.classes

    def exits_compared(self, view: TraceView) -> range:
        """The first enabled exit."""
        return range(1)

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """float64 [5]: the bar, whether the distance is L1, label, reference, longest scene."""
        packed = super().pack(values, view)
        packed[0] = self.bar(values["threshold"], values["distance"])
        packed[1] = values["distance"] == "l1"
        return packed

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`. memory: samples in the scene, label, reference."""
        last = observed.shape[0] - 1
        if exit == 0:
            if memory[0] > 0 and memory[0] < parameters[4] and unchanged(observed, 0, memory, 2, parameters[1] > 0, parameters[0]):
                memory[0] += 1
                if parameters[2] != _FIRST:
                    answer[0] = int(memory[1])
                if parameters[3] == PREVIOUS:
                    remember(observed, 0, memory, 2)
                return STOP
            remember(observed, 0, memory, 2)
            memory[0] = 1
        if exit == last:
            memory[1] = observed[last, -2] if parameters[2] == _VOTE else observed[last, -1]
            answer[0] = int(memory[1])
            return STOP
        return last if exit == 0 and parameters[2] != _VOTE else exit + 1

    def charge(self, site: Site) -> Charge:
        """At the first exit a softmax, K differences, products and sums, a comparison; at later ones, where votes are counted, the answer."""
        first = (Work("softmax", site.classes, 4 * site.classes), Work("elementwise", site.classes, 3 * site.classes + 1))
        vote = (Work("elementwise", site.classes, site.classes + 1),)
        return Charge((first, *(vote,) * (site.exits - 2)) if site.exits > 1 else ())
