"""jei-dnn: learned gates, and inference modules where wanted; leave at the first exit where the chance of leaving there, given that
the sample has not left before, is at least a half (JEI-DNN)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from itertools import product
from typing import Any

import numpy as np
from scipy.special import softmax

from eesim.errors import BadInput
from eesim.mechanisms import _fitting
from eesim.mechanisms._jei_training import STATISTICS, ask_modules, exit_masses, gate_outputs, softmax_statistics, train, train_gates, warm_up
from eesim.mechanisms.base import STOP, Charge, Decisions, Mechanism, Parameter, Site, Values, Work, paths_by_exit
from eesim.trace.view import TraceView

HALF = 0.5
FITTED_GRID = ((0.003, 0.01, 0.05, 0.2, 0.7, 2.0), (5.0, 0.2))
RECORDED_GRID = ((0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), (5.0, 1.0, 0.5, 0.2, 0.1, 0.05))
"""Trade-offs and largest positive weights that tuning tries. The public grid is .01 to 7, always with weight 5."""


class JeiDnn(Mechanism):
    """Exit at the first l with h_l >= 0.5 (JEI-DNN, arXiv 2310.09163, and its public code); state: within a sample.

    h_l is the chance of leaving at exit l, given that the sample has not left before. A linear gate on four statistics of an
    exit's softmax (largest entry, entropy, margin, entropy of the normalised squares) gives g_l, the exit mass is
    P_l = max(0, min(g_l, 1 - sum of g before l)), and h_l = P_l / prod over j < l of (1 - h_j).

    Gates are learned on the calibration split towards argmin of CE_l + trade_off * IC_l, with IC_l the cost of exit l. By default
    they judge the recorded heads (modules='recorded'), which needs no features. With modules='fitted', as in the paper, inference
    modules (one linear layer on the recorded features of an exit) take the heads' place, all but the last's, and are learned with
    the gates, on samples weighted by exit mass; see `_jei_training` for what differs from the code. The paper learns them on its
    training set; here they see the calibration split only, and are less accurate than the recorded heads, often by far.
    """

    name = "jei-dnn"
    source = "JEI-DNN (arXiv 2310.09163), equation 8, and public code (networkslab/dynn)"
    state = "within"
    trained = True
    parameters = (
        Parameter("trade_off", 0.7, 0.0, help="lambda: how much the cost of an exit counts against its cross-entropy"),
        Parameter(
            "modules", "recorded", choices=("recorded", "fitted"), help="'recorded': the recorded heads, gates only; 'fitted': modules of its own",
            optional=True,
        ),
        Parameter(
            "pos_weight_max", 5.0, 0.001, help="largest weight of samples that should leave in a gate's loss; below 1, staying counts more",
            optional=True,
        ),
        Parameter(
            "cost", "even", 0.0, 1.0, "IC: cost up to each exit as a share of the full network's; 'even': (exit + 1) / exits", per_exit=True,
            choices=("even",), optional=True,
        ),
        Parameter(
            "weighting", "exit-mass", choices=("exit-mass", "code"), help="samples in the modules' loss; 'code': all alike, as the code's cancel out",
            optional=True, only=("modules", ("fitted",)),
        ),
        Parameter(
            "seed", 0, 0, 2**31 - 1, "order in which the modules learn from samples", integer=True, optional=True, only=("modules", ("fitted",))
        ),
    )  # fmt: skip

    def variant(self, values: Values) -> JeiDnn:
        """With modules of its own, the mechanism that replaces the recorded heads."""
        replaces = self.value(values, "modules") == "fitted"
        if replaces == self.replaces_heads:
            return self
        other = copy(self)
        other.replaces_heads = replaces
        return other

    def check(self, given: Mapping[str, Any], view: TraceView) -> Values:
        """As for every mechanism; and costs that fall from one exit to the next are refused."""
        values = super().check(given, view)
        costs = values.get("cost")
        if isinstance(costs, tuple) and ("even" in costs or list(costs) != sorted(costs)):
            raise BadInput(f"cost {list(costs)} is not a cumulative cost: it may not fall from one exit to the next", field="cost")
        return values

    def group(self, values: Values) -> tuple:
        """All values: every one changes what is fitted."""
        return tuple(sorted(values.items()))

    def exit_costs(self, view: TraceView, values: Values) -> np.ndarray:
        """IC of each enabled exit, float64 [E]; 1 at the last."""
        cost, exits = self.value(values, "cost"), view.trace.exits
        spread = [(exit + 1) / exits for exit in range(exits - 1)] if cost == "even" else np.broadcast_to(cost, exits - 1)
        return np.array([*(spread[exit] for exit in view.recorded_exits[:-1]), 1.0], np.float64)

    def recipe(self, view: TraceView, values: Values) -> tuple[tuple, Callable[[TraceView], _fitting.Model], bool]:
        """The key of what is fitted with these values, the function that fits it, and whether it has modules of its own."""
        own = self.value(values, "modules") == "fitted"
        settings = [float(self.value(values, name)) for name in ("trade_off", "pos_weight_max")]
        cost = self.exit_costs(view, values)
        weighting, seed = self.value(values, "weighting"), int(self.value(values, "seed"))
        key = ("jei-dnn", own, *settings, tuple(cost.tolist()), *((weighting, seed) if own else ()))

        def fit(samples: TraceView) -> _fitting.Model:
            known = labelled(samples)
            if not own:
                return {"gates": train_gates(head_statistics(known), losses(known), cost, *settings)}
            # by its module's name: a fit is known by the code it calls, and what `fitted` remembers is not part of that
            warm = _fitting.fitted(samples, ("jei-dnn warm-up", seed), warm_up_with(seed), features=True)
            last, label = losses(known)[:, -1], known.label.astype(np.int64)
            weights, gates = train(warm, module_features(known), label, last, cost, *settings, weighting == "exit-mass", seed)
            return {"weights": weights, "gates": gates}

        return key, fit, own

    def probabilities(self, view: TraceView, values: Values) -> np.ndarray:
        """Softmax of the modules, of the recorded head at the last exit, float64 [N, E, K]; calibration samples out of fold."""
        key, fit, own = self.recipe(view, values)
        if not own or view.exits == 1:
            return view.probabilities

        def apply(model: _fitting.Model, samples: TraceView) -> np.ndarray:
            inputs = module_features(samples).astype(np.float64)
            logits = np.einsum("nld,ldk->nlk", inputs, model["weights"][:, :-1]) + model["weights"][:, -1]
            return softmax(logits, axis=2)

        modules = view.derived((*key, "probabilities"), lambda whole: _fitting.judged(whole, key, fit, apply, features=own))
        return np.concatenate([modules, view.probabilities[:, -1:]], axis=1)

    def opinions(self, view: TraceView, values: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """h float64, answers int32 and their probabilities float64 of every exit but the last, [N, E - 1] each."""
        key, fit, own = self.recipe(view, values)

        def apply(model: _fitting.Model, samples: TraceView) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            if own:
                answers, confidence, statistics = ask(model["weights"], module_features(samples))
            else:
                answers, confidence, statistics = samples.answers[:, :-1], samples.confidence[:, :-1], head_statistics(samples)
            return exit_masses(gate_outputs(statistics, model["gates"]))[1], answers, confidence

        if view.exits == 1:
            nothing = np.zeros((len(view), 0))
            return nothing, nothing.astype(np.int32), nothing
        if own:
            module_features(view)  # says what to do where there are none
        return view.derived(key, lambda whole: _fitting.judged(whole, key, fit, apply, features=own))

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """h and the module's answer at every exit, float64 [N, E, 2]; the last exit is never asked."""
        chance, answers, _ = self.opinions(view, values)
        observed = np.stack([np.ones((len(view), view.exits)), view.answers], axis=2)
        observed[:, :-1, 0], observed[:, :-1, 1] = chance, answers
        return observed

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`."""
        if exit >= 0 and exit < observed.shape[0] - 1 and observed[exit, 0] >= 0.5:
            answer[0] = int(observed[exit, 1])
            return STOP
        return exit + 1

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """The trade-off; what it does is in what `observe` returns."""
        return np.array([values["trade_off"]], np.float64)

    def decide(self, view: TraceView, values: Values) -> Decisions:
        """Array form of `step`, with the modules' own probability of the answers given."""
        chance, answers, confidence = self.opinions(view, values)
        leave = np.pad(chance >= HALF, ((0, 0), (0, 1)), constant_values=True)
        exits = leave.argmax(axis=1)
        answers = np.concatenate([answers, view.answers[:, -1:]], axis=1)
        confidence = np.concatenate([confidence, view.confidence[:, -1:]], axis=1)
        prediction, sure = (np.take_along_axis(part, exits[:, None], axis=1)[:, 0] for part in (answers, confidence))
        paths = paths_by_exit(view.exits, every_head=True)
        return Decisions(paths, exits.astype(np.uint8), exits.astype(np.int16), prediction.astype(np.int32), sure)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """A grid of trade-offs and of largest positive weights, with the recorded heads and, where features were recorded, with own modules."""
        given = given or {}
        kinds = [given["modules"]] if "modules" in given else ["recorded", *(["fitted"] if has_features(view) else [])]
        found = []
        for kind in kinds:
            trade_offs, weights = FITTED_GRID if kind == "fitted" else RECORDED_GRID
            weights = weights if count >= 50 else weights[:: len(weights) - 1]  # few candidates: the extremes only
            each = min(max(count // (len(kinds) * len(weights)), 1), len(trade_offs))
            trade_offs = [trade_offs[place] for place in np.linspace(0, len(trade_offs) - 1, each).round().astype(int)]
            found += [{"trade_off": trade_off, "modules": kind, "pos_weight_max": weight} for trade_off, weight in product(trade_offs, weights)]
        kept = [{name: value for name, value in values.items() if name not in given} for values in found]
        return [values for place, values in enumerate(kept) if values not in kept[:place]]

    def charge(self, site: Site) -> Charge:
        """At each exit but the last the module (pooling, a linear layer), where it has its own; a softmax; and the gate, as the code counts it."""
        classes = site.classes
        gate = (Work("softmax", classes, 4 * classes + 1), Work("elementwise", classes, 9 * classes + 6 + 3))
        if not self.replaces_heads:
            return Charge(gate)
        exits = []
        for elements, features in zip(site.feature_elements[:-1], site.features[:-1], strict=True):
            pooling = (Work("pooling", elements, elements),) if elements > features else ()
            exits.append((*pooling, Work("fully_connected", features, classes, macs=features * classes), *gate))
        return Charge(tuple(exits))


def labelled(view: TraceView) -> TraceView:
    """The samples that have a label."""
    known = np.flatnonzero(view.label >= 0)
    return view if known.size == len(view) else view.taken(known)


def has_features(view: TraceView) -> bool:
    """Whether features were recorded."""
    try:
        return len(view.features) > 0
    except BadInput:
        return False


def module_features(view: TraceView) -> np.ndarray:
    """Features of all exits but the last, float32 [N, E - 1, D]; shorter ones are filled up with zeros. Raises BadInput without features."""

    def make(whole: TraceView) -> np.ndarray:
        try:
            parts = whole.features[:-1]
        except BadInput as error:
            raise BadInput(f"{error}; or set modules=recorded, which learns the gates only", field="modules") from None
        filled = np.zeros((len(whole), len(parts), max(part.shape[1] for part in parts)), np.float32)
        for exit, part in enumerate(parts):
            filled[:, exit, : part.shape[1]] = part
        return filled

    return view.derived("jei-dnn features", make)


def head_statistics(view: TraceView) -> np.ndarray:
    """What gates see of the recorded heads of all exits but the last, float64 [N, E - 1, 4]."""
    return view.derived("jei-dnn statistics", lambda whole: softmax_statistics(whole.probabilities[:, :-1]))


def losses(view: TraceView) -> np.ndarray:
    """Cross-entropy of every recorded exit, float64 [N, E]; all samples have labels."""
    likely = np.take_along_axis(view.probabilities, view.label[:, None, None].astype(np.intp), axis=2)[:, :, 0]
    return -np.log(np.maximum(likely, 1e-300))


def warm_up_with(seed: int):
    """The fit of warmed-up modules, which all trade-offs share."""

    def fit(samples: TraceView) -> _fitting.Model:
        known = labelled(samples)
        return warm_up(module_features(known), known.label.astype(np.int64), known.classes, seed)

    return fit


def ask(weights: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers int32 and their probabilities [N, L], and statistics [N, L, 4], of modules on features [N, L, D]."""
    shape = features.shape[:2]
    answers, confidence, statistics = np.empty(shape, np.int32), np.empty(shape), np.empty((*shape, STATISTICS))
    ask_modules(features, weights, answers, confidence, statistics)
    return answers, confidence, statistics
