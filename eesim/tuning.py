"""Tuning a mechanism on the calibration split: the cheapest setting that loses no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from eesim.cost import MechanismCost, NetworkCost, price_network
from eesim.engine.planes import tally
from eesim.errors import BadInput, unknown
from eesim.hardware.profile import Profile, load_profile
from eesim.mechanisms._deciding import decide
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Mechanism, Values, paths_by_exit
from eesim.mechanisms.registry import load_mechanism
from eesim.result import FEWEST_LABELLED
from eesim.trace.view import TraceView, score_answers
from eesim.units import fraction
from eesim.workload import Workload, load_workload

OBJECTIVES = ("energy", "latency", "macs")
METRICS = ("accuracy", "balanced_accuracy")
SHARED_SETTINGS = 500
"""Thresholds tried when all exits share one."""
JOINT_SETTINGS = 200_000
"""Threshold vectors tried at most, exhaustively, before coordinate descent refines the best."""


@dataclass(frozen=True)
class Evaluation:
    """P settings on one view without time: accuracy and balanced accuracy float64 [P] (NaN unknown), cost float64 [P] by name.

    Costs are means per sample, energy in nJ (None: not known), latency in ns, macs; and p95 and p99 of the latency.
    """

    accuracy: np.ndarray
    balanced_accuracy: np.ndarray
    cost: dict[str, np.ndarray | None]


@dataclass(frozen=True)
class Tuned:
    """What tuning chose. `mechanism` is static where nothing else was within the drop and cheaper."""

    mechanism: Mechanism
    parameters: Values
    accuracy_drop: float
    objective: str
    metric: str
    calibration: dict[str, float]
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For summaries: the rule of tuning and what it saw on the calibration split."""
        return {"accuracy_drop": self.accuracy_drop, "objective": self.objective, "metric": self.metric, "calibration": self.calibration}


def tune(
    workload: str | Path | Workload,
    profile: str | Path | Profile,
    mechanism: str | Path | Mechanism,
    *,
    accuracy_drop: str | float = 0.01,
    objective: str = "energy",
    metric: str = "accuracy",
    per_exit: bool = False,
    exits: Iterable[int] | None = None,
    operating_point: str | None = None,
    data_type: str | None = None,
) -> Tuned:
    """Find the parameters that minimise the mean `objective` ('energy', 'latency' or 'macs') per sample on the calibration split.

    accuracy_drop : how many absolute points of `metric` may be lost against the static network, e.g. ``'1%'``.
    per_exit : one threshold for each exit instead of one for all.

    If no setting is within the drop and cheaper than static, the result is static, with a warning. Only the calibration
    split is looked at. Raises BadInput, among others when there is none, or when the profile cannot give the objective.
    """
    workload = load_workload(workload)
    priced = price_network(workload.network, load_profile(profile), operating_point, data_type)
    return tune_priced(
        workload, priced, load_mechanism(mechanism), accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit,
        exits=workload.enabled(exits),
    )  # fmt: skip


def tune_priced(
    workload: Workload,
    priced: NetworkCost,
    mechanism: Mechanism,
    *,
    accuracy_drop: str | float,
    objective: str,
    metric: str,
    per_exit: bool,
    exits: tuple[int, ...],
) -> Tuned:
    """`tune` for a network that is already priced."""
    drop = fraction(accuracy_drop, "accuracy drop")
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES, field="objective")
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS, field="metric")
    view = workload.view("calibration", exits)
    cost = MechanismCost(priced, exits, mechanism, view.classes)
    static = load_mechanism("static")
    reference = evaluate(view, static, [{}], MechanismCost(priced, exits, static, view.classes))
    if reference.cost[objective] is None:
        raise BadInput(
            f"profile '{priced.profile.name}' gives no energy, so nothing can be tuned to it; choose 'latency' or 'macs'", field="objective"
        )
    least = getattr(reference, metric)[0] - drop - 1e-12
    if np.isnan(least):
        raise BadInput(f"{metric} of the calibration split is not known (too few labels)", field="metric")

    if mechanism.bound:
        values = mechanism.check(mechanism.defaults(lambda: view), view)
        return Tuned(mechanism, values, drop, objective, metric, _seen(evaluate(view, mechanism, [values], cost), 0, metric, objective))
    settings, evaluation = search(view, mechanism, cost, least=least, objective=objective, metric=metric, per_exit=per_exit)
    best = cheapest(evaluation, least=least, objective=objective, metric=metric)
    if best is None or evaluation.cost[objective][best] >= reference.cost[objective][0]:
        limits = f"within {drop:.3g} of static {metric.replace('_', ' ')} and cheaper in {objective}"
        why = f"no setting of '{mechanism.name}' on '{priced.profile.name}' is {limits}"
        return Tuned(static, {}, drop, objective, metric, _seen(reference, 0, metric, objective), (f"{why}; static is used",))
    return Tuned(mechanism, settings[best], drop, objective, metric, _seen(evaluation, best, metric, objective))


