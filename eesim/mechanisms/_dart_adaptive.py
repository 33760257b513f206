"""DART with coefficients that adapt while it runs (arXiv 2603.12269, Eq. 13-15).

The bar of exit e for an answer k is threshold_e x c_e x c_k, where c_e follows the windowed accuracy of the exit and c_k that of
the answers "k". Both begin at 1. Which of them count is the strategy:

    temporal     c_e <- 0.95 c_e + 0.05 (1 + target - accuracy of exit e)     f(perf) is not published; this one is assumed
    class-aware  c_k <- c_k + eta (target - accuracy of answers k)
    ucb1         one of {none, temporal, class-aware, both} for each sample, by the largest r_i + sqrt(2 ln t / n_i);
                 r_i = accuracy - beta_opt x share of the full network's cost, of the samples in the window that had strategy i

after each answer whose truth has become known, where the window holds more than 5 known answers of the exit, or 50 of the class (as in
the authors' code), and kept within 0.1 and 2. Accuracies are over the last `window` answers that were due; those without a
label do not count. Coefficients begin to matter for the next sample.

The truth about an answer: its label, `label_delay` samples later where labels come late. Where they never come, an answer with
p1 of at least `pseudo_label` counts as right and any other as wrong: the paper takes confident answers for their own labels and
leaves open what the others are; if they were left out, every accuracy would be 1 and every coefficient would fall to its limit.

Every step costs the same however long the window is: sums are kept up to date by what enters and what leaves.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from eesim.jit import jittable
from eesim.mechanisms.base import STOP, Charge, Mechanism, Site, Values, Work
from eesim.trace.view import TraceView, score_answers

if TYPE_CHECKING:
    from eesim.mechanisms.dart import Dart

NONE, TEMPORAL, CLASS_AWARE, BOTH, STRATEGIES = 0, 1, 2, 3, 4
KINDS = {"temporal": float(TEMPORAL), "class-aware": float(CLASS_AWARE), "ucb1": float(STRATEGIES)}
DECAY = 0.95
LEAST_OF_EXIT, LEAST_OF_CLASS = 6, 50
LOWEST, HIGHEST = 0.1 - 1.0, 2.0 - 1.0
"""Limits of the coefficients, which memory holds less 1: it begins at zero."""
UNKNOWN = 2

SCORE, ANSWER, RIGHT, SURE = 0, 1, 2, 3
FIRST, KIND, PSEUDO, DELAY, WINDOW, TARGET, ETA, CUTOFF, BETA, CLASSES, SHARES = range(11)
"""Places in the parameters after the thresholds."""


class Adaptive(Mechanism):
    """The rule of `Dart` with the adaptive coefficients of this module; state: global."""

    name = "dart"
    state = "global"
    scratch = 1

    def __init__(self, rule: Dart):
        """rule: the frozen form, with the same values; it gives scores and what they cost."""
        self.rule, self.source, self.parameters = rule, rule.source, rule.parameters

    def group(self, values: Values) -> tuple:
        """As of the frozen form."""
        return self.rule.group(values)

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """Score, answer, whether it is right (-1 unknown) and p1, float64 [N, E, 4]. The truth is read only when it is due."""
        scored = self.rule.scored(view, values)
        right = score_answers(scored.answers, view.label[:, None])
        return np.stack([scored.score, scored.answers, right, scored.confidence], axis=2)

    def memory(self, view: TraceView, values: Values) -> int:
        """Samples; per exit and class: known answers, right ones, coefficient - 1; per strategy: use and reward; the ring."""
        delay, window = self._delay(values), int(self.value(values, "window"))
        return _ring(view.exits, view.classes) + delay + window

    def _delay(self, values: Values) -> int:
        return int(self.value(values, "label_delay")) if self.value(values, "labels") == "late" else 0

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """Thresholds [E - 1], then the settings in the order of `FIRST` and so on, then the share of the cost up to each exit [E]."""
        value = lambda name: self.value(values, name)  # noqa: E731
        head = [
            np.searchsorted(view.recorded_exits[:-1], value("min_exit")), KINDS[value("adaptive")], value("labels") == "never", self._delay(values),
            value("window"), value("target"), value("eta"), value("pseudo_label"), value("beta_opt"), view.classes,
        ]  # fmt: skip
        return np.concatenate([self.rule.places(values, view), np.array(head, np.float64), self.rule.shares(view, values)])

    def charge(self, site: Site) -> Charge:
        """The frozen form; one more product at each exit; and once per sample the bookkeeping, whatever the window.

        Entering and leaving the window 4 each, a division, a difference, a product, a sum and two limits for each coefficient.
        UCB1: a mean reward (2 E), a root and a logarithm for each of the four strategies.
        """
        own = self.rule.charge(site)
        update = 20 if self.rule.adaptive != "ucb1" else 20 + STRATEGIES * (2 * site.exits + 6)
        decision = tuple(Work(piece.kind, piece.elements, piece.operations + (place == 0), piece.macs) for place, piece in enumerate(own.decision))
        return Charge(decision, (*own.sample, Work("elementwise", update, update)))

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base` and `pack`. scratch: the strategy of this sample."""
        exits = observed.shape[0]
        own = exits - 1
        if exit < 0:
            kind = int(parameters[own + KIND])
            scratch[0] = _strategy(memory, parameters, exits) if kind == STRATEGIES else kind
            return int(parameters[own + FIRST])
        label, strategy = int(observed[exit, ANSWER]), int(scratch[0])
        classes = int(parameters[own + CLASSES])
        if exit < own:
            factor = 1.0
            if strategy in (TEMPORAL, BOTH):
                factor *= 1.0 + memory[1 + 2 * exits + exit]
            if strategy in (CLASS_AWARE, BOTH):
                factor *= 1.0 + memory[1 + 3 * exits + 2 * classes + label]
            score = observed[exit, SCORE]
            if not (score > parameters[exit] * factor or score == inf):
                return exit + 1
        answer[0] = label
        if parameters[own + PSEUDO] > 0.0:
            outcome = 1 if observed[exit, SURE] >= parameters[own + CUTOFF] else 0
        else:
            outcome = int(observed[exit, RIGHT]) if observed[exit, RIGHT] >= 0.0 else UNKNOWN
        _learn(memory, parameters, exits, classes, strategy << 28 | exit << 22 | label << 2 | outcome)
        return STOP


