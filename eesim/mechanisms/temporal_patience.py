"""temporal-patience: while a scene lasts, stop at the earliest exit that agreed with the last one when the scene began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eesim.mechanisms._scene import DISTANCE, MAX_SCENE, PREVIOUS, REFERENCE, THRESHOLD, SceneMechanism, remember, unchanged
from eesim.mechanisms.base import STOP, Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

_LABEL = Parameter(
    "label", "exit", choices=("exit", "reference", "final", "vote"),
    help="answer within a scene: the exit's own; the label of the scene; what the last exit, or most exits, said when it began",
)  # fmt: skip
_EVALUATE = Parameter("evaluate", "exit", choices=("exit", "all"), help="heads run within a scene: the chosen exit's, or all up to it")
_REOPEN = Parameter("reopen_when_final", "no", choices=("no", "yes"), help="'yes': a sample that stopped at the last exit ends its scene")
_OWN, _VOTE = _LABEL.choices.index("exit"), _LABEL.choices.index("vote")
_ALL, _YES = _EVALUATE.choices.index("all"), _REOPEN.choices.index("yes")
_LENGTH, _CHOSEN, _SCENE_LABEL, _AGREED, _REFERENCES = range(5)


class TemporalPatience(SceneMechanism):
    """Stop at the exit that the scene chose, iff it answers as the scene's reference and lies within threshold of it; state: per stream.

    Temporal Patience (Temporal Decisions, arXiv 2403.07958, by name; the rule is a documented assumption).
    A sample that opens a scene runs the whole network with all heads. Its final label is Y, what every exit l says is the
    reference o_ref,l, and e is the earliest exit that answers Y; the last exit does. A later sample runs to exit e, with the
    head of e only, and stops there if the answer is the one of o_ref,e and ||o_e - o_ref,e|| <= threshold of e. Otherwise it
    runs on to the end and opens a scene: all heads are evaluated then, those below e, which were skipped, included.

    threshold: one for all exits, or one per exit; the last exit then takes the threshold of the exit before it.
    evaluate = 'all': the heads up to e are run, each must answer as its reference and lie within its threshold.
    reference = 'previous': what the heads that ran say becomes their reference.
    label: 'exit', 'reference' and 'final' are the same answer, since a scene goes on only while exit e answers Y; with
    'vote' every sample of a scene answers what most exits said when it began (ties: the last exit's answer).
    reopen_when_final: after a sample of a scene whose e is the last exit the next sample opens a scene, so that an earlier
    exit can be chosen again.
    """

    name = "temporal-patience"
    source = "Temporal Decisions (arXiv 2403.07958); selection, reset and threshold rules are assumptions"
    scratch = 1
    parameters = (
        replace(THRESHOLD, per_exit=True), DISTANCE, REFERENCE, _LABEL, _EVALUATE, MAX_SCENE, _REOPEN,
    )  # fmt: skip

    def memory(self, view: TraceView, values: Values) -> int:
        """Samples in the scene so far (0: none), e, the label of the scene, Y, and E x K numbers of the references.

        Which exit is compared is known only when the last one has answered, so all references need their place. evaluate = 'all'
        also keeps what each reference answered.
        """
        return _REFERENCES + view.exits * (view.classes + (self.value(values, "evaluate") == "all"))

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """float64 [E + 6]: the bars of all exits, whether the distance is L1, reference, label, evaluate, longest scene, reopen."""
        threshold = values["threshold"]
        spread = threshold if isinstance(threshold, tuple) else (threshold,) * max(view.trace.exits - 1, 1)
        chosen = [spread[exit] for exit in view.recorded_exits[:-1]]
        bars = [self.bar(value, values["distance"]) for value in [*chosen, chosen[-1] if chosen else spread[-1]]]
        rest = super().pack(values, view)[view.exits - 1 :]
        rest[0] = values["distance"] == "l1"
        return np.concatenate([bars, rest])

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`. scratch: 1 + the exit at which a scene was found to have ended, 0 while none was."""
        exits, classes = observed.shape[0], observed.shape[1] - 2
        last = exits - 1
        if exit < 0:
            if memory[_LENGTH] > 0 and memory[_LENGTH] < parameters[exits + 4]:
                return 0 if parameters[exits + 3] == _ALL else int(memory[_CHOSEN])
            memory[_LENGTH] = 0
            return 0
        if memory[_LENGTH] > 0:
            chosen, begin = int(memory[_CHOSEN]), _REFERENCES + exit * classes
            # exits before the chosen one are seen under evaluate = 'all' only, which keeps their references' answers
            said = memory[_AGREED] if exit == chosen else memory[_REFERENCES + exits * classes + exit]
            if observed[exit, -1] == said and unchanged(observed, exit, memory, begin, parameters[exits] > 0, parameters[exit]):
                if exit < chosen:
                    return exit + 1
                memory[_LENGTH] += 1
                if parameters[exits + 2] != _OWN:
                    answer[0] = int(memory[_SCENE_LABEL])
                if parameters[exits + 1] == PREVIOUS:
                    for seen in range(0 if parameters[exits + 3] == _ALL else chosen, chosen + 1):
                        remember(observed, seen, memory, _REFERENCES + seen * classes)
                if chosen == last and parameters[exits + 5] == _YES:
                    memory[_LENGTH] = 0
                return STOP
            memory[_LENGTH] = 0
            if parameters[exits + 3] != _ALL:
                scratch[0] = 1 + exit
        ended = int(scratch[0]) - 1
        following = 0 if exit == ended and exit > 0 else exit + 1
        if following == ended:
            following += 1
        if following <= last:
            return following
        memory[_LENGTH], memory[_AGREED] = 1, observed[last, -1]
        memory[_SCENE_LABEL] = observed[last, -2] if parameters[exits + 2] == _VOTE else observed[last, -1]
        answer[0] = int(memory[_SCENE_LABEL])
        chosen = 0
        while observed[chosen, -1] != observed[last, -1]:
            chosen += 1
        memory[_CHOSEN] = chosen
        for seen in range(0 if parameters[exits + 3] == _ALL else chosen, chosen + 1):  # the others are not read in this scene
            remember(observed, seen, memory, _REFERENCES + seen * classes)
            if parameters[exits + 3] == _ALL:
                memory[_REFERENCES + exits * classes + seen] = observed[seen, -1]
        return STOP

    def charge(self, site: Site) -> Charge:
        """A softmax; K differences, products and sums; the answer and its comparison, and that of the distance."""
        return Charge((Work("softmax", site.classes, 4 * site.classes), Work("elementwise", site.classes, 4 * site.classes + 2)))