def cheapest(evaluation: Evaluation, *, least: float, objective: str, metric: str) -> int | None:
    """The cheapest setting with at least `least` of `metric`; among equals the more accurate, then the first. None if there is none."""
    value, cost = getattr(evaluation, metric), evaluation.cost[objective]
    within = np.flatnonzero(value >= least)
    if within.size == 0:
        return None
    return int(within[np.lexsort((-value[within], cost[within]))[0]])


def search(
    view: TraceView, mechanism: Mechanism, cost: MechanismCost, *, least: float, objective: str, metric: str, per_exit: bool
) -> tuple[list[Values], Evaluation]:
    """Settings worth trying, evaluated. With `per_exit`: a joint grid over all exits, then coordinate descent around the best."""
    if not per_exit:
        settings = [mechanism.settle(values, view) for values in mechanism.candidates(view, SHARED_SETTINGS)]
        return settings, evaluate(view, mechanism, settings, cost)
    if not isinstance(mechanism, ThresholdMechanism) or not mechanism.parameters[0].per_exit:
        raise BadInput(f"mechanism '{mechanism.name}' has no threshold per exit", field="per_exit")
    name, free = mechanism.parameters[0].name, view.exits - 1

    def spread(vector: Sequence[Any]) -> Values:
        full: list[Any] = ["never"] * (view.trace.exits - 1)
        for exit, value in zip(view.recorded_exits, vector, strict=False):
            full[exit] = value
        return {name: tuple(full)}

    levels = max(int(JOINT_SETTINGS ** (1 / max(free, 1))), 2)
    coarse = [_exit_levels(mechanism, view, exit, levels) for exit in range(free)]
    vectors = list(product(*coarse)) if np.prod([len(axis) for axis in coarse]) <= 4 * JOINT_SETTINGS else []
    shared = [candidate[name] for candidate in mechanism.candidates(view, SHARED_SETTINGS)]
    vectors += [(value,) * free for value in shared]
    evaluation = _evaluate_vectors(view, mechanism, vectors, cost)
    fine = [_exit_levels(mechanism, view, exit, 128) for exit in range(free)]
    best = cheapest(evaluation, least=least, objective=objective, metric=metric)
    for _ in range(10):
        if best is None:
            break
        around = [vectors[best]] + [(*vectors[best][:exit], value, *vectors[best][exit + 1 :]) for exit in range(free) for value in fine[exit]]
        tried = _evaluate_vectors(view, mechanism, around, cost)
        better = cheapest(tried, least=least, objective=objective, metric=metric)
        vectors, evaluation, best = around, tried, better
        if better in (None, 0):
            break
    return [spread(vector) for vector in vectors], evaluation


def _exit_levels(mechanism: ThresholdMechanism, view: TraceView, exit: int, count: int) -> list[Any]:
    """Thresholds worth trying at one exit, and 'never'."""
    return [float(value) for value in mechanism.levels(mechanism.score(view)[:, exit], view, max(count - 1, 2))] + ["never"]