@jittable
def _ring(exits, classes):
    """Where the ring begins in memory; two places before it say where the next answer goes, and which answer is due next."""
    return 3 + 3 * exits + 3 * classes + STRATEGIES * (exits + 3)


@jittable
def _strategy(memory, parameters, exits):
    """The strategy of the next sample under UCB1; each of them once to begin with. Those out of the window keep their last reward."""
    own = exits - 1
    classes = int(parameters[own + CLASSES])
    uses = 1 + 3 * exits + 3 * classes
    hits, means, counts = uses + STRATEGIES, uses + 2 * STRATEGIES, uses + 3 * STRATEGIES
    chosen, record = 0, -inf
    logarithm = 2.0 * log(memory[0]) if memory[0] > 0.0 else 0.0
    for strategy in range(STRATEGIES):
        if memory[uses + strategy] == 0.0:
            chosen = strategy
            break
        known, spent = 0.0, 0.0
        for exit in range(exits):
            number = memory[counts + strategy * exits + exit]
            known += number
            spent += number * parameters[own + SHARES + exit]
        if known > 0.0:
            memory[means + strategy] = (memory[hits + strategy] - parameters[own + BETA] * spent) / known
        value = memory[means + strategy] + sqrt(logarithm / memory[uses + strategy])
        if value > record:
            chosen, record = strategy, value
    memory[uses + chosen] += 1.0
    return chosen


@jittable
def _count(memory, code, exits, classes, sign):
    """Add an answer to the sums (sign 1) or take it out again (-1). Bits of the code: strategy, exit (6), class (20), outcome (2)."""
    outcome = code & 3
    if outcome == UNKNOWN:
        return
    label, exit, strategy = code >> 2 & 0xFFFFF, code >> 22 & 63, code >> 28
    by_class = 1 + 3 * exits
    uses = by_class + 3 * classes
    memory[1 + exit] += sign
    memory[by_class + label] += sign
    memory[uses + 3 * STRATEGIES + strategy * exits + exit] += sign
    if outcome == 1:
        memory[1 + exits + exit] += sign
        memory[by_class + classes + label] += sign
        memory[uses + STRATEGIES + strategy] += sign


@jittable
def _learn(memory, parameters, exits, classes, code):
    """Keep an answer; count the one whose truth is due now; forget the one that leaves the window; move the coefficients."""
    own = exits - 1
    delay, size = parameters[own + DELAY], int(parameters[own + DELAY] + parameters[own + WINDOW])
    ring = _ring(exits, classes)
    place, samples = int(memory[ring - 2]), memory[0]
    if samples >= size:
        _count(memory, int(memory[ring + place]), exits, classes, -1.0)
    memory[ring + place] = code
    memory[ring - 2] = place + 1 if place + 1 < size else 0
    memory[0] = samples + 1.0
    if samples < delay:
        return
    oldest = int(memory[ring - 1])
    memory[ring - 1] = oldest + 1 if oldest + 1 < size else 0
    due = int(memory[ring + oldest])
    if due & 3 == UNKNOWN:
        return
    _count(memory, due, exits, classes, 1.0)
    exit, label = due >> 22 & 63, due >> 2 & 0xFFFFF
    target = parameters[own + TARGET]
    known = memory[1 + exit]
    if known >= LEAST_OF_EXIT:
        shift = 1 + 2 * exits + exit
        moved = DECAY * memory[shift] + (1.0 - DECAY) * (target - memory[1 + exits + exit] / known)
        memory[shift] = min(max(moved, LOWEST), HIGHEST)
    by_class = 1 + 3 * exits
    known = memory[by_class + label]
    if known >= LEAST_OF_CLASS:
        shift = by_class + 2 * classes + label
        moved = memory[shift] + parameters[own + ETA] * (target - memory[by_class + classes + label] / known)
        memory[shift] = min(max(moved, LOWEST), HIGHEST)