def evaluate(view: TraceView, mechanism: Mechanism, settings: Sequence[Values], cost: MechanismCost) -> Evaluation:
    """Accuracy and mean cost of every setting, without time. Threshold rules go through bit planes, others one by one."""
    if isinstance(mechanism, ThresholdMechanism) and len(settings) > 4:
        return _evaluate_bars(view, mechanism, np.stack([mechanism.pack(values, view) for values in settings]), cost)
    rows = [_evaluate_one(view, mechanism, values, cost) for values in settings]
    known = all(row[2] is not None for row in rows)
    names = (*OBJECTIVES, "p95", "p99")
    costs = {name: np.array([row[2 + index] for row in rows], float) for index, name in enumerate(names) if index > 0 or known}
    return Evaluation(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), {"energy": None, **costs})


def _evaluate_vectors(view: TraceView, mechanism: ThresholdMechanism, vectors: Sequence[Sequence[Any]], cost: MechanismCost) -> Evaluation:
    bars = np.array([[np.inf if value == "never" else mechanism.bar(value) for value in vector] for vector in vectors])
    return _evaluate_bars(view, mechanism, bars.reshape(len(vectors), -1), cost)


def _evaluate_bars(view: TraceView, mechanism: ThresholdMechanism, bars: np.ndarray, cost: MechanismCost) -> Evaluation:
    counted = tally(mechanism.score(view), bars, view.correct == 1, view.answers == view.answers[:, -1:], (view.label, view.classes))
    paths = cost.paths(paths_by_exit(view.exits, every_head=True))
    shares = counted.exits / len(view)
    energy = None if paths.energy_nj is None else shares @ paths.energy_nj
    labelled = view.class_counts
    enough = labelled >= FEWEST_LABELLED
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = counted.correct / labelled.sum()
        recalls = counted.class_correct[:, enough] / labelled[enough]
        balanced = recalls.mean(axis=1) if enough.any() else np.full(bars.shape[0], np.nan)
    cost = {"energy": energy, "latency": shares @ paths.response_ns, "macs": shares @ paths.macs}
    return Evaluation(accuracy, balanced, cost | {f"p{rank}": _percentile(paths.response_ns, shares, rank) for rank in (95, 99)})


def _percentile(values: np.ndarray, shares: np.ndarray, rank: int) -> np.ndarray:
    """Nearest-rank percentile of values [V] that are met with shares [P, V]; float64 [P]."""
    order = np.argsort(values)
    reached = np.cumsum(shares[:, order], axis=1) >= rank / 100 - 1e-12
    return values[order][np.where(reached.any(axis=1), reached.argmax(axis=1), len(order) - 1)].astype(np.float64)


def _evaluate_one(view: TraceView, mechanism: Mechanism, values: Values, cost: MechanismCost) -> tuple:
    decisions = decide(mechanism, view, values)
    paths = cost.paths(decisions.paths)
    shares = np.bincount(decisions.path, minlength=len(decisions.paths)) / len(view)
    right = score_answers(decisions.prediction, view.label) == 1
    labelled = view.class_counts
    enough = labelled >= FEWEST_LABELLED
    hits = np.bincount(view.label[right], minlength=view.classes)
    accuracy = right.sum() / labelled.sum() if labelled.sum() else np.nan
    balanced = float((hits[enough] / labelled[enough]).mean()) if enough.any() else np.nan
    energy = None if paths.energy_nj is None else float(shares @ paths.energy_nj)
    tails = (float(_percentile(paths.response_ns, shares[None], rank)[0]) for rank in (95, 99))
    return accuracy, balanced, energy, float(shares @ paths.response_ns), float(shares @ paths.macs), *tails


def _seen(evaluation: Evaluation, index: int, metric: str, objective: str) -> dict[str, float]:
    unit, scale = {"energy": ("energy_mj", 1e6), "latency": ("latency_ms", 1e6), "macs": ("macs", 1.0)}[objective]
    return {metric: float(getattr(evaluation, metric)[index]), unit: float(evaluation.cost[objective][index]) / scale}
